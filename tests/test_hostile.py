"""Whatever comes in: a correct result, or a documented error that names the culprit.

Properties, tried on inputs that hypothesis makes up; `benchmarks/reliability` tries
many more of them, for longer.
"""

import json
import os
import shutil
import struct
import tempfile
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save as to_safetensors
from sklearn.datasets import load_sample_images

from sklearn_p2l import (
    DatasetEmbedder,
    SourceCatalog,
    SourceSelector,
    Task,
    networks,
)
from sklearn_p2l.datasets import load_zoo, read_bags
from sklearn_p2l.samples import image_batches

# How many inputs each property is tried on: benchmarks/reliability says more.
N_EXAMPLES = int(os.environ.get("SKLEARN_P2L_EXAMPLES", 25))
many = settings(
    max_examples=N_EXAMPLES,
    deadline=10_000,  # ms: nothing hangs
    derandomize="SKLEARN_P2L_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
DOCUMENTED = (ValueError, TypeError, OSError)


def outcome(function, *args):
    """What a call gives: its value, or the type and the text of its error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(*args), None
        except DOCUMENTED as error:
            assert str(error), "an error must say something"
            return None, f"{type(error).__name__}: {error}"


def assert_same(one, other):
    assert one[1] == other[1]
    if one[1] is None:
        np.testing.assert_array_equal(np.asarray(one[0]), np.asarray(other[0]))


# -- arrays of images ----------------------------------------------------------------

EMBEDDER = DatasetEmbedder("small_resnet", weights=None, image_size=8, random_state=0)
DTYPES = ["u1", "i1", "u2", "i4", "i8", "f2", "f4", "f8", ">f4", "?", "c8", "O", "U3"]
LAYOUTS = {
    "as it is": lambda a: a,
    "Fortran order": np.asfortranarray,
    "every other one": lambda a: a.repeat(2, axis=0)[::2],
    "backwards twice": lambda a: a[::-1].copy()[::-1],
    "mirrored twice": lambda a: a[:, :, ::-1].copy()[:, :, ::-1],
    "not aligned": lambda a: np.frombuffer(
        b"\0" + a.tobytes(), dtype=a.dtype, offset=1
    ).reshape(a.shape),
    "read-only": lambda a: np.lib.stride_tricks.as_strided(a, writeable=False),
}


@st.composite
def image_arrays(draw):
    shape = draw(
        st.sampled_from(
            [(2, 9, 9), (3, 8, 12, 3), (2, 5, 7, 1), (2, 8, 8, 4), (1, 1, 1)]
        )
        | st.tuples(*[st.integers(0, 4)] * 3)
    )
    seed = draw(st.integers(0, 99))
    low, high = draw(st.sampled_from([(0, 1), (0, 255), (-1, 1), (0, 300), (0, 1e30)]))
    values = np.random.default_rng(seed).uniform(low, high, shape)
    if draw(st.booleans()) and values.size:
        values.flat[0] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return values.astype(draw(st.sampled_from(DTYPES)))


@many
@given(image_arrays(), st.sampled_from(sorted(LAYOUTS)))
def test_images_lie_in_memory_as_they_like(images, layout):
    assume(images.size or layout == "as it is")
    assume(images.dtype != object or layout != "not aligned")
    embedder = EMBEDDER.fit([np.zeros((1, 8, 8), np.uint8)])
    plain = outcome(embedder.transform, [np.ascontiguousarray(images)])
    embedder._kept.clear()
    assert_same(plain, outcome(embedder.transform, [LAYOUTS[layout](images)]))
    if plain[1] is None:
        vector = np.asarray(plain[0])
        assert np.isfinite(vector).all() and np.allclose(vector.sum(), 1)
        reverse = embedder.transform([np.ascontiguousarray(images)[::-1]])
        np.testing.assert_allclose(np.asarray(reverse), vector, rtol=1e-4, atol=1e-6)
    else:
        assert "dataset 0" in plain[1] or "X must be" in plain[1]


# -- files of images -----------------------------------------------------------------


def files():
    """A real photograph in many formats, as bytes."""
    photo = Image.fromarray(load_sample_images().images[0][100:140, 200:250])
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {}
    for name, mode, arguments in [
        ("jpeg", "RGB", dict(format="JPEG", exif=exif)),
        ("cmyk", "CMYK", dict(format="JPEG")),
        ("png", "RGBA", dict(format="PNG")),
        ("palette", "P", dict(format="PNG")),
        ("16 bit", "I;16", dict(format="PNG")),
        ("webp", "RGB", dict(format="WEBP")),
        ("gif", "P", dict(format="GIF")),
        ("tiff", "RGB", dict(format="TIFF", exif=exif)),
        ("bmp", "L", dict(format="BMP")),
    ]:
        buffer = BytesIO()
        image = photo.convert("L").convert("I;16") if mode == "I;16" else None
        (image or photo.convert(mode)).save(buffer, **arguments)
        made[name] = buffer.getvalue()
    buffer = BytesIO()
    photo.save(buffer, "GIF", save_all=True, append_images=[photo.rotate(90)])
    return made | {"animated": buffer.getvalue()}


FILES = files()


@st.composite
def mutated(draw, contents):
    """Bytes with some replaced, removed, doubled or cut off."""
    content = bytearray(draw(contents))
    for _ in range(draw(st.integers(0, 6))):
        if not content:
            break
        at = draw(st.integers(0, len(content) - 1))
        how = draw(st.sampled_from(["replace", "cut", "remove", "repeat", "insert"]))
        if how == "replace":
            content[at] = draw(st.integers(0, 255))
        elif how == "cut":
            del content[at:]
        elif how == "remove":
            del content[at : at + draw(st.integers(1, 40))]
        elif how == "repeat":
            content[at:at] = content[at : at + draw(st.integers(1, 40))]
        else:
            content[at:at] = draw(st.binary(min_size=1, max_size=8))
    return bytes(content)


@many
@given(mutated(st.sampled_from(sorted(FILES.values()))))
def test_damaged_files_are_images_or_named(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "café 😀.png")
        path.write_bytes(content)

        def read(on_error):
            return [i for b in image_batches([path], 4, on_error=on_error) for i in b]

        images, error = outcome(read, "raise")
        if error is None:
            assert images[0].dtype == np.uint8 and images[0].shape[2:] == (3,)
            assert_same(outcome(read, "skip"), (images, None))
        else:
            assert path.name in error
            assert "all 1 images were skipped" in outcome(read, "skip")[1]


# -- folders of classes --------------------------------------------------------------

ODD_NAMES = st.binary(min_size=1, max_size=20).filter(
    lambda b: b not in (b".", b"..") and not {0, ord("/")} & set(b)
)
KINDS = ["image", "image", "damaged", "linked", "lost link", "loop", "pipe", "empty"]


def make_entry(kind, path, image, root):
    """Make what `kind` says; tell whether it counts as an image."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if kind in ("image", "damaged"):
        Path(os.fsdecode(path)).write_bytes(image if kind == "image" else image[:60])
    elif kind == "linked":
        os.symlink(os.path.join(root, b"..", b"elsewhere.png"), path)
    elif kind == "lost link":
        os.symlink(b"nowhere.png", path)
    elif kind == "loop":
        os.symlink(root, path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        os.mkdir(path)
    return kind not in ("loop", "empty")


@many
@given(
    st.dictionaries(st.tuples(ODD_NAMES, ODD_NAMES), st.sampled_from(KINDS), max_size=8)
)
def test_folders_of_odd_things_are_read_or_named(entries):
    with tempfile.TemporaryDirectory() as place:
        root = os.fsencode(place)
        (Path(place) / "elsewhere.png").write_bytes(FILES["png"])
        own = os.path.join(root, b"own")
        os.mkdir(own)
        expected = {}
        for (label, name), kind in entries.items():
            path = os.path.join(own, label, name + b".png")
            try:
                counts = make_entry(kind, path, FILES["png"], own)
            except OSError:  # names that this file system does not take
                continue
            if counts and not label.startswith(b".") and not name.startswith(b"."):
                expected[os.fsdecode(path)] = os.fsdecode(label)
        folder = os.fsdecode(own)
        task, error = outcome(Task.from_folder, folder)
        if error is not None:
            n_classes = len(set(expected.values()))
            assert n_classes < 2 or "parts of a split" in error
            return
        assert dict(zip(task.X, task.y.tolist())) == expected
        embedder = EMBEDDER.fit([np.zeros((1, 8, 8), np.uint8)])
        _, why = outcome(embedder.transform, [task])
        kinds = {entries[k] for k in entries} & {"damaged", "lost link", "pipe"}
        assert (why is None) or (kinds and any(name in why for name in expected))


# -- relations in text ---------------------------------------------------------------

LINES = (
    "Paris\tFrance\tCITY\tNATION\t[0,5)\t[14,20)\t<capital,>in\t"
    "Paris lies in France .\t\n"
    "Åre\tÖst\t\t\t[0,3)\t[8,11)\t\tÅre nær Öst .\thttp://x\n"
).encode()


@many
@given(mutated(st.just(LINES)))
def test_damaged_lines_are_bags_or_named(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bags.tsv")
        path.write_bytes(content)
        bags, error = outcome(lambda: list(read_bags(path)))
        skipping, _ = outcome(lambda: list(read_bags(path, on_error="skip")))
        if error is None:
            assert bags == skipping
            for bag in bags:
                for context in bag.contexts:
                    for start, end in (context.span_1, context.span_2):
                        assert 0 <= start < end <= len(context.text)
        else:
            assert path.name in error or "line" in error


# -- tables of improvements ----------------------------------------------------------

CELLS = st.one_of(
    st.floats(-1, 1),
    st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 1e308, -1e-320, None, "x", True]),
)


@many
@given(
    st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=0, max_size=4),
    st.integers(0, 99),
)
def test_tables_of_improvements_teach_k_or_are_refused(table, seed):
    rng = np.random.default_rng(seed)
    sources = rng.random((3, 4)) + 0.1
    X = rng.random((max(len(table), 1), 4)) + 0.1
    selector = SourceSelector(sources, sizes=[10, 20, 40])
    fitted, error = outcome(selector.fit, X, table)
    if error is not None:
        return
    assert np.isfinite(fitted.k_)
    order = rng.permutation(len(X))
    again = SourceSelector(sources, sizes=[10, 20, 40])
    assert_same(
        (fitted.predict(X[order]), None),
        outcome(
            lambda: again.fit(X[order], [table[i] for i in order]).predict(X[order])
        ),
    )


# -- catalogs ------------------------------------------------------------------------

VALUES = st.recursive(
    st.sampled_from([None, True, -1, 0, 2**70, 1.5, "", "..", "/etc/passwd", "a\0b"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalog")
    catalog = SourceCatalog.from_arrays(
        np.eye(3) + 0.1,
        sizes=[3, 4, 5],
        names=["a", "b", "c"],
        n_classes=[2, 3, None],
        columns={"score": [0.5, np.nan, 1.0]},
        metadata=[{"x": [1, 2]}, {}, {}],
    )
    catalog.save(folder)
    return folder, catalog


def places_in(content, path=()):
    """Every key of a JSON document, as a path."""
    items = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = enumerate(content)
    for key, value in items:
        yield (*path, key)
        yield from places_in(value, (*path, key))


@many
@given(st.data())
def test_changed_catalogs_load_or_say_what_is_wrong(saved, data):
    original, catalog = saved
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(original, folder, dirs_exist_ok=True)
        names = sorted(p.name for p in Path(folder).iterdir() if p.is_file())
        victim = Path(
            folder, data.draw(st.sampled_from([n for n in names if n[0] != "."]))
        )
        if victim.suffix == ".json" and data.draw(st.booleans()):
            content = json.loads(victim.read_text())
            *path, key = data.draw(st.sampled_from(list(places_in(content))))
            place = content
            for step in path:
                place = place[step]
            if data.draw(st.booleans()):
                del place[key]
            else:
                place[key] = data.draw(VALUES)
            victim.write_text(json.dumps(content))
        else:
            victim.write_bytes(data.draw(mutated(st.just(victim.read_bytes()))))
        loaded, error = outcome(SourceCatalog.load, folder)
        if error is None:
            assert len(loaded) <= len(catalog)
            for source in loaded:
                assert source.checkpoint is None or isinstance(source.checkpoint, str)
            outcome(loaded.save, folder)  # what was loaded can be saved
        else:
            assert Path(folder).name in error or "catalog" in error


# -- checkpoints ---------------------------------------------------------------------


def open_file(backbone, weights=None):
    return networks.open_network(backbone, weights=weights)


@pytest.fixture(scope="module")
def weights():
    return Path(load_zoo().sources["shapes"].checkpoint).read_bytes()


@many
@given(st.data())
def test_changed_checkpoints_open_or_are_named(weights, data):
    n = struct.unpack("<Q", weights[:8])[0]
    header, body = json.loads(weights[8 : 8 + n]), weights[8 + n :]
    if data.draw(st.booleans()):
        *path, key = data.draw(st.sampled_from(list(places_in(header))))
        place = header
        for step in path:
            place = place[step]
        place[key] = data.draw(VALUES)
        text = json.dumps(header).encode()
        content = struct.pack("<Q", len(text)) + text + body
    else:
        content = data.draw(mutated(st.just(weights)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.safetensors")
        path.write_bytes(content)
        network, error = outcome(open_file, path)
        if error is None:
            assert network.num_features > 0
        else:
            assert path.name in error


@many
@given(
    st.dictionaries(
        st.sampled_from(["conv.weight", "fc.weight", "fc.bias", "body.0.weight"]),
        st.lists(st.integers(0, 3), max_size=4),
        min_size=1,
    )
)
def test_weights_of_other_networks_are_refused(shapes):
    content = to_safetensors({k: np.zeros(v, np.float32) for k, v in shapes.items()})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.safetensors")
        path.write_bytes(content)
        _, error = outcome(open_file, "small_resnet", path)
        assert error is not None
