"""A copy of the repository at the present commit, which git takes for the published one."""

import re
import subprocess
from pathlib import Path

ADDRESS = re.compile(r"git\+(?P<url>https://[^\s@]+)(?:@(?P<ref>\S+))?")


def redirected(source: Path, folder: Path, first_cell: str) -> dict[str, str]:
    """Clone a repository, and say by which environment git takes the clone for what a first cell installs.

    Args:
        source: the repository.
        folder: where to clone it to.
        first_cell: a cell that installs from an address, and perhaps a tag, which is then made.

    Returns:
        Environment variables for git.

    Raises:
        ValueError: if the cell installs from no address.
    """
    found = ADDRESS.search(first_cell)
    if found is None:
        raise ValueError("the first code cell installs nothing from git+https://…: copy it from another chapter.")
    subprocess.run(["git", "clone", "--quiet", "--bare", source, folder], check=True)
    _git(folder, "update-ref", "refs/heads/present", "HEAD")  # HEAD may be on no branch, as in a checkout of CI
    _git(folder, "symbolic-ref", "HEAD", "refs/heads/present")
    if found["ref"]:
        _git(folder, "tag", "--force", found["ref"], "HEAD")
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{folder.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": found["url"],
    }


def _git(folder: Path, *command: str) -> None:
    subprocess.run(["git", "-C", folder, *command], check=True, stdout=subprocess.DEVNULL)
