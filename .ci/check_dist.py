"""Check what wheel and sdist hold: ``python .ci/check_dist.py FOLDER``."""

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = {".md", ".rst", ".txt", ".py", ".csv", ".png"}
SHIPPED |= {".json", ".npy", ".npz", ".safetensors"}
# What caches and the documentation's build leave in the checkout.
MADE = {
    "__pycache__",
    ".pytest_cache",
    "_build",
    "auto_examples",
    "generated",
}
PAGES = {
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "pyproject.toml",
    "setup.cfg",
}
ENTRY_POINT = "p2l = sklearn_p2l.__main__:main"


def files_of(*folders):
    """Files of the checkout that users need, relative to it."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.*")]
    paths = [path.relative_to(ROOT) for path in paths if path.suffix in SHIPPED]
    return {path.as_posix() for path in paths if MADE.isdisjoint(path.parts)}


def missing(wanted, names):
    return [f"lacks {name}" for name in sorted(wanted - names)]


def wheel_errors(path):
    with zipfile.ZipFile(path) as file:
        names = set(file.namelist())
        info = next(n.split("/")[0] for n in names if n.endswith(".dist-info/METADATA"))
        points = f"{info}/entry_points.txt"
        scripts = file.read(points).decode() if points in names else ""
    errors = missing(files_of("sklearn_p2l"), names)
    if not any(n.startswith(info) and n.endswith("/LICENSE") for n in names):
        errors.append("lacks LICENSE")
    if ENTRY_POINT not in scripts.splitlines():
        errors.append(f"lacks the entry point {ENTRY_POINT!r}")
    others = {n.split("/")[0] for n in names} - {"sklearn_p2l", info}
    return errors + [f"must not hold {name}" for name in sorted(others)]


def sdist_errors(path):
    with tarfile.open(path) as file:
        names = {m.name.partition("/")[2] for m in file.getmembers() if m.isfile()}
    folders = ["sklearn_p2l", "tests", "examples", "benchmarks", "doc"]
    errors = missing(PAGES | files_of(*folders), names)
    for folder in folders[:-1]:
        if not any(name.startswith(f"{folder}/") for name in names):
            errors.append(f"lacks {folder}/")
    made = [n for n in names if not MADE.isdisjoint(n.split("/"))]
    return errors + [f"must not hold {name}" for name in sorted(made)]


def main(folder):
    errors = []
    for pattern, check in [("*.whl", wheel_errors), ("*.tar.gz", sdist_errors)]:
        paths = list(Path(folder).glob(pattern))
        if len(paths) != 1:
            errors.append(f"{folder} must hold one {pattern}, got {len(paths)}")
        errors += [f"{p.name} {error}" for p in paths for error in check(p)]
    return "\n".join(errors) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
