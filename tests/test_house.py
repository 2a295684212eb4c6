"""The layout: arrays point down, and everything is small."""

import ast
from pathlib import Path

import pytest

import sklearn_p2l

ROOT = Path(sklearn_p2l.__file__).parent
# From the bottom to the top: a room imports from those before it only.
ROOMS = [
    "_version",
    "exceptions",
    "_files",
    "_compat",
    "_alignment",
    "_provenance",
    "_ridge",
    "_probe",
    "transferability",
    "samples",
    "networks",  # opened by _compat.load_networks, when something needs torch
    "_workers",
    "divergence",
    "metrics",
    "task",
    "embedding",
    "catalog",
    "selection",
    "tuning",
    "datasets",
    "ground_truth",
    "evaluation",
    "plotting",
    "_cli",
    "__main__",
]
FILES = sorted(ROOT.rglob("*.py"))


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path):
    """Modules of this package that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "sklearn_p2l":
                yield from (f"sklearn_p2l.{alias.name}" for alias in node.names)
            elif node.module.startswith("sklearn_p2l."):
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("sklearn_p2l"))


def test_every_room_has_its_place():
    assert {room_of(path) for path in FILES} - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_point_down(room):
    """So networks and readers know no catalog, embedding no records, and so on."""
    lower = set(ROOMS[: ROOMS.index(room) + 1])
    if room == "_compat":
        lower.add("networks")  # the lazy door
    public = {"DatasetEmbedder", "FineTuner", "NetworkClassifier", "Source"}
    public |= {"SourceCatalog", "SourceSelector", "Task", "__version__"}
    for path in FILES:
        if room_of(path) == room:
            targets = {name.split(".")[1] for name in imports_of(path)}
            if room in ("_cli", "__main__"):
                targets -= public
            assert targets <= lower, f"{path} imports {sorted(targets - lower)}"


def test_inner_files_are_private():
    """A room is entered by its door; only tests look behind it."""
    doors = {"networks"}  # one file per family, public by its names
    for path in FILES:
        for name in imports_of(path):
            parts = name.split(".")
            if len(parts) > 2 and parts[1] != room_of(path) and parts[1] not in doors:
                allowed = (parts[1], room_of(path)) in INSIDERS
                assert allowed, f"{path} imports {name}"


# Rooms that share what is no business of users: rankers, and what shows or asks them.
INSIDERS = {
    ("selection", "tuning"),
    ("selection", "evaluation"),
    ("selection", "plotting"),
    ("selection", "_cli"),
}


def body_lines(node):
    """Lines of a function's body, without its docstring."""
    body = node.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_small(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 600
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert body_lines(node) <= 60, node.name
            arguments = node.args.args + node.args.kwonlyargs
            if node.name != "__init__":  # an estimator's parameters are what they are
                assert len(arguments) < 15, node.name


def test_private_names_of_scikit_learn_stand_in_one_place():
    for path in FILES:
        if path.name == "_compat.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "sklearn."
            ):
                private = node.module.split(".")[1:] + [a.name for a in node.names]
                assert not [name for name in private if name.startswith("_")], path
