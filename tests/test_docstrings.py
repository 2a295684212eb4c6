"""Every example in a docstring runs, and every public function has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import sklearn_p2l

MODULES = [
    module.name
    for module in pkgutil.walk_packages(sklearn_p2l.__path__, "sklearn_p2l.")
]
PUBLIC = [
    getattr(sklearn_p2l, n) for n in sklearn_p2l.__all__ if n != "__version__"
] + [
    value
    for name in (
        "baselines",
        "divergence",
        "evaluation",
        "ground_truth",
        "metrics",
        "plotting",
    )
    for key, value in vars(importlib.import_module(f"sklearn_p2l.{name}")).items()
    if key in importlib.import_module(f"sklearn_p2l.{name}").__all__
    and (inspect.isfunction(value) or inspect.isclass(value))
]


@pytest.mark.parametrize("name", ["sklearn_p2l", *MODULES])
@pytest.mark.filterwarnings("default")
def test_examples(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert failed == 0


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_public_things_are_documented(thing):
    doc = inspect.getdoc(thing)
    assert "Examples\n--------" in doc
    for name in inspect.signature(thing).parameters:
        assert f"\n{name} : " in doc, f"{name} is not documented"
