import copy
import dataclasses
import json
import pickle
from pathlib import Path
from xml.etree import ElementTree

import joblib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn import clone

from sklearn_p2l import Source, SourceCatalog, SourceSelector, catalog
from sklearn_p2l._arrays import TracedArray

ARGUMENTS = {"sizes": [10, 20, 30], "names": ["a", "b", "c"]}


@pytest.fixture
def zoo():
    return SourceCatalog.from_arrays(
        np.arange(1.0, 7).reshape(3, 2),
        architectures="resnet18",
        n_classes=[5, None, 2],
        metadata=[{"licence": "MIT"}, None, None],
        fingerprint="net:1",
        **ARGUMENTS,
    )


def test_sequence_of_sources(zoo):
    assert len(zoo) == 3
    assert "b" in zoo and "z" not in zoo
    assert [source.name for source in zoo] == ["a", "b", "c"]
    source = zoo["a"]
    assert (source.size, source.n_classes, source.metadata) == (
        10,
        5,
        {"licence": "MIT"},
    )
    assert source.architecture == "resnet18" and source.fingerprint == "net:1"
    assert_array_equal(source.embedding, [1, 2])
    assert zoo[-1].name == "c"
    assert zoo[["c", "a"]].names == ("c", "a")
    assert zoo[1:].names == ("b", "c")
    assert zoo[np.array([True, False, True])].names == ("a", "c")
    assert zoo[["c", "a"]]["a"] == zoo["a"]
    assert zoo["a"] != dataclasses.replace(zoo["a"], embedding=np.array([1.0, 9.0]))
    assert zoo["a"] != "a"
    with pytest.raises(KeyError, match="no source 'z'"):
        zoo["z"]
    with pytest.raises(IndexError, match="no source 3"):
        zoo[3]
    with pytest.raises(IndexError, match="mask"):
        zoo[[True, False]]
    with pytest.raises(ValueError, match="none selected"):
        zoo[[]]


def test_immutable_and_shared(zoo):
    assert clone(SourceSelector(zoo)).sources is zoo
    assert clone(zoo) is zoo
    for action in (
        lambda: setattr(zoo, "names", ()),
        lambda: zoo.embeddings.__setitem__(0, 9),
        lambda: zoo.sizes.__setitem__(0, 9),
    ):
        with pytest.raises((AttributeError, ValueError)):
            action()
    given = np.ones((3, 2))
    made = SourceCatalog.from_arrays(given, **ARGUMENTS)
    given[0] = 7  # the caller's array stays the caller's
    assert_array_equal(made.embeddings, np.ones((3, 2)))


def test_equality_and_pickle(zoo, tmp_path):
    assert zoo == SourceCatalog(zoo) and hash(zoo) == hash(SourceCatalog(zoo))
    assert zoo != zoo[:2]
    assert zoo != "a catalog"
    joblib.dump(zoo, tmp_path / "zoo.joblib")
    loaded = joblib.load(tmp_path / "zoo.joblib")
    for other in (pickle.loads(pickle.dumps(zoo)), copy.deepcopy(zoo), loaded):
        assert other == zoo
        with pytest.raises(ValueError, match="read-only"):
            other.sizes[0] = -3
    assert joblib.hash(zoo) == joblib.hash(copy.deepcopy(zoo))


def test_append(zoo):
    grown = zoo.append(Source("d", size=40, embedding=[7, 8]))
    assert grown.names == ("a", "b", "c", "d") and zoo.names == ("a", "b", "c")
    assert grown.fingerprint == "net:1"
    assert grown["a"] == zoo["a"]
    assert zoo[:1].append(zoo[1:]) == zoo
    with pytest.raises(ValueError, match="unique, got \\['a'\\] more than once"):
        zoo.append(zoo["a"])
    with pytest.raises(ValueError, match="same number of features"):
        zoo.append(Source("d", size=40, embedding=[7, 8, 9]))
    with pytest.raises(
        ValueError, match="same reference network.*'net:1', got 'net:2'"
    ):
        zoo.append(Source("d", size=1, embedding=[7, 8], fingerprint="net:2"))


@pytest.mark.parametrize(
    "sizes", [[10, 0, 5], [1, -2, 3], [1, np.nan, 2], [1, np.inf, 2]]
)
def test_sizes_must_be_positive(sizes):
    with pytest.raises(ValueError, match="sizes must be positive"):
        SourceCatalog.from_arrays(np.ones((3, 2)), sizes=sizes, names=["a", "b", "c"])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"names": ["a", "b", "a"]}, r"unique, got \['a'\]"),
        ({"names": ["a", "b"]}, "one entry per"),
        ({"names": ["a", "b", ""]}, "non-empty str"),
        ({"names": ["a", "b", 3]}, "non-empty str, got 3"),
        ({"sizes": [1, 2]}, "sizes must have one entry per row"),
        ({"sizes": ["1", "2", "3"]}, "sizes must be positive numbers"),
        ({"checkpoints": ["x"]}, "checkpoints must have one entry per name"),
        ({"n_classes": [1, 0, 2]}, "n_classes of source 'b'"),
        ({"metadata": [None, {"a": object()}, None]}, "metadata of source 'b'.*JSON"),
    ],
)
def test_bad_arrays(changes, message):
    with pytest.raises(ValueError, match=message):
        SourceCatalog.from_arrays(np.ones((3, 2)), **{**ARGUMENTS, **changes})


def test_bad_vectors():
    with pytest.raises(ValueError, match="NaN"):
        SourceCatalog.from_arrays([[1, 2], [1, np.nan], [1, 2]], **ARGUMENTS)
    with pytest.raises(ValueError, match="one vector"):
        Source("a", size=1, embedding=[[1, 2]])
    with pytest.raises(ValueError, match="at least one source"):
        SourceCatalog([])
    with pytest.raises(TypeError, match="from_arrays"):
        SourceCatalog([[1, 2]])


def test_vectors_bring_their_fingerprint():
    vectors = TracedArray(np.ones((3, 2)), origin="net:1")
    made = SourceCatalog.from_arrays(vectors, **ARGUMENTS)
    assert made.fingerprint == "net:1"
    assert type(made.embeddings) is np.ndarray
    with pytest.raises(ValueError, match="same reference network"):
        SourceCatalog.from_arrays(vectors, fingerprint="net:2", **ARGUMENTS)
    source = Source("a", size=1, embedding=vectors[0])
    assert SourceCatalog([source]).fingerprint == "net:1"
    with pytest.raises(ValueError, match="same reference network"):
        Source("a", size=1, embedding=vectors[0], fingerprint="net:2")


def test_from_frame(zoo):
    frame = pd.DataFrame(
        zoo.embeddings, index=zoo.names, columns=["net:1#0", "net:1#1"]
    ).assign(size=zoo.sizes, architecture="resnet18", n_classes=[5, np.nan, 2])
    made = SourceCatalog.from_frame(frame)
    assert made.names == zoo.names and made.fingerprint == "net:1"
    assert made["b"].n_classes is None and made["c"].n_classes == 2
    assert_array_equal(made.embeddings, zoo.embeddings)
    named = frame.rename_axis("name").reset_index()
    assert SourceCatalog.from_frame(named) == made
    nullable = frame.assign(n_classes=pd.array([5, None, 2], dtype="Int64"))
    assert SourceCatalog.from_frame(nullable) == made
    assert SourceCatalog.from_arrays(frame[["net:1#0", "net:1#1"]], **ARGUMENTS) == (
        SourceCatalog.from_arrays(zoo.embeddings, fingerprint="net:1", **ARGUMENTS)
    )
    with pytest.raises(ValueError, match="must be in order"):
        SourceCatalog.from_frame(frame[["net:1#1", "net:1#0", "size"]])
    with pytest.raises(ValueError, match="from one reference network"):
        SourceCatalog.from_frame(frame.rename(columns={"net:1#1": "net:2#1"}))
    with pytest.raises(ValueError, match="column 'size'"):
        SourceCatalog.from_frame(frame.drop(columns="size"))
    with pytest.raises(ValueError, match=r"numeric, got text in \['note'\]"):
        SourceCatalog.from_frame(frame.assign(note="x"))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_save_and_load(zoo, tmp_path, dtype):
    zoo = SourceCatalog.from_arrays(
        zoo.embeddings.astype(dtype), fingerprint="net:1", **ARGUMENTS
    )
    zoo.save(tmp_path / "zoo")
    loaded = SourceCatalog.load(tmp_path / "zoo")
    assert loaded == zoo and loaded.embeddings.dtype == dtype
    smaller = zoo[:2]
    smaller.save(tmp_path / "zoo")  # replaces what is there
    assert SourceCatalog.load(tmp_path / "zoo") == smaller
    assert len(list((tmp_path / "zoo").iterdir())) == 2


def test_saved_catalog_carries_its_checkpoints(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    paths = [tmp_path / "elsewhere" / f"{i}.safetensors" for i in range(2)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]))
    zoo = SourceCatalog.from_arrays(
        np.ones((2, 2)), sizes=[1, 2], names=["a/b", "a_b"], checkpoints=paths
    )
    zoo.save(tmp_path / "zoo")
    (tmp_path / "zoo").rename(tmp_path / "moved")
    for path in paths:
        path.unlink()
    loaded = SourceCatalog.load(tmp_path / "moved")
    for i, source in enumerate(loaded):
        assert Path(source.checkpoint).read_bytes() == bytes([i])
    loaded.save(tmp_path / "moved")  # its checkpoints are there already
    assert SourceCatalog.load(tmp_path / "moved") == loaded
    with pytest.raises(FileNotFoundError, match="source 'a/b' is not there"):
        zoo.save(tmp_path / "other")
    zoo.save(tmp_path / "other", copy_checkpoints=False)
    assert SourceCatalog.load(tmp_path / "other")["a_b"].checkpoint == str(paths[1])


def test_save_overwrites_nothing_that_is_in_use(tmp_path):
    path, folder = tmp_path / "c.safetensors", tmp_path / "zoo"
    folder.mkdir()
    np.save(folder / "embeddings-of-mine.npy", np.ones(3))
    path.write_bytes(b"old")
    one = Source("a", size=1, embedding=[1.0, 2.0], checkpoint=path)
    SourceCatalog([one]).save(folder)
    old = dataclasses.replace(SourceCatalog.load(folder)["a"], name="a_old")
    path.write_bytes(b"new")
    SourceCatalog([old, one]).save(folder)
    loaded = SourceCatalog.load(folder)
    assert Path(loaded["a"].checkpoint).read_bytes() == b"new"
    assert Path(loaded["a_old"].checkpoint).read_bytes() == b"old"
    assert (folder / "embeddings-of-mine.npy").exists()
    gone = Source("b", size=1, embedding=[1.0, 2.0], checkpoint=tmp_path / "gone.pt")
    with pytest.raises(FileNotFoundError, match="source 'b' is not there"):
        SourceCatalog([gone]).save(folder)
    assert SourceCatalog.load(folder) == loaded
    # beside the folder is not inside it
    beside = dataclasses.replace(one, checkpoint=folder / ".." / "c.safetensors")
    SourceCatalog([beside]).save(folder)
    assert "zoo/checkpoints/" in SourceCatalog.load(folder)["a"].checkpoint


def test_same_values_of_another_shape(tmp_path):
    for shape in [(2, 6), (3, 4)]:
        names = list("abc")[: shape[0]]
        made = SourceCatalog.from_arrays(
            np.ones(shape), sizes=[1] * shape[0], names=names
        )
        made.save(tmp_path)
        assert SourceCatalog.load(tmp_path) == made


def test_paths_outlive_a_change_of_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.pt").write_bytes(b"")
    source = Source("a", size=1, embedding=[1.0], checkpoint="c.pt")
    SourceCatalog([source]).save("zoo")
    loaded = SourceCatalog.load("zoo")
    monkeypatch.chdir("/")
    assert Path(source.checkpoint).exists() and Path(loaded["a"].checkpoint).exists()


def test_details_are_kept_as_they_are_stored(tmp_path):
    metadata = {"a": (1, 2), 3: None}
    made = SourceCatalog.from_arrays(
        np.ones((2, 2)),
        sizes=[1, 2],
        names=["a", "b"],
        n_classes=np.array([2, 3]),
        metadata=[metadata, None],
    )
    made.save(tmp_path)
    assert SourceCatalog.load(tmp_path) == made
    metadata["a"] = 7
    assert made["a"].metadata == {"a": [1, 2], "3": None}
    assert hash(made["a"]) != hash(made["b"])
    with pytest.raises(ValueError, match="architecture of source 'a' must be a str"):
        Source("a", size=1, embedding=[1.0], architecture=dict)


def test_a_failed_save_leaves_the_old_catalog(zoo, tmp_path, monkeypatch):
    zoo.save(tmp_path)
    monkeypatch.setattr(json, "dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        zoo[:2].save(tmp_path)
    monkeypatch.undo()
    assert SourceCatalog.load(tmp_path) == zoo


def test_large_catalogs_are_memory_mapped(zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "_MEMORY_MAP_BYTES", 10)
    zoo.save(tmp_path)
    loaded = SourceCatalog.load(tmp_path)
    assert isinstance(loaded.embeddings, np.memmap)
    assert loaded == zoo
    selector = SourceSelector(loaded, k=-1.0).fit([[1.0, 2.0]])
    assert isinstance(selector.sources_.embeddings, np.memmap)
    assert_array_equal(
        selector.predict([[1.0, 2.0]]),
        SourceSelector(zoo, k=-1.0).fit([[1, 2.0]]).predict([[1.0, 2.0]]),
    )
    assert pickle.loads(pickle.dumps(loaded)) == zoo


@pytest.mark.parametrize(
    "text",
    [
        '{"format": "sklearn_p2l.SourceCatalog", "version": 1}',
        '{"format": "sklearn_p2l.SourceCatalog", "version": 1, "fingerprint": null,'
        ' "sources": [], "embeddings": "../victim.npy"}',
        None,
        "{",
        '{"format": "other"}',
        "[]",
    ],
)
def test_load_refuses_other_folders(tmp_path, text):
    if text is not None:
        (tmp_path / "catalog.json").write_text(text)
    with pytest.raises(ValueError, match="folder written by SourceCatalog.save"):
        SourceCatalog.load(tmp_path)


def test_nothing_outside_the_folder_is_touched(zoo, tmp_path):
    victim, folder = tmp_path / "victim.txt", tmp_path / "zoo"
    victim.write_text("mine")
    zoo.save(folder)
    content = json.loads((folder / "catalog.json").read_text())
    text = json.dumps(content | {"embeddings": "../victim.txt"})
    (folder / "catalog.json").write_text(text)
    zoo.save(folder)
    assert victim.read_text() == "mine" and SourceCatalog.load(folder) == zoo


def test_memory_mapped_vectors_are_read_only(tmp_path):
    np.save(tmp_path / "m.npy", np.ones((3, 2)))
    mapped = np.load(tmp_path / "m.npy", mmap_mode="r+")
    made = SourceCatalog.from_arrays(mapped, **ARGUMENTS)
    assert isinstance(made.embeddings, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        made.embeddings[0] = np.nan
    np.save(tmp_path / "flat.npy", np.ones(3))
    with pytest.raises(ValueError, match="must be a 2-D array of floats"):
        flat = np.load(tmp_path / "flat.npy", mmap_mode="r")
        SourceCatalog.from_arrays(flat, **ARGUMENTS)


def test_sizes_with_names_are_matched_by_name():
    sizes = pd.Series({"c": 30, "a": 10, "b": 20})
    made = SourceCatalog.from_arrays(np.ones((3, 2)), sizes=sizes, names=list("abc"))
    assert made.sizes.tolist() == [10, 20, 30]
    with pytest.raises(ValueError, match=r"got none for \['z'\]"):
        SourceCatalog.from_arrays(np.ones((3, 2)), sizes=sizes, names=list("abz"))
    plain = pd.Series([10, 20, 30], index=[7, 8, 9])
    assert SourceCatalog.from_arrays(
        np.ones((3, 2)), sizes=plain, names=list("abc")
    ).sizes.tolist() == [10, 20, 30]


def test_load_refuses_newer_formats(zoo, tmp_path):
    zoo.save(tmp_path)
    content = json.loads((tmp_path / "catalog.json").read_text())
    (tmp_path / "catalog.json").write_text(json.dumps(content | {"version": 99}))
    with pytest.raises(ValueError, match="upgrade"):
        SourceCatalog.load(tmp_path)


def test_repr(zoo):
    assert repr(zoo) == "SourceCatalog(3 sources, 2 features: a (10), b (20), c (30))"
    many = SourceCatalog.from_arrays(
        np.ones((9, 2)), sizes=range(1, 10), names=list("abcdefghi")
    )
    assert repr(many).endswith("e (5), ...)")
    assert "SourceCatalog(3 sources" in repr(SourceSelector(zoo))


def test_html_repr():
    catalog = SourceCatalog.from_arrays(
        np.ones((30, 2)),
        sizes=range(1_000, 1_030),
        names=["<script>alert(1)</script>", *map(str, range(1, 30))],
        architectures=["resnet18", *[None] * 29],
        fingerprint="net:<b>",
    )
    root = ElementTree.fromstring(catalog._repr_html_())  # well-formed
    assert root.find("caption").text == "30 sources, 2 features of net:<b>"
    rows = [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]
    assert rows[0] == ["name", "size", "architecture", "n_classes", "checkpoint"]
    assert rows[1] == ["<script>alert(1)</script>", "1,000", "resnet18", "", ""]
    assert rows[-1] == ["and 10 more"] and len(rows) == 22
    short = ElementTree.fromstring(catalog[:1]._repr_html_())
    assert short.find("caption").text.startswith("1 source, ")
    assert len(list(short.iter("tr"))) == 2
