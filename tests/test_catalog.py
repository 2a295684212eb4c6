import copy
import dataclasses
import json
import os
import pickle
from pathlib import Path
from xml.etree import ElementTree

import joblib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import clone

from sklearn_p2l import Source, SourceCatalog, SourceSelector
from sklearn_p2l.catalog import _format, is_published
from sklearn_p2l.embedding import Vectors

ARGUMENTS = {"sizes": [10, 20, 30], "names": ["a", "b", "c"]}
FEATURES = ["net:1#0", "net:1#1"]


@pytest.fixture
def zoo():
    return SourceCatalog.from_arrays(
        np.arange(1.0, 7).reshape(3, 2),
        architectures="resnet18",
        n_classes=[5, None, 2],
        metadata=[{"licence": "MIT"}, None, None],
        columns={"accuracy": [0.5, None, np.nan], "parameters": [11e6, 1, 2]},
        fingerprint="net:1",
        **ARGUMENTS,
    )


@pytest.fixture
def sparse():
    """Sources of which little is known, and of each something else."""
    return SourceCatalog(
        [
            Source("names", architecture="resnet50", checkpoint="IMAGENET1K_V2"),
            Source("vector", embedding=[1.0, 2.0], columns={"accuracy": 0.5}),
            Source("size", size=7, n_classes=3, columns={"depth": None}),
        ]
    )


def content_of(folder):
    return json.loads((folder / "catalog.json").read_text())


def edit(folder, *, source=None, **changes):
    """Change catalog.json, or with `source` what it says of its first source."""
    content = content_of(folder) | changes
    if source is not None:
        content["sources"][0] |= source
    (folder / "catalog.json").write_text(json.dumps(content))


# A source


def test_source_keeps_a_copy_of_its_own():
    vector, metadata, columns = np.array([1.0, 2.0]), {"tags": ["x"]}, {"accuracy": 0.5}
    source = Source("a", embedding=vector, metadata=metadata, columns=columns)
    vector[:] = 7
    metadata["tags"].append("y")
    columns["accuracy"] = 0.9
    assert_array_equal(source.embedding, [1, 2])
    assert source.metadata == {"tags": ["x"]} and source.columns == {"accuracy": 0.5}
    for other in (source, pickle.loads(pickle.dumps(source)), copy.deepcopy(source)):
        assert other == source and hash(other) == hash(source)
        with pytest.raises(ValueError, match="read-only"):
            other.embedding[0] = 9
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.size = 3
    made = SourceCatalog([source])
    made["a"].metadata["tags"].append("z")
    made["a"].columns["accuracy"] = 0.1
    assert made["a"] == source


def test_source_of_which_little_is_known():
    source = Source("a")
    assert (source.size, source.embedding, source.columns) == (None, None, {})
    assert Source("a", columns={"x": None, "y": np.nan, "z": 1}).columns == {
        "x": None,
        "y": None,
        "z": 1.0,
    }
    assert source == Source("a", columns={"x": None})  # unknown is no difference
    assert source != Source("a", columns={"x": 1})
    assert source != Source("a", embedding=[1.0])
    assert source != Source("a", size=1) and source != "a"
    assert repr(Source("a", size=3, columns={"x": 1})) == (
        "Source(name='a', size=3, columns={'x': 1.0})"
    )
    assert dataclasses.replace(source, size=np.int64(4)).size == 4
    assert Source("a", size=2.5).size == 2.5 and type(Source("a", size=2.0).size) is int


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": 0}, "size of source 'a' must be positive"),
        ({"size": np.inf}, "size of source 'a' must be a finite number"),
        ({"size": "5"}, "size of source 'a' must be a finite number"),
        ({"size": True}, "size of source 'a' must be a finite number"),
        ({"size": 10**400}, "size of source 'a' must be a finite number"),
        ({"embedding": [[1, 2]]}, r"must be one vector.*got shape \(1, 2\)"),
        ({"embedding": []}, "must be one vector"),
        ({"embedding": [1, np.nan]}, "embedding of source 'a' contains NaN"),
        ({"checkpoint": ""}, "checkpoint of source 'a' must be a file"),
        ({"checkpoint": 3}, "checkpoint of source 'a' must be a file"),
        ({"checkpoint": "DEFAULT"}, r"architecture.*must be given.*'\./DEFAULT'"),
        ({"checkpoint": "hf://x/y.z"}, "architecture.*must be given"),
        ({"architecture": dict}, "architecture of source 'a' must be a str"),
        ({"n_classes": 2.5}, "n_classes of source 'a' must be a positive int"),
        ({"n_classes": 0}, "n_classes of source 'a' must be a positive int"),
        ({"metadata": [1]}, "metadata of source 'a' must be a dict"),
        ({"metadata": {"a": np.nan}}, "metadata of source 'a'.*JSON"),
        ({"columns": [1]}, "columns of source 'a' must be a mapping"),
        ({"columns": {"x": "1"}}, "column 'x' of source 'a' must be a finite number"),
        ({"columns": {"size": 1}}, "names of columns must not be name, size,.*'size'"),
        ({"columns": {1: 1}}, "names of columns must be non-empty str, got 1"),
        ({"fingerprint": 1}, "fingerprint must be a str"),
    ],
)
def test_bad_sources(arguments, message):
    with pytest.raises(ValueError, match=message):
        Source("a", **arguments)


def test_published_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("IMAGENET1K_V2", "DEFAULT", "hf://timm/x.y", "https://a.b/c.pt"):
        assert is_published(name)
        source = Source("a", checkpoint=name, architecture="resnet18")
        assert source.checkpoint == name
    for file in ("a.pt", "./a", "/a", "x\\a", "", None, Path("DEFAULT")):
        assert not is_published(file)
    assert Source("a", checkpoint=Path("DEFAULT")).checkpoint == str(
        tmp_path / "DEFAULT"
    )
    zoo = SourceCatalog([Source("a", checkpoint="DEFAULT", architecture="resnet18")])
    zoo.save("zoo")
    (tmp_path / "DEFAULT").write_bytes(b"")  # now a file has this name
    assert not is_published("DEFAULT")
    assert Source("a", checkpoint="DEFAULT").checkpoint == str(tmp_path / "DEFAULT")
    # and what a catalog holds does not depend on where it is looked at
    loaded = SourceCatalog.load("zoo")
    assert loaded == zoo and loaded["a"].checkpoint == "DEFAULT"
    assert content_of(loaded.save("again"))["sources"][0]["checkpoint"] == {
        "published": "DEFAULT"
    }


# A catalog: a sequence, a value


def test_sequence_of_sources(zoo):
    assert len(zoo) == 3
    assert "b" in zoo and "z" not in zoo
    assert [source.name for source in zoo] == ["a", "b", "c"]
    source = zoo["a"]
    assert (source.size, source.n_classes) == (10, 5)
    assert source.metadata == {"licence": "MIT"}
    assert source.columns == {"accuracy": 0.5, "parameters": 11e6}
    assert source.architecture == "resnet18" and source.fingerprint == "net:1"
    assert_array_equal(source.embedding, [1, 2])
    assert zoo[-1].name == "c" and zoo[-1] == zoo[2]
    assert zoo[["c", "a"]].names == ("c", "a")
    assert zoo[1:].names == ("b", "c")
    assert zoo[np.array([True, False, True])].names == ("a", "c")
    assert zoo[["c", "a"]]["a"] == zoo["a"]
    assert_array_equal(zoo[["c", "a"]].column("parameters"), [2, 11e6])
    assert zoo["a"] != dataclasses.replace(zoo["a"], embedding=np.array([1.0, 9.0]))
    with pytest.raises(KeyError, match="no source 'z'"):
        zoo["z"]
    with pytest.raises(IndexError, match="no source 3"):
        zoo[3]
    with pytest.raises(IndexError, match="mask"):
        zoo[[True, False]]
    with pytest.raises(TypeError, match="a name or a position, got 1.5"):
        zoo[[1.5]]
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
    zoo.column("accuracy")[0] = 9
    assert zoo.column("accuracy")[0] == 0.5
    given = np.ones((3, 2))
    made = SourceCatalog.from_arrays(given, **ARGUMENTS)
    given[0] = 7  # the caller's array stays the caller's
    assert_array_equal(made.embeddings, np.ones((3, 2)))


def test_equality_and_pickle(zoo, sparse, tmp_path):
    assert zoo != zoo[:2] and zoo != sparse
    assert zoo != "a catalog"
    for made in (zoo, sparse):
        joblib.dump(made, tmp_path / "zoo.joblib")
        loaded = joblib.load(tmp_path / "zoo.joblib")
        copies = (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), loaded)
        for other in (*copies, SourceCatalog(made), made[:]):
            assert other == made and hash(other) == hash(made)
            with pytest.raises(ValueError, match="read-only"):
                other.sizes[0] = -3
            with pytest.raises(ValueError, match="read-only"):
                other._columns["accuracy"][0] = -3
        assert joblib.hash(made) == joblib.hash(copy.deepcopy(made))


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


def test_append_unites_columns(zoo, sparse):
    grown = zoo.append(sparse, Source("d", columns={"year": 2020}))
    assert grown.column_names == ("size", "n_classes", "accuracy", "parameters", "year")
    assert_array_equal(grown.column("year"), [np.nan] * 6 + [2020])
    assert_array_equal(
        grown.column("accuracy"), [0.5, *[np.nan] * 3, 0.5, *[np.nan] * 2]
    )
    assert_array_equal(grown.has_embedding, [True] * 3 + [False, True, False, False])
    assert grown[:3] == zoo


def test_drop(zoo):
    assert zoo.drop("b") == zoo[["a", "c"]]
    assert zoo.drop("a", "c", "a").names == ("b",)
    assert zoo.drop() == zoo
    with pytest.raises(KeyError, match="no source 'z'"):
        zoo.drop("a", "z")
    with pytest.raises(ValueError, match="must leave at least one source"):
        zoo.drop(*zoo.names)
    with pytest.raises(TypeError, match=r"got \['a'\]"):
        zoo.drop(["a"])


# What may be unknown


def test_unknown_sizes_and_vectors(zoo, sparse):
    assert zoo.sizes.dtype == np.int64 and zoo.has_embedding.all()
    assert_array_equal(sparse.sizes, [np.nan, np.nan, 7])
    assert_array_equal(sparse.has_embedding, [False, True, False])
    assert_array_equal(sparse.embeddings, [[np.nan] * 2, [1, 2], [np.nan] * 2])
    assert sparse["names"].embedding is None and sparse["names"].size is None
    assert type(sparse["size"].size) is int and sparse[2:].sizes.dtype == np.int64
    for part in (sparse.drop("vector"), sparse[["size"]]):
        assert part.embeddings.shape == (len(part), 0) and not part.has_embedding.any()
    assert sparse[:2].append(sparse[2:]) == sparse
    made = SourceCatalog.from_arrays(None, sizes=None, names=["a", "b"])
    assert made == SourceCatalog([Source("a"), Source("b")])
    assert made.column_names == ()
    made = SourceCatalog.from_arrays(
        np.full((2, 3), np.nan), sizes=[None, 2.5], names=["a", "b"]
    )
    assert made.n_features == 0 and made["b"].size == 2.5
    one = [Source(n, embedding=np.float32([v])) for n, v in [("a", 1), ("b", 2)]]
    assert SourceCatalog(one).embeddings.dtype == np.float32


def test_columns(zoo, sparse):
    assert zoo.column_names == ("size", "n_classes", "accuracy", "parameters")
    assert_array_equal(zoo.column("size"), [10.0, 20, 30])
    assert zoo.column("size").dtype == zoo.column("n_classes").dtype == np.float64
    assert_array_equal(zoo.column("n_classes"), [5, np.nan, 2])
    assert_array_equal(zoo.column("accuracy"), [0.5, np.nan, np.nan])
    assert_array_equal(sparse.column("depth"), [np.nan] * 3)  # a column all the same
    assert sparse.column_names == ("size", "n_classes", "accuracy")
    assert sparse[1:2].column_names == ("accuracy",)
    assert_array_equal(sparse[1:2].column("size"), [np.nan])
    assert_array_equal(SourceCatalog(sparse).column("depth"), [np.nan] * 3)
    assert sparse == SourceCatalog(
        dataclasses.replace(s, columns=c)
        for s, c in zip(sparse, [None, {"accuracy": 0.5}, None])
    )
    with pytest.raises(KeyError, match=r"no column 'year'; .*'n_classes', 'accuracy'"):
        zoo.column("year")


# From arrays and frames


@pytest.mark.parametrize("sizes", [[10, 0, 5], [1, -2, 3]])
def test_sizes_must_be_positive(sizes):
    with pytest.raises(ValueError, match="sizes must be positive"):
        SourceCatalog.from_arrays(np.ones((3, 2)), sizes=sizes, names=["a", "b", "c"])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"names": ["a", "b", "a"]}, r"unique, got \['a'\]"),
        ({"names": ["a", "b"]}, "sizes must have one entry per name"),
        ({"names": ["a", "b"], "sizes": None}, "embeddings must have one row per name"),
        ({"names": ["a", "b", ""]}, "non-empty str"),
        ({"names": ["a", "b", 3]}, "non-empty str, got 3"),
        ({"sizes": [1, 2]}, "sizes must have one entry per name"),
        ({"sizes": 1}, "sizes must have one entry per name"),
        ({"sizes": ["1", "2", "3"]}, "sizes must be a finite number"),
        ({"sizes": [1, np.inf, 2]}, "sizes must be a finite number"),
        ({"checkpoints": ["x"]}, "checkpoints must have one entry per name"),
        ({"n_classes": [1, 0, 2]}, "n_classes of source 'b'"),
        ({"metadata": [None, {"a": object()}, None]}, "metadata of source 'b'.*JSON"),
        ({"columns": {"x": [1, 2]}}, r"columns\['x'\] must have one entry per name"),
        ({"columns": {"x": [1, 2, "3"]}}, "column 'x' must be a finite number"),
        ({"columns": {"name": [1, 2, 3]}}, "names of columns must not be"),
        ({"fingerprint": 3}, "fingerprint must be a str"),
    ],
)
def test_bad_arrays(changes, message):
    with pytest.raises(ValueError, match=message):
        SourceCatalog.from_arrays(np.ones((3, 2)), **{**ARGUMENTS, **changes})


def test_bad_vectors():
    with pytest.raises(ValueError, match="all NaN in a row.*within row 1"):
        SourceCatalog.from_arrays([[1, 2], [1, np.nan], [1, 2]], **ARGUMENTS)
    with pytest.raises(ValueError, match="infinity"):
        SourceCatalog.from_arrays([[1, 2], [1, np.inf], [1, 2]], **ARGUMENTS)
    with pytest.raises(ValueError, match="at least one source"):
        SourceCatalog([])
    with pytest.raises(ValueError, match="at least one source"):
        SourceCatalog.from_arrays(None, sizes=[], names=[])
    with pytest.raises(TypeError, match="from_arrays"):
        SourceCatalog([[1, 2]])


def test_vectors_bring_their_fingerprint():
    vectors = Vectors(np.ones((3, 2)), "net:1")
    made = SourceCatalog.from_arrays(vectors, **ARGUMENTS)
    assert made.fingerprint == "net:1"
    assert type(made.embeddings) is np.ndarray
    with pytest.raises(ValueError, match="same reference network"):
        SourceCatalog.from_arrays(vectors, fingerprint="net:2", **ARGUMENTS)
    source = Source("a", size=1, embedding=vectors[0])
    assert type(source.embedding) is np.ndarray
    assert SourceCatalog([source]).fingerprint == "net:1"
    with pytest.raises(ValueError, match="same reference network"):
        Source("a", size=1, embedding=vectors[0], fingerprint="net:2")


def test_what_is_indexed_by_names_is_matched_by_name():
    names = ["a", "b", "c"]
    table = pd.DataFrame(
        {"size": [30, 10, 20], "x": [3, 1, 2], "y": [0.3, 0.1, 0.2]},
        index=["c", "a", "b"],
    )
    made = SourceCatalog.from_arrays(
        table[["x", "y"]].set_axis(FEATURES, axis=1),
        sizes=table["size"],
        names=names,
        n_classes=table["x"],
        columns=table[["y"]],
    )
    assert made.sizes.tolist() == [10, 20, 30]
    assert_array_equal(made.column("n_classes"), [1, 2, 3])
    assert_array_equal(made.embeddings, [[1, 0.1], [2, 0.2], [3, 0.3]])
    assert_array_equal(made.column("y"), [0.1, 0.2, 0.3])
    assert made.fingerprint == "net:1"
    with pytest.raises(ValueError, match=r"sizes must .*got none for \['z'\]"):
        SourceCatalog.from_arrays(None, sizes=table["size"], names=list("abz"))
    plain = pd.Series([10, 20, 30], index=[7, 8, 9])
    made = SourceCatalog.from_arrays(np.ones((3, 2)), sizes=plain, names=names)
    assert made.sizes.tolist() == [10, 20, 30]


def test_from_frame(zoo):
    frame = pd.DataFrame(zoo.embeddings, index=zoo.names, columns=FEATURES).assign(
        size=zoo.sizes,
        architecture="resnet18",
        n_classes=[5, np.nan, 2],
        metadata=[{"licence": "MIT"}, None, None],
        accuracy=[0.5, np.nan, np.nan],
        parameters=[11e6, 1, 2],
    )
    assert SourceCatalog.from_frame(frame) == zoo
    assert SourceCatalog.from_frame(frame.rename_axis("name").reset_index()) == zoo
    nullable = frame.assign(n_classes=pd.array([5, None, 2], dtype="Int64"))
    assert SourceCatalog.from_frame(nullable) == zoo
    unknown = frame.drop(columns="size")
    unknown.loc["a", FEATURES] = np.nan
    for features in (unknown, unknown.astype(dict.fromkeys(FEATURES, "Float64"))):
        made = SourceCatalog.from_frame(features)
        assert_array_equal(made.has_embedding, [False, True, True])
        assert np.isnan(made.sizes).all()
    with pytest.raises(ValueError, match="must be in order"):
        SourceCatalog.from_frame(frame[["net:1#1", "net:1#0", "size"]])
    with pytest.raises(ValueError, match="from one reference network"):
        SourceCatalog.from_frame(frame.rename(columns={"net:1#1": "net:2#1"}))
    with pytest.raises(ValueError, match="same reference network"):
        SourceCatalog.from_frame(frame, fingerprint="net:2")
    with pytest.raises(ValueError, match="unique names"):
        SourceCatalog.from_frame(pd.concat([frame, frame[["size"]]], axis=1))


def test_which_columns_of_a_frame_are_features(zoo):
    frame = pd.DataFrame(
        {"size": [10, 20], "x": [1.0, 2], "y": [3.0, 4], "acc": [0.5, 0.6]},
        index=["a", "b"],
    )

    def split(frame, **arguments):
        made = SourceCatalog.from_frame(frame, **arguments)
        return made.n_features, made.column_names[1:]

    assert split(frame, features=["x", "y"]) == (2, ("acc",))
    assert split(frame, columns=["acc"]) == (2, ("acc",))
    assert split(frame, columns=()) == (3, ())
    assert split(frame, features=["x"], columns=["acc"]) == (1, ("acc",))
    assert split(frame, features=[]) == (0, ("x", "y", "acc"))
    assert split(frame[["size"]]) == (0, ())
    assert split(frame.rename(columns={"x": 0, "y": "1"})) == (2, ("acc",))
    with pytest.raises(ValueError, match="must tell features from other numbers"):
        SourceCatalog.from_frame(frame)
    with pytest.raises(ValueError, match=r"columns of frame must be numeric.*'note'"):
        SourceCatalog.from_frame(frame.assign(note="n"), features=["x"])
    with pytest.raises(ValueError, match=r"features in frame must be numeric.*'note'"):
        SourceCatalog.from_frame(frame.assign(note="n"), columns=["acc"])
    with pytest.raises(ValueError, match=r"features must be columns.*\['z'\]"):
        SourceCatalog.from_frame(frame, features=["z"])
    with pytest.raises(ValueError, match=r"columns must not be features.*\['x'\]"):
        SourceCatalog.from_frame(frame, features=["x"], columns=["x"])


# On disk


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_save_and_load(zoo, tmp_path, dtype):
    folder = tmp_path / "zoo"
    zoo = SourceCatalog.from_arrays(
        zoo.embeddings.astype(dtype), fingerprint="net:1", **ARGUMENTS
    )
    assert zoo.save(folder) == folder
    loaded = SourceCatalog.load(folder)
    assert loaded == zoo and loaded.embeddings.dtype == dtype
    smaller = zoo[:2]
    smaller.save(folder)  # replaces what is there
    assert SourceCatalog.load(folder) == smaller
    assert len(list(folder.iterdir())) == 2


def test_save_and_load_all_that_is_known(zoo, sparse, tmp_path):
    for made in (zoo, sparse, sparse[2:], zoo.append(sparse)):
        made.save(tmp_path)
        loaded = SourceCatalog.load(tmp_path)
        assert loaded == made
        assert loaded.sizes.dtype == made.sizes.dtype
        assert loaded.column_names == made.column_names
    sparse[2:].save(tmp_path)  # no source has a vector: no file, no key
    assert [path.name for path in tmp_path.iterdir()] == ["catalog.json"]
    assert_array_equal(SourceCatalog.load(tmp_path).column("depth"), [np.nan])
    assert content_of(tmp_path) == {
        "format": "sklearn_p2l.SourceCatalog",
        "version": 2,
        "sources": [
            {
                "name": "size",
                "size": 7,
                "n_classes": 3,
                "columns": {"accuracy": None, "depth": None},
            }
        ],
    }


def test_same_values_of_another_shape(tmp_path):
    for shape in [(2, 6), (3, 4)]:
        names = list("abc")[: shape[0]]
        made = SourceCatalog.from_arrays(
            np.ones(shape), sizes=[1] * shape[0], names=names
        )
        made.save(tmp_path)
        assert SourceCatalog.load(tmp_path) == made


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


def test_what_is_not_known_here_is_kept(zoo, tmp_path):
    zoo.save(tmp_path / "zoo")
    edit(tmp_path / "zoo", licence={"zoo": "MIT"}, source={"tags": ["x"]})
    loaded = SourceCatalog.load(tmp_path / "zoo")
    changed = [
        loaded,
        loaded[["b", "a"]],
        loaded.append(Source("d")),
        zoo[1:].append(loaded[:1]),
        pickle.loads(pickle.dumps(loaded)),
        SourceCatalog.load(loaded.save(tmp_path / "again")),
    ]
    for made in changed:
        content = content_of(made.save(tmp_path / "saved"))
        assert content["licence"] == {"zoo": "MIT"}
        tags = {s["name"]: s.get("tags") for s in content["sources"]}
        assert tags.pop("a") == ["x"] and set(tags.values()) <= {None}
    assert SourceCatalog([loaded["a"]])["a"] == loaded["a"]
    assert loaded["b"] == zoo["b"]


def test_only_the_name_is_required(tmp_path):
    content = {
        "format": "sklearn_p2l.SourceCatalog",
        "version": 2,
        "sources": [{"name": "a"}, {"name": "b", "size": None, "columns": {"x": 1}}],
    }
    (tmp_path / "catalog.json").write_text(json.dumps(content))
    loaded = SourceCatalog.load(tmp_path)
    assert loaded == SourceCatalog([Source("a"), Source("b", columns={"x": 1})])


def test_a_failed_save_leaves_the_old_catalog(zoo, tmp_path, monkeypatch):
    zoo.save(tmp_path)
    monkeypatch.setattr(json, "dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        zoo[["b", "c"]].save(tmp_path)
    monkeypatch.undo()
    assert SourceCatalog.load(tmp_path) == zoo


def test_large_catalogs_are_memory_mapped(zoo, sparse, tmp_path, monkeypatch):
    monkeypatch.setattr(_format, "_MEMORY_MAP_BYTES", 10)
    zoo.save(tmp_path)
    loaded = SourceCatalog.load(tmp_path)
    assert isinstance(loaded.embeddings, np.memmap)
    assert loaded == zoo and loaded.has_embedding.all()
    selector = SourceSelector(loaded, k=-1.0).fit([[1.0, 2.0]])
    assert isinstance(selector.sources_.embeddings, np.memmap)
    assert_array_equal(
        selector.predict([[1.0, 2.0]]),
        SourceSelector(zoo, k=-1.0).fit([[1, 2.0]]).predict([[1.0, 2.0]]),
    )
    assert pickle.loads(pickle.dumps(loaded)) == zoo
    assert not isinstance(loaded["a"].embedding, np.memmap)
    loaded.save(tmp_path)  # over itself
    assert SourceCatalog.load(tmp_path) == zoo
    sparse.save(tmp_path)
    loaded = SourceCatalog.load(tmp_path)
    assert isinstance(loaded.embeddings, np.memmap)
    assert_array_equal(loaded.has_embedding, [False, True, False])
    assert loaded == sparse


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


# Checkpoints on disk


@pytest.fixture
def trained(tmp_path):
    """A zoo with one file each, a published network, and none."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("x", "y"):
        (folder / f"{name}.safetensors").write_bytes(name.encode())
    return SourceCatalog(
        [
            Source("a/b", checkpoint=folder / "x.safetensors"),
            Source("a_b", checkpoint=str(folder / "y.safetensors")),
            Source("net", checkpoint="hf://timm/x.y", architecture="resnet18"),
            Source("none"),
        ]
    )


def test_nothing_is_copied_without_being_asked(trained, tmp_path):
    trained.save(tmp_path / "zoo")
    assert [path.name for path in (tmp_path / "zoo").iterdir()] == ["catalog.json"]
    assert SourceCatalog.load(tmp_path / "zoo") == trained
    stored = [s.get("checkpoint") for s in content_of(tmp_path / "zoo")["sources"]]
    assert stored == [
        {"external": trained[0].checkpoint},
        {"external": trained[1].checkpoint},
        {"published": "hf://timm/x.y"},
        None,
    ]


def test_copied_checkpoints(trained, tmp_path):
    trained.save(tmp_path / "zoo", copy_checkpoints=True)
    (tmp_path / "zoo").rename(tmp_path / "moved")
    (tmp_path / "elsewhere").rename(tmp_path / "gone")
    loaded = SourceCatalog.load(tmp_path / "moved")
    assert [Path(s.checkpoint).read_bytes() for s in loaded[:2]] == [b"x", b"y"]
    assert loaded["net"] == trained["net"] and loaded["none"] == trained["none"]
    for copied in (False, True, ["a/b"]):  # its checkpoints are there already
        loaded.save(tmp_path / "moved", copy_checkpoints=copied)
        assert SourceCatalog.load(tmp_path / "moved") == loaded
        assert len(list((tmp_path / "moved" / "checkpoints").iterdir())) == 2
    for copied in (True, ["a/b"]):
        with pytest.raises(FileNotFoundError, match="source 'a/b' is not there"):
            trained.save(tmp_path / "other", copy_checkpoints=copied)
    assert not (tmp_path / "other").exists()


def test_some_checkpoints_are_copied(trained, tmp_path):
    trained.save(tmp_path / "zoo", copy_checkpoints=["a_b"])
    loaded = SourceCatalog.load(tmp_path / "zoo")
    assert loaded["a/b"] == trained["a/b"]
    assert "zoo/checkpoints/a_b-" in loaded["a_b"].checkpoint
    for wrong in (["net"], ["none"], ["z"]):
        with pytest.raises(ValueError, match="must name sources that have a file"):
            trained.save(tmp_path / "zoo", copy_checkpoints=wrong)
    for wrong in ("a_b", 1, None):
        with pytest.raises(ValueError, match="True, False or a sequence of names"):
            trained.save(tmp_path / "zoo", copy_checkpoints=wrong)


def test_save_overwrites_nothing_that_is_in_use(tmp_path):
    path, folder = tmp_path / "c.safetensors", tmp_path / "zoo"
    folder.mkdir()
    np.save(folder / "embeddings-of-mine.npy", np.ones(3))
    path.write_bytes(b"old")
    one = Source("a", size=1, embedding=[1.0, 2.0], checkpoint=path)
    SourceCatalog([one]).save(folder, copy_checkpoints=True)
    old = dataclasses.replace(SourceCatalog.load(folder)["a"], name="a_old")
    path.write_bytes(b"new")
    SourceCatalog([old, one]).save(folder, copy_checkpoints=True)
    loaded = SourceCatalog.load(folder)
    assert Path(loaded["a"].checkpoint).read_bytes() == b"new"
    assert Path(loaded["a_old"].checkpoint).read_bytes() == b"old"
    assert (folder / "embeddings-of-mine.npy").exists()
    # beside the folder is not inside it
    beside = dataclasses.replace(one, checkpoint=folder / ".." / "c.safetensors")
    SourceCatalog([beside]).save(folder, copy_checkpoints=True)
    assert "zoo/checkpoints/" in SourceCatalog.load(folder)["a"].checkpoint


def test_paths_outlive_a_change_of_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.pt").write_bytes(b"")
    source = Source("a", checkpoint="c.pt")
    SourceCatalog([source]).save("zoo", copy_checkpoints=True)
    loaded = SourceCatalog.load("zoo")
    monkeypatch.chdir("/")
    assert Path(source.checkpoint).exists() and Path(loaded["a"].checkpoint).exists()


@pytest.mark.parametrize(
    "checkpoint",
    [
        "../secret.txt",
        "checkpoints/../../secret.txt",
        "checkpoints\\..\\..\\secret.txt",
        "/etc/hostname",
        "C:\\secret.txt",
        "link.txt",
        "linked/secret.txt",
        "circle",
        "nul\0",
        "",
        ".",
    ],
)
def test_no_path_leads_out_of_the_folder(zoo, tmp_path, checkpoint):
    (tmp_path / "secret.txt").write_text("secret")
    folder = zoo.save(tmp_path / "zoo")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "circle").symlink_to("circle")
    edit(folder, source={"checkpoint": checkpoint})
    with pytest.raises(ValueError, match="checkpoint of source 'a' must be a file in"):
        SourceCatalog.load(folder)
    edit(folder, source={"checkpoint": None}, embeddings=checkpoint)
    with pytest.raises(ValueError, match="embeddings must be a file inside"):
        SourceCatalog.load(folder)


def test_links_within_the_folder(zoo, tmp_path):
    folder = zoo.save(tmp_path / "zoo")
    (folder / "file.pt").write_bytes(b"")
    (folder / "link.pt").symlink_to("file.pt")
    (tmp_path / "linked zoo").symlink_to(folder)
    edit(folder, source={"checkpoint": "link.pt"})
    loaded = SourceCatalog.load(tmp_path / "linked zoo")
    assert loaded["a"].checkpoint == str(tmp_path / "linked zoo" / "link.pt")
    loaded.save(folder)
    assert content_of(folder)["sources"][0]["checkpoint"] == "file.pt"


def test_links_that_lead_out_are_not_written_through(zoo, tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "zoo"
    outside.mkdir()
    (tmp_path / "c.pt").write_bytes(b"c")
    zoo.save(folder)
    array = folder / content_of(folder)["embeddings"]
    array.rename(outside / "mine.npy")
    array.symlink_to(outside / "mine.npy")
    with pytest.raises(ValueError, match="embeddings must be a file inside"):
        SourceCatalog.load(folder)
    zoo.save(folder)  # replaces the link, not the file behind it
    assert SourceCatalog.load(folder) == zoo and not array.is_symlink()
    (folder / "checkpoints").symlink_to(outside)
    source = dataclasses.replace(zoo["a"], checkpoint=tmp_path / "c.pt")
    with pytest.raises(ValueError, match="a link that leads out of it"):
        SourceCatalog([source]).save(folder, copy_checkpoints=True)
    assert os.listdir(outside) == ["mine.npy"]


def test_nothing_outside_the_folder_is_touched(zoo, tmp_path):
    victim, folder = tmp_path / "victim.txt", tmp_path / "zoo"
    victim.write_text("mine")
    zoo.save(folder)
    edit(folder, embeddings="../victim.txt")
    zoo.save(folder)
    assert victim.read_text() == "mine" and SourceCatalog.load(folder) == zoo


# Damaged, foreign and newer folders


@pytest.mark.parametrize(
    "text",
    [
        None,
        "{",
        "[" * 100_000,
        "\xff",
        '{"format": "other"}',
        '{"format": "sklearn_p2l.SourceCatalog"}',
        '{"format": "sklearn_p2l.SourceCatalog", "version": "2"}',
        '{"format": "sklearn_p2l.SourceCatalog", "version": true}',
        '{"format": "sklearn_p2l.SourceCatalog", "version": NaN}',
        "[]",
    ],
)
def test_load_refuses_other_folders(zoo, tmp_path, text):
    if text is not None:
        (tmp_path / "catalog.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="folder written by SourceCatalog.save"):
        SourceCatalog.load(tmp_path)
    with pytest.raises(ValueError, match="folder written by SourceCatalog.save"):
        SourceCatalog.load(tmp_path / "catalog.json" / "x")
    zoo.save(tmp_path)
    assert SourceCatalog.load(tmp_path) == zoo


def test_load_refuses_other_versions(zoo, tmp_path):
    zoo.save(tmp_path)
    edit(tmp_path, version=1)
    with pytest.raises(ValueError, match="version 1, which no release wrote.*again"):
        SourceCatalog.load(tmp_path)
    edit(tmp_path, version=99)
    with pytest.raises(ValueError, match="version 99.*upgrade sklearn-p2l"):
        SourceCatalog.load(tmp_path)
    (tmp_path / "catalog.json").write_text('{"version": 3, "sources": {"all": "new"}}')
    with pytest.raises(ValueError, match="version 3.*upgrade sklearn-p2l"):
        SourceCatalog.load(tmp_path)


@pytest.mark.parametrize(
    "source, message",
    [
        ({"name": None}, "source number 1"),
        ({"name": 3}, "source number 1: names of sources must be non-empty str"),
        ({"name": "b"}, "unique"),
        ({"size": "big"}, "size of source 'a' must be a finite number"),
        ({"size": -1}, "size of source 'a' must be positive"),
        ({"size": [1]}, "size of source 'a' must be a finite number"),
        ({"architecture": 1}, "architecture of source 'a' must be a str"),
        ({"n_classes": {}}, "n_classes of source 'a' must be"),
        ({"n_classes": 1.5}, "n_classes of source 'a' must be"),
        ({"metadata": "text"}, "metadata of source 'a' must be a dict"),
        ({"columns": [1]}, "columns of source 'a' must be a mapping"),
        ({"columns": {"x": "1"}}, "column 'x' of source 'a' must be"),
        ({"columns": {"size": 1}}, "names of columns must not be"),
        ({"checkpoint": 1}, "checkpoint of source 'a' must be"),
        ({"checkpoint": {}}, "checkpoint of source 'a' must be"),
        ({"checkpoint": {"external": "x.pt"}}, "checkpoint of source 'a' must be"),
        ({"checkpoint": {"external": 1}}, "checkpoint of source 'a' must be"),
        ({"checkpoint": {"published": "x.pt"}}, "checkpoint of source 'a' must be"),
        ({"checkpoint": {"other": "x"}}, "checkpoint of source 'a' must be"),
        (
            {"checkpoint": {"published": "X"}, "architecture": None},
            "architecture of source 'a' must be given",
        ),
    ],
)
def test_load_names_what_is_wrong(zoo, tmp_path, source, message):
    zoo.save(tmp_path)
    edit(tmp_path, source=source)
    with pytest.raises(ValueError, match=message) as caught:
        SourceCatalog.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"sources": []}, "a list of 'sources'"),
        ({"sources": None}, "a list of 'sources'"),
        ({"sources": {"a": 1}}, "a list of 'sources'"),
        ({"sources": ["a"]}, "with a 'name'"),
        ({"sources": [{"name": "a"}]}, r"hold floats, 1 rows"),
        ({"sources": [{"name": "a"}, {"size": 3}, {}]}, "as source number 2"),
        ({"fingerprint": 3}, "fingerprint must be a str"),
        ({"embeddings": 3}, "embeddings must be a file inside"),
        ({"embeddings": "x.npy"}, "'x.npy', which is not there; copy the whole folder"),
        ({"embeddings": "catalog.json"}, "must be a npy file"),
    ],
)
def test_load_of_a_damaged_file(zoo, tmp_path, changes, message):
    zoo.save(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        SourceCatalog.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    "damage",
    ["empty", "cut", "header", "pickle", "archive", "integers", "flat", "short"],
)
def test_load_of_damaged_vectors(zoo, tmp_path, monkeypatch, damage, mapped):
    zoo.save(tmp_path)
    file = tmp_path / content_of(tmp_path)["embeddings"]
    whole = file.read_bytes()
    if damage in ("empty", "cut"):
        file.write_bytes(b"" if damage == "empty" else whole[:-8])
    elif damage == "header":
        file.write_bytes(whole.replace(b"(3, 2)", b"(3, x)"))
    elif damage == "pickle":
        np.save(file, np.array([zoo], dtype=object), allow_pickle=True)
    elif damage == "archive":
        with open(file, "wb") as opened:
            np.savez(opened, x=np.ones((3, 2)))
    else:
        arrays = {
            "integers": np.ones((3, 2), dtype=int),
            "flat": np.ones(3),
            "short": np.ones((2, 2)),
        }
        np.save(file, arrays[damage])
    monkeypatch.setattr(_format, "_MEMORY_MAP_BYTES", -1 if mapped else 2**20)
    with pytest.raises(ValueError, match=str(tmp_path)):
        SourceCatalog.load(tmp_path)
    zoo.save(tmp_path)  # mends it
    assert SourceCatalog.load(tmp_path) == zoo


def test_load_of_vectors_that_are_known_in_part(zoo, tmp_path):
    zoo.save(tmp_path)
    file = tmp_path / content_of(tmp_path)["embeddings"]
    np.save(file, np.where([[1, 0]] * 3, 1.0, np.nan))
    with pytest.raises(ValueError, match=f"{tmp_path} is damaged.*NaN within row 0"):
        SourceCatalog.load(tmp_path)
    zoo.save(tmp_path)  # the same name, so its content is compared
    assert SourceCatalog.load(tmp_path) == zoo


# How it looks


def test_repr(zoo, sparse):
    assert repr(zoo[["a", "b"]]) == (
        "SourceCatalog(2 sources, 2 features, columns accuracy, parameters: a (10), "
        "b (20))"
    )
    assert repr(sparse) == (
        "SourceCatalog(3 sources, 2 features, column accuracy: names, vector, size (7))"
    )
    assert repr(sparse[2:]) == "SourceCatalog(1 source, no vectors: size (7))"
    many = SourceCatalog.from_arrays(
        np.ones((9, 2)), sizes=range(1, 10), names=list("abcdefghi")
    )
    assert repr(many).endswith("e (5), ...)")
    assert "SourceCatalog(3 sources" in repr(SourceSelector(zoo))


def cells(catalog):
    root = ElementTree.fromstring(catalog._repr_html_())  # well-formed
    rows = [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]
    return root.find("caption").text, rows


def test_html_repr(sparse):
    catalog = SourceCatalog.from_arrays(
        np.ones((30, 2)),
        sizes=range(1_000, 1_030),
        names=["<script>alert(1)</script>", *map(str, range(1, 30))],
        architectures=["resnet18", *[None] * 29],
        columns={"<i>": [12345678, 0.123456, *[None] * 28]},
        fingerprint="net:<b>",
    )
    caption, rows = cells(catalog)
    assert caption == "30 sources, 2 features of net:<b>"
    heads = ["name", "size", "architecture", "n_classes", "checkpoint"]
    assert rows[0] == [*heads, "<i>"]
    name = "<script>alert(1)</script>"
    assert rows[1] == [name, "1,000", "resnet18", "", "", "12,345,678"]
    assert rows[2] == ["1", "1,001", "", "", "", "0.1235"]
    assert rows[-1] == ["and 10 more"] and len(rows) == 22
    caption, rows = cells(catalog[:1])
    assert caption.startswith("1 source, ") and len(rows) == 2
    caption, rows = cells(sparse)
    assert caption == "3 sources, 2 features of an unknown reference network"
    assert rows == [
        [*heads, "accuracy", "vector"],
        ["names", "", "resnet50", "", "IMAGENET1K_V2", "", "unknown"],
        ["vector", "", "", "", "", "0.5", "known"],
        ["size", "7", "", "3", "", "", "unknown"],
    ]
    assert cells(sparse[2:])[0] == "1 source, no vectors"


# -- class means ---------------------------------------------------------------------


def with_means(rng):
    means = [rng.normal(size=(n, 2)) if n else None for n in (3, 0, 5)]
    vectors = Vectors([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "net:1", means)
    names = ["a", "b", "c"]
    return SourceCatalog.from_arrays(vectors, sizes=[1, 2, 3], names=names), means


def test_class_means_are_kept(rng, tmp_path):
    catalog, means = with_means(rng)
    assert catalog.class_means[1] is None
    assert_allclose(catalog.class_means[0], means[0], rtol=1e-6)
    assert not catalog.class_means[0].flags.writeable
    assert_allclose(catalog["c"].class_means, means[2], rtol=1e-6)
    assert catalog[["c", "b"]].class_means[1] is None
    assert SourceCatalog(list(catalog)) == catalog
    again = pickle.loads(pickle.dumps(catalog))
    assert again == catalog and not again.class_means[0].flags.writeable
    own = np.ones((2, 2), np.float32)
    own.flags.writeable = False
    copied = Source("a", embedding=[1.0, 2.0], class_means=own).class_means
    assert copied is not own and not copied.flags.writeable
    for wrong, message in [(np.full((2, 2), np.nan), "NaN"), (np.ones((2, 3)), "wide")]:
        wrong = wrong.astype(np.float32)
        wrong.flags.writeable = False
        with pytest.raises(ValueError, match=message):
            Source("a", embedding=[1.0, 2.0], class_means=wrong)
    by_name = pd.Series({"c": means[2], "b": None, "a": means[0]})
    named = SourceCatalog.from_arrays(
        catalog.embeddings, sizes=[1, 2, 3], names=list("abc"), class_means=by_name
    )
    assert_allclose(named["c"].class_means, means[2], rtol=1e-6)
    assert catalog.drop("a").append(catalog["a"]).class_means[2].shape == (3, 2)
    other = SourceCatalog.from_arrays(
        np.asarray(catalog.embeddings),
        sizes=[1, 2, 3],
        names=catalog.names,
        class_means=[means[0], None, None],
        fingerprint="net:1",
    )
    assert other != catalog and other["c"] != catalog["c"]
    assert other["a"] == catalog["a"]


def test_class_means_on_disk(rng, tmp_path, monkeypatch):
    catalog, _ = with_means(rng)
    assert SourceCatalog.load(catalog.save(tmp_path)) == catalog
    catalog.drop("a").save(tmp_path)
    assert SourceCatalog.load(tmp_path) == catalog.drop("a")
    assert len(list(tmp_path.glob("class_means-*.npy"))) == 1
    monkeypatch.setattr(_format, "_MEMORY_MAP_BYTES", 10)
    loaded = SourceCatalog.load(tmp_path)
    assert isinstance(loaded.class_means[1].base, np.memmap)
    assert loaded == catalog.drop("a")
    catalog[["b"]].save(tmp_path)
    assert not list(tmp_path.glob("class_means-*.npy"))


@pytest.mark.parametrize(
    "means, message",
    [
        ([np.ones((2, 3)), None, None], "as wide as embeddings, 2, got .3."),
        ([np.ones((2, 2))], r"one entry per name \(3\), got 1"),
        ([np.ones((0, 2)), None, None], "minimum of 1 is required"),
        ([np.ones(2), None, None], "Expected 2D array"),
        ([[[1, np.nan]], None, None], "class_means contains NaN"),
    ],
)
def test_wrong_class_means(means, message):
    with pytest.raises(ValueError, match=message):
        SourceCatalog.from_arrays(
            np.ones((3, 2)), sizes=None, names=list("abc"), class_means=means
        )


def test_damaged_class_means(rng, tmp_path):
    catalog, _ = with_means(rng)
    file = json.loads((catalog.save(tmp_path) / "catalog.json").read_text())
    for n, message in [(4, "must hold floats, 9 rows"), (-1, "must be an int")]:
        file["sources"][0]["n_class_means"] = n
        (tmp_path / "catalog.json").write_text(json.dumps(file))
        with pytest.raises(ValueError, match=message):
            SourceCatalog.load(tmp_path)
    del file["class_means"]
    file["sources"][0]["n_class_means"] = 3
    (tmp_path / "catalog.json").write_text(json.dumps(file))
    with pytest.raises(ValueError, match="must name the file of 'class_means'"):
        SourceCatalog.load(tmp_path)
