"""The command line: results on stdout, the rest on stderr, exit codes."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import run_without_torch
from PIL import Image

from sklearn_p2l import DatasetEmbedder, SourceCatalog, SourceSelector, __version__
from sklearn_p2l.__main__ import main

NETWORK = ["--backbone", "small_resnet", "--weights", "none", "--image-size", "16"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Four folders of 3 to 6 small images of different colours."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("folders")
    for j, name in enumerate(["blue", "dark", "light", "red"]):
        (root / name).mkdir()
        shift = [(0, 0, 150), (0, 0, 0), (150, 150, 150), (150, 0, 0)][j]
        for i in range(3 + j):
            image = rng.integers(0, 100, size=(16, 16, 3)) + shift
            image = Image.fromarray(image.astype(np.uint8))
            image.save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def zoo(folders, tmp_path_factory):
    """A catalog of three sources, made by the command line."""
    catalog = str(tmp_path_factory.mktemp("zoo") / "catalog")
    options = [*NETWORK, "--quiet"]
    for name in ("blue", "dark", "light"):
        add = ["catalog", "add", catalog, name, str(folders / name)]
        assert main([*add, *options]) == 0
        options = ["--quiet"]  # the network is the one of the catalog
    return catalog


@pytest.fixture
def p2l(capsys):
    """Run a command; returns exit code, stdout and stderr."""

    def call(*args):
        code = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def assert_refused(result, *words):
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("p2l: error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def vectors_file(tmp_path, X, names):
    path = tmp_path / "vectors.jsonl"
    records = [{"name": n, "embedding": list(x)} for n, x in zip(names, X)]
    path.write_text("\n".join(map(json.dumps, records)) + "\n")
    return path


def plain_catalog(tmp_path, rng, n_sources=6):
    catalog = SourceCatalog.from_arrays(
        rng.dirichlet(np.ones(5), n_sources),
        sizes=rng.integers(100, 9000, n_sources),
        names=[f"s{j}" for j in range(n_sources)],
    )
    catalog.save(tmp_path / "plain")
    return catalog, tmp_path / "plain"


def test_embed_prints_what_the_embedder_computes(p2l, folders):
    code, out, err = p2l("embed", folders / "dark", folders / "red", *NETWORK)
    assert code == 0
    records = [json.loads(line) for line in out.splitlines()]
    expected = DatasetEmbedder(
        "small_resnet", weights=None, image_size=16, random_state=0
    )
    vectors = expected.fit_transform([folders / "dark", folders / "red"])
    assert [r["name"] for r in records] == ["dark", "red"]
    assert [r["size"] for r in records] == [4, 6]
    assert {r["fingerprint"] for r in records} == {expected.fingerprint_}
    np.testing.assert_array_equal([r["embedding"] for r in records], vectors)
    assert "10 samples" in err  # progress
    assert p2l("embed", folders / "dark", *NETWORK, "--quiet")[2] == ""


def test_catalog_add_makes_a_catalog_that_python_reads(p2l, zoo, folders):
    catalog = SourceCatalog.load(zoo)
    assert list(catalog.names) == ["blue", "dark", "light"]
    assert catalog.sizes.tolist() == [3, 4, 5]
    embedder = DatasetEmbedder(
        "small_resnet", weights=None, image_size=16, random_state=0
    )
    expected = embedder.fit_transform([folders / name for name in catalog.names])
    np.testing.assert_array_equal(catalog.embeddings, expected)
    assert catalog.fingerprint == embedder.fingerprint_


def test_catalog_add_takes_size_and_checkpoint(p2l, tmp_path, folders):
    checkpoint = tmp_path / "net.safetensors"
    checkpoint.write_bytes(b"weights")
    details = ["--size", 500, "--architecture", "resnet18", "--n-classes", 7]
    add = ["catalog", "add", tmp_path / "zoo", "mine", folders / "red", *NETWORK]
    code, out, _ = p2l(*add, *details, "--checkpoint", checkpoint)
    assert code == 0
    assert "added mine" in out
    source = SourceCatalog.load(tmp_path / "zoo")["mine"]
    assert (source.size, source.architecture, source.n_classes) == (500, "resnet18", 7)
    with open(source.checkpoint, "rb") as file:
        assert file.read() == b"weights"


def test_catalog_list_and_show(p2l, zoo):
    _, table, _ = p2l("catalog", "list", zoo)
    header, *rows = table.splitlines()
    assert header.split() == ["name", "size", "architecture", "n_classes", "checkpoint"]
    assert [row.split()[:2] for row in rows] == [
        ["blue", "3"],
        ["dark", "4"],
        ["light", "5"],
    ]
    _, lines, _ = p2l("catalog", "list", zoo, "--format", "json")
    assert [json.loads(line)["name"] for line in lines.splitlines()] == [
        "blue",
        "dark",
        "light",
    ]
    _, shown, _ = p2l("catalog", "show", zoo, "dark", "--format", "json")
    shown, source = json.loads(shown), SourceCatalog.load(zoo)["dark"]
    assert shown["embedding"] == source.embedding.tolist()
    assert shown["fingerprint"] == source.fingerprint
    assert "small_resnet" in p2l("catalog", "show", zoo, "dark")[1]
    assert_refused(p2l("catalog", "show", zoo, "green"), "green", "blue, dark, light")


def test_rank_agrees_with_the_selector(p2l, zoo, folders):
    catalog = SourceCatalog.load(zoo)
    _, out, _ = p2l("rank", folders / "red", zoo, "--format", "json", "--k", "-0.7")
    result = json.loads(out)
    embedder = DatasetEmbedder(
        "small_resnet", weights=None, image_size=16, random_state=0
    )
    X = embedder.fit_transform([folders / "red"])
    selector = SourceSelector(catalog, k=-0.7).fit(X)
    names = [row["source"] for row in result["ranking"]]
    assert names == selector.predict(X)[0].tolist()
    E = dict(zip(catalog.names, np.asarray(selector.decision_function(X))[0]))
    for row in result["ranking"]:
        assert row["score"] == pytest.approx(E[row["source"]])
        assert row["size_term"] + row["divergence_term"] == pytest.approx(row["score"])
    first, second, last = result["ranking"]
    assert first["margin"] == pytest.approx(first["score"] - second["score"])
    assert last["margin"] is None

    _, table, _ = p2l("rank", folders / "red", zoo, "--k", "-0.7", "--top", 2)
    title, header, *rows = table.splitlines()
    assert title == "red (k = -0.7, kl)"
    assert header.split()[:4] == ["rank", "source", "size", "E"]
    assert [row.split()[1] for row in rows] == names[:2]


def test_rank_takes_what_embed_prints_from_stdin(p2l, zoo, folders, monkeypatch):
    direct = p2l("rank", folders / "red", zoo, "--quiet")[1]
    _, lines, _ = p2l("embed", folders / "red", *NETWORK)
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert p2l("rank", "-", zoo) == (0, direct, "")


def test_rank_needs_no_torch_for_vectors(tmp_path, rng):
    catalog, path = plain_catalog(tmp_path, rng)
    file = vectors_file(tmp_path, catalog.embeddings[2:3], ["again"])
    code = "from sklearn_p2l.__main__ import main; sys.exit(main(sys.argv[1:]))"
    for command in (["rank", file, path], ["catalog", "list", path]):
        result = run_without_torch("import sys\n" + code, *command)
        assert result.returncode == 0, result.stderr
        assert "s2" in result.stdout


def test_learn_k_agrees_with_the_selector_and_feeds_rank(p2l, tmp_path, rng):
    catalog, path = plain_catalog(tmp_path, rng)
    X, names = rng.dirichlet(np.ones(5), 7), [f"t{i}" for i in range(7)]
    file = vectors_file(tmp_path, X, names)
    y = np.asarray(SourceSelector(catalog, k=-0.5).fit(X).decision_function(X))
    y = y + rng.normal(scale=0.5, size=y.shape)
    y[0, 3] = np.nan
    # Rows and columns in other orders than vectors and catalog.
    columns, rows = rng.permutation(6), rng.permutation(7)
    with open(tmp_path / "measured.csv", "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["target", *(catalog.names[j] for j in columns)])
        for i in rows:
            cells = ["" if np.isnan(v) else repr(float(v)) for v in y[i, columns]]
            writer.writerow([names[i], *cells])
    expected = SourceSelector(catalog).fit(X, y)
    learn = ["learn-k", tmp_path / "measured.csv", path, file]
    code, out, _ = p2l(*learn, "--format", "json")
    assert code == 0
    result = json.loads(out)
    assert result["k"] == pytest.approx(expected.k_)
    assert result["interval"] == pytest.approx(list(expected.k_interval_))
    assert result["spearman"] == pytest.approx(expected.score(X, y))
    assert f"{expected.k_:.6g}" in p2l(*learn)[1]

    (tmp_path / "k.json").write_text(out)
    _, ranked, _ = p2l("rank", file, path, "--k", tmp_path / "k.json")
    assert f"(k = {expected.k_:.6g}, kl)" in ranked
    refused = p2l("rank", file, path, "--k", tmp_path / "k.json", "--metric", "js")
    assert_refused(refused, "--metric must be kl", "got js")


@pytest.mark.parametrize(
    "text, words",
    [
        ("target,s0,s1\n", ["no rows"]),
        ("target,s0,new\nt0,1,2\n", ["new", "s0"]),
        ("target,s0,s0\nt0,1,2\n", ["repeated"]),
        ("target,s0,s1\nt0,1\n", ["t0", "1 cells"]),
        ("target,s0,s1\nt0,1,x\n", ["could not convert"]),
        ("target,s0,s1\nt0,1,inf\n", ["infinity"]),
        ("target,s0,s1\nt9,1,2\n", ["no dataset", "t9"]),
    ],
)
def test_learn_k_refuses_wrong_tables(p2l, tmp_path, rng, text, words):
    catalog, path = plain_catalog(tmp_path, rng)
    file = vectors_file(tmp_path, catalog.embeddings[:1], ["t0"])
    (tmp_path / "measured.csv").write_text(text)
    result = p2l("learn-k", tmp_path / "measured.csv", path, file)
    assert_refused(result, "measured.csv", *words)


def test_a_second_source_of_a_name_is_refused_before_embedding(p2l, zoo, tmp_path):
    # An empty folder cannot be embedded, so the name has been looked at first.
    result = p2l("catalog", "add", zoo, "dark", tmp_path)
    assert_refused(result, "has a source 'dark' already")


def test_another_network_is_refused_before_images_are_read(p2l, zoo, folders, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    for command in (["rank"], ["catalog", "add", zoo, "new"]):
        data = [tmp_path / "broken"] + ([zoo] if command == ["rank"] else [])
        result = p2l(*command, *data, "--random-state", 1)
        assert_refused(result, "same reference network")


def test_bad_input_is_one_line_and_exit_code_2(p2l, zoo, folders, tmp_path, rng):
    assert_refused(p2l("rank", folders / "red", tmp_path / "none"), "catalog.json")
    assert_refused(p2l("rank", tmp_path / "none", zoo), "none")
    assert_refused(p2l("rank", folders / "red", zoo, "--top", 4), "from 1 to 3")
    assert_refused(p2l("rank", folders / "red", zoo, "--k", "big"), "--k", "big")
    wrong = vectors_file(tmp_path, [[0.5, 0.5]], ["narrow"])
    assert_refused(p2l("rank", wrong, zoo), "as wide", "64", "2")
    wrong.write_text("hello\n")
    assert_refused(p2l("rank", wrong, zoo), "line 1")
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "a.png").write_bytes(b"no image")
    assert_refused(p2l("rank", tmp_path / "red", zoo, "--quiet"), "a.png")
    nowhere = p2l("embed", folders / "red", "--backbone", "resnet99")
    assert_refused(nowhere, "backbone must be", "resnet99")


def test_skipped_images_are_told_in_one_line(p2l, zoo, folders, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "b.png").write_bytes((folders / "red" / "0.png").read_bytes())
    code, out, err = p2l("rank", tmp_path, zoo, "--skip-unreadable", "--quiet")
    assert code == 0
    assert out
    assert err.startswith("p2l: warning: Skipped 1 image(s)")
    assert err.count("\n") == 1


def test_usage_is_told(p2l):
    assert p2l("--version")[:2] == (0, f"p2l {__version__}\n")
    code, out, err = p2l()
    assert (code, out) == (2, "")
    assert "usage: p2l" in err
    for command in ("embed", "catalog add", "catalog list", "rank", "learn-k"):
        code, out, _ = p2l(*command.split(), "--help")
        assert code == 0
        assert f"usage: p2l {command}" in out


def test_an_interrupt_ends_with_130(p2l, zoo, monkeypatch):
    def interrupted(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(SourceCatalog, "load", interrupted)
    assert p2l("catalog", "list", zoo) == (130, "", "p2l: interrupted\n")


def test_a_closed_pipe_is_quiet(tmp_path, rng):
    catalog, path = plain_catalog(tmp_path, rng, n_sources=3000)
    command = [sys.executable, "-m", "sklearn_p2l", "catalog", "list", str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().startswith("name")
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
