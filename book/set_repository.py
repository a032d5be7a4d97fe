"""Write the repository's address wherever it stands: `python book/set_repository.py https://github.com/ACCOUNT/NAME`.

The address in `_config.yml` is the one that counts; all others, and the site's own address, follow from it.
"""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
ADDRESS = re.compile(r"https://github\.com/([A-Za-z0-9](?:-?[A-Za-z0-9])*|YOUR_ACCOUNT)/((?!\.{1,2}$)[A-Za-z0-9._-]+)")


def main() -> None:
    """Replace the present addresses by those of the command line."""
    new = sys.argv[1].removesuffix("/").removesuffix(".git") if len(sys.argv) == 2 else ""
    if not ADDRESS.fullmatch(new):
        sys.exit("give the repository's address: make set-repo URL=https://github.com/ACCOUNT/NAME")
    old = present()
    for path in tracked():
        text = path.read_text(encoding="utf-8")
        changed = re.sub(whole(old), new, text).replace(site(old), site(new))
        if changed != text:
            path.write_text(changed, encoding="utf-8")
            print(path.relative_to(ROOT))


def whole(address: str) -> str:
    """Return a pattern of an address where it is not the beginning of a longer one."""
    return re.escape(address) + r"(?![\w-]|\.(?!git\b)\w)"


def present() -> str:
    """Return the address in `_config.yml`."""
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]


def site(address: str) -> str:
    """Return where GitHub Pages publishes a repository: under its name, or at the top if that is the account's site."""
    account, name = ADDRESS.fullmatch(address).groups()
    host = f"{account.lower() if account != 'YOUR_ACCOUNT' else account}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def tracked() -> list[Path]:
    """Return the files under version control that hold text."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        sys.exit("this is no git checkout, so it cannot be told which files are the course's: clone the repository.")
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.suffix not in {".png", ".ico"} and path.exists()]


if __name__ == "__main__":
    main()
