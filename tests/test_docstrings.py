"""Examples run, on pages and in docstrings; the reference is complete."""

import doctest
import gzip
import importlib
import inspect
import pkgutil
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from numpydoc.validate import validate

import sklearn_p2l

ROOT = Path(__file__).parents[1]
MODULES = [
    module.name
    for module in pkgutil.walk_packages(sklearn_p2l.__path__, "sklearn_p2l.")
]
DOC = ROOT / "doc"
REFERENCE_PAGES = [DOC / "api.rst", *sorted(DOC.glob("api/*.rst"))]
PAGES = [*sorted(DOC.glob("*.rst")), *sorted(DOC.glob("guide/*.rst"))]
# Every room that users enter.
ROOMS = (
    "sklearn_p2l",
    "sklearn_p2l.catalog",
    "sklearn_p2l.datasets",
    "sklearn_p2l.divergence",
    "sklearn_p2l.embedding",
    "sklearn_p2l.evaluation",
    "sklearn_p2l.exceptions",
    "sklearn_p2l.ground_truth",
    "sklearn_p2l.metrics",
    "sklearn_p2l.networks",
    "sklearn_p2l.plotting",
    "sklearn_p2l.selection",
    "sklearn_p2l.tuning",
)


def things_on_the_reference_pages():
    """Functions and classes by the names under which the reference lists them."""
    module, things = None, {}
    for page in REFERENCE_PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith(".. currentmodule:: "):
                module = importlib.import_module(line.split()[-1])
            elif re.fullmatch(r"   \w+", line):
                name = line.strip()
                things[f"{module.__name__}.{name}"] = getattr(module, name)
    return things


REFERENCE = things_on_the_reference_pages()


def is_documented_by_itself(thing):
    return inspect.isroutine(thing) or inspect.isclass(thing)


@pytest.mark.parametrize("room", ROOMS)
def test_reference_is_complete(room):
    module = importlib.import_module(room)
    public = {name: getattr(module, name) for name in module.__all__}
    things = {n: v for n, v in public.items() if is_documented_by_itself(v)}
    assert things
    listed = {id(thing) for thing in REFERENCE.values()}
    assert not [name for name, thing in things.items() if id(thing) not in listed]
    # Scorers and the like are told of beside what they are made of.
    text = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE_PAGES)
    others = public.keys() - things.keys() - {"__version__"}
    assert not [name for name in others if f"`{name}`" not in text]


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


# What users call has an example. Exceptions speak for themselves, and `networks` is for
# those who add one; of it, users need the PCNN.
WITH_EXAMPLE = {
    name: thing
    for name, thing in REFERENCE.items()
    if not (inspect.isclass(thing) and issubclass(thing, Warning))
    and (".networks." not in name or name.endswith(".PCNN"))
}


@pytest.mark.parametrize("thing", WITH_EXAMPLE.values(), ids=WITH_EXAMPLE)
def test_public_things_have_an_example(thing):
    assert "Examples\n--------" in inspect.getdoc(thing)


# What numpydoc may find wrong, but for: what it asks of every docstring beyond its
# first line (ES01, EX01, SA01), the form of what is returned, which is named here as
# scikit-learn names it (RT02 to RT04), and a guess at grammar (SS05).
CODES = {
    *("GL01 GL02 GL03 GL05 GL06 GL07 GL08 GL09 GL10".split()),
    *("SS01 SS02 SS03 SS04 SS06 RT01 RT05 YD01 SA02 SA03 SA04".split()),
    *("PR01 PR02 PR03 PR04 PR05 PR06 PR07 PR08 PR09 PR10".split()),
}


def documented_things():
    """Paths of public functions, classes, and public methods of classes."""
    for name, thing in REFERENCE.items():
        yield name
        if not inspect.isclass(thing):
            continue
        for attribute, value in inspect.getmembers(thing):
            owner = next((c for c in thing.__mro__ if attribute in vars(c)), object)
            ours = owner.__module__.startswith("sklearn_p2l")
            if ours and not attribute.startswith("_") and inspect.isroutine(value):
                yield f"{name}.{attribute}"


@pytest.mark.parametrize(
    "path", [p for p in documented_things() if ".networks." not in p]
)
def test_docstrings_follow_numpydoc(path):
    found = [(code, text) for code, text in validate(path)["errors"] if code in CODES]
    assert not found


NETWORKS = [name for name in REFERENCE if ".networks." in name]


@pytest.mark.parametrize("path", NETWORKS)
def test_networks_say_types_in_signatures(path):
    """There, and what each parameter is for in prose."""
    thing = REFERENCE[path]
    assert inspect.getdoc(thing)
    signature = inspect.signature(thing)
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty, parameter
    if inspect.isroutine(thing):
        assert signature.return_annotation is not signature.empty


# Pages name networks that are large or would be downloaded, and trainings of hours:
# before their blocks run, each of these texts is replaced.
IN_PLACE_OF = {
    'DatasetEmbedder("vgg16")': (
        'DatasetEmbedder("small_resnet", weights=None, random_state=0)'
    ),
    'NetworkClassifier("resnet18", verbose=1)': (
        'NetworkClassifier("small_resnet", epochs=1)'
    ),
    '"resnet18"': '"small_resnet"',
    "SourceCatalog.from_published(published)": (
        'load_zoo().sources[["shapes", "alphabets"]]'
    ),
    "NetworkClassifier(random_state=0)": "quick",
    "FineTuner(selector, zoo, n_c": "FineTuner(selector, zoo, quick, n_c",
    "image_size=224": "image_size=32, epochs=2",
    'NetworkClassifier("pcnn")': 'NetworkClassifier("pcnn", epochs=1)',
    "seeds=(0, 1, 2)": "seeds=(0, 1)",
    "n_jobs=2": "n_jobs=1",
}
# In this order, as one session: what one page makes, the next ones use.
RUN = [
    "README.md",
    "doc/guide/datasets.rst",
    "doc/guide/ground_truth.rst",
    "doc/guide/serving.rst",
    "doc/guide/relations.rst",
]


def blocks_of(page):
    """Python blocks of a page in Markdown or reStructuredText, but for doctests."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    pattern = r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)"
    return [textwrap.dedent(block) for block in re.findall(pattern, text, re.MULTILINE)]


def write_images(folder, task):
    """Write the images of a task as files, in a subfolder for each class."""
    from PIL import Image

    for i, (image, label) in enumerate(zip(task.X, task.y)):
        path = Path(folder, f"class {label}", f"{i:03}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def larger(task):
    """A task with some of its test part, so that accuracies of sources hardly tie."""
    X = np.concatenate([task.X, task.X_test])[:150]
    return type(task)(X, np.concatenate([task.y, task.y_test])[:150])


def write_bags(path):
    """Write pairs of entities in the format of CC-DBP, half of them related."""
    lines = []
    for i in range(20):
        first, second = f"A{i:02}", f"B{i:02}"
        text = f"{first} lies in {second} ." if i % 2 else f"{first} met {second} ."
        start = text.index(second)
        spans = f"[0,{len(first)})", f"[{start},{start + len(second)})"
        relations = (">in", ">in,<with")[i % 4 == 3] if i % 2 else ""
        lines.append("\t".join([first, second, "", "", *spans, relations, text, ""]))
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))


def what_the_readme_names():
    """Fill the working directory with files; return the variables."""
    import torch

    from sklearn_p2l import DatasetEmbedder, NetworkClassifier, SourceCatalog
    from sklearn_p2l.datasets import load_small_tasks

    tasks = load_small_tasks()
    screws = larger(tasks.training_targets["flower_colours"])
    folders = {
        "targets/a": tasks.training_targets["grey_flower_edges"],
        "targets/b": tasks.training_targets["grey_china_zooms"],
        "my_images": tasks.held_out_targets["digits_5_to_9"],
        "new_images": tasks.held_out_targets["china_zooms"],
        "data/birds": tasks.sources["flower_blurs"],
        "data/cars": tasks.sources["china_zooms"],
        "data/boats": tasks.sources["digits_5_to_9"],
        "data/weeds": larger(tasks.training_targets["inverted_digits_0_to_4"]),
    }
    for folder, task in folders.items():
        write_images(folder, task)
    write_bags("contexts.tsv.gz")

    embedder = DatasetEmbedder("small_resnet", weights=None, random_state=0)
    classifier = NetworkClassifier("small_resnet", epochs=5, random_state=0)
    sources = [
        classifier.fit(folders[folder]).to_source(
            name,
            checkpoint=f"{name}.safetensors",
            embedding=embedder.fit_transform([folder]),
            size=size,
        )
        for name, folder, size in [
            ("plants", "targets/a", 900),
            ("animals", "targets/b", 500),
            ("tools", "data/boats", 100),
            ("birds", "data/birds", 200),
        ]
    ]
    SourceCatalog(sources[:3]).save("zoo")
    classifier.fit("data/cars")
    weights = {key: torch.from_numpy(v) for key, v in classifier.weights_.items()}
    torch.save(weights, "cars.pt")
    return {
        "quick": NetworkClassifier(epochs=2, random_state=0),
        "improvements": np.array([[0.1, 0.2, 0.3], [0.2, 0.3, 0.1]]),
        "screw_images": list(screws.X),
        "screw_labels": screws.y,
    }


@pytest.mark.filterwarnings("ignore::sklearn_p2l.exceptions.LearnedWeightWarning")
@pytest.mark.filterwarnings("ignore::sklearn_p2l.exceptions.TiedRankingWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_readme_and_guide_run(tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    blocks = [(page, text) for page in RUN for text in blocks_of(ROOT / page)]
    assert {page for page, _ in blocks} == set(RUN) and len(blocks) > 8
    everything = "".join(text for _, text in blocks)
    for old in IN_PLACE_OF:
        assert old in everything, f"{old} is on none of the pages any more"
    namespace = what_the_readme_names()
    for page, block in blocks:
        for old, new in IN_PLACE_OF.items():
            block = block.replace(old, new)
        exec(compile(block, page, "exec"), namespace)
    assert namespace["tuner"].source_ in ("shapes", "alphabets")
    assert namespace["measured"].improvements.notna().all(axis=None)
    assert len(namespace["result"].summary)
