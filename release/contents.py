"""Compare the files in a wheel and an sdist with what they should hold: `python -m release.contents dist`."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
METADATA = {"METADATA", "RECORD", "WHEEL", "top_level.txt", "licenses/LICENSE"}
EGG = {"PKG-INFO", "SOURCES.txt", "dependency_links.txt", "requires.txt", "top_level.txt"}
BESIDE = {"CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"}
MADE = {"PKG-INFO", "setup.cfg"}


def main() -> None:
    """Compare both archives in a folder, and exit with 1 if a file is missing or too many."""
    folder = Path(sys.argv[1])
    found = {"wheel": (names_in_wheel(one(folder, "*.whl")), in_wheel(package()))}
    found["sdist"] = (names_in_sdist(one(folder, "*.tar.gz")), in_sdist(package()))
    differences = [f"the {kind} {line}" for kind, pair in found.items() for line in compare(*pair)]
    if differences:
        sys.exit("\n".join(differences))
    print(", ".join(f"{kind}: {len(names)} files, as they should be" for kind, (names, _) in found.items()))


def one(folder: Path, pattern: str) -> Path:
    """Return the only archive of its kind."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        sys.exit(f"{folder} holds {len(found)} files like {pattern}, not one: run make dist.")
    return found[0]


def package() -> set[str]:
    """Return the files of the package under version control, its stored results among them."""
    listed = subprocess.run(["git", "ls-files", "gradconf"], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(listed.stdout.splitlines())


def in_wheel(files: set[str]) -> set[str]:
    """Return what a wheel should hold."""
    return files | {f"dist-info/{name}" for name in METADATA}


def in_sdist(files: set[str]) -> set[str]:
    """Return what an sdist should hold: enough to build the wheel, and to read and cite."""
    return files | BESIDE | MADE | {f"gradconf.egg-info/{name}" for name in EGG}


def names_in_wheel(path: Path) -> set[str]:
    """Return the files in a wheel, with the version taken out of the names."""
    with zipfile.ZipFile(path) as archive:
        names = [PurePosixPath(name) for name in archive.namelist()]
    return {
        str(PurePosixPath("dist-info", *name.parts[1:])) if name.parts[0].endswith(".dist-info") else str(name)
        for name in names
    }


def names_in_sdist(path: Path) -> set[str]:
    """Return the files in an sdist, without its outermost folder."""
    with tarfile.open(path) as archive:
        return {str(PurePosixPath(*PurePosixPath(file.name).parts[1:])) for file in archive if file.isfile()}


def compare(found: set[str], wanted: set[str]) -> list[str]:
    """Return a line for every file that is missing or too many."""
    return [f"lacks {name}" for name in sorted(wanted - found)] + [
        f"holds {name}, which does not belong there" for name in sorted(found - wanted)
    ]


if __name__ == "__main__":
    main()
