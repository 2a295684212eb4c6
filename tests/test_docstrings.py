"""Every example in a docstring runs, and every public function has one."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import sklearn_p2l

MODULES = [
    module.name
    for module in pkgutil.walk_packages(sklearn_p2l.__path__, "sklearn_p2l.")
]
DOC = Path(__file__).parents[1] / "doc"
PAGES = [*sorted(DOC.glob("*.rst")), *sorted(DOC.glob("guide/*.rst"))]


def things_on_the_reference_page():
    module, things = None, {}
    for line in (DOC / "api.rst").read_text(encoding="utf-8").splitlines():
        if line.startswith(".. currentmodule:: "):
            module = importlib.import_module(line.split()[-1])
        elif re.fullmatch(r"   \w+", line):
            things[line.strip()] = getattr(module, line.strip())
    return things


REFERENCE = things_on_the_reference_page()


@pytest.mark.parametrize(
    "name",
    "baselines divergence evaluation ground_truth metrics plotting".split(),
)
def test_reference_is_complete(name):
    module = importlib.import_module(f"sklearn_p2l.{name}")
    things = {n: getattr(module, n) for n in module.__all__}
    public = {
        n for n, v in things.items() if inspect.isroutine(v) or inspect.isclass(v)
    }
    assert public and public <= set(REFERENCE)
    assert set(sklearn_p2l.__all__) - {"__version__"} <= set(REFERENCE)


@pytest.mark.parametrize("name", ["sklearn_p2l", *MODULES])
@pytest.mark.filterwarnings("default")
def test_examples(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_on_pages(page):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testfile(str(page), module_relative=False, optionflags=flags)
    assert failed == 0


@pytest.mark.parametrize("thing", REFERENCE.values(), ids=REFERENCE)
def test_public_things_are_documented(thing):
    doc = inspect.getdoc(thing)
    assert "Examples\n--------" in doc
    for name in inspect.signature(thing).parameters:
        documented = re.search(rf"^(\w+, )*{name}(, \w+)* : ", doc, re.MULTILINE)
        assert documented, f"{name} is not documented"
