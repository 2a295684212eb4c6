"""The command line: results on stdout, the rest on stderr, exit codes."""

import csv
import dataclasses
import io
import json
import shutil
import subprocess
import sys
from unittest.mock import patch

import numpy as np
import pytest
from conftest import run_without_torch
from PIL import Image

from sklearn_p2l import (
    DatasetEmbedder,
    EvidenceSelector,
    NetworkClassifier,
    Source,
    SourceCatalog,
    SourceSelector,
    Task,
    __version__,
    networks,
)
from sklearn_p2l.__main__ import main
from sklearn_p2l.datasets import load_zoo

NETWORK = ["--backbone", "small_resnet", "--weights", "none", "--image-size", "16"]
# Most tests train for a moment, which often teaches nothing.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Training .* always giving the shares:sklearn.exceptions.ConvergenceWarning"
)

TRAINING = ["--image-size", "16", "--epochs", "12", "--quiet"]
SCRATCH = ["--backbone", "small_resnet", *TRAINING]


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


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory):
    """A checkpoint of a small network, trained a little; it names its architecture."""
    path = tmp_path_factory.mktemp("trained") / "net.safetensors"
    classifier = NetworkClassifier(image_size=16, epochs=1, random_state=0)
    classifier.fit(folders).to_source("net", checkpoint=path)
    return path


@pytest.fixture(scope="module")
def startable(zoo, trained, tmp_path_factory):
    """The catalog with checkpoints, but for the source that is ranked first."""
    sources = [
        Source(
            source.name,
            size=source.size,
            embedding=source.embedding,
            checkpoint=None if source.name == "dark" else trained,
            architecture="small_resnet" if source.name == "blue" else None,
            metadata=source.metadata,
            fingerprint=source.fingerprint,
        )
        for source in SourceCatalog.load(zoo)
    ]
    folder = str(tmp_path_factory.mktemp("startable") / "catalog")
    SourceCatalog(sources).save(folder)
    return folder


@pytest.fixture
def broken(tmp_path):
    """A folder that cannot be embedded: what is refused before has another reason."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    return tmp_path / "broken"


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
    assert "10/10" in err  # progress
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


def test_catalog_add_takes_size_and_checkpoint(p2l, tmp_path, folders, trained):
    details = ["--size", 500, "--n-classes", 4, "--checkpoint", trained]
    add = ["catalog", "add", tmp_path / "zoo", "mine", folders / "red", *NETWORK]
    code, out, _ = p2l(*add, *details)
    assert code == 0
    assert out == f"added mine to {tmp_path / 'zoo'}, which now has 1 source\n"
    source = SourceCatalog.load(tmp_path / "zoo")["mine"]
    assert (source.size, source.n_classes) == (500, 4)
    assert source.architecture == "small_resnet"  # as the file says
    copy = tmp_path / "zoo" / "checkpoints"
    assert [str(path) for path in copy.iterdir()] == [source.checkpoint]
    with open(source.checkpoint, "rb") as file:
        assert file.read() == trained.read_bytes()


def test_catalog_add_copies_only_the_checkpoint_that_is_added(
    p2l, startable, tmp_path, folders, trained
):
    SourceCatalog.load(startable).save(tmp_path / "zoo")
    add = ["catalog", "add", tmp_path / "zoo", "red", folders / "red"]
    assert p2l(*add, "--checkpoint", trained)[0] == 0
    catalog = SourceCatalog.load(tmp_path / "zoo")
    assert catalog["blue"].checkpoint == str(trained)
    assert catalog["red"].checkpoint.startswith(str(tmp_path / "zoo" / "checkpoints"))


def test_catalog_add_refuses_checkpoints_before_embedding(
    p2l, tmp_path, broken, trained
):
    add = ["catalog", "add", tmp_path / "zoo", "mine", broken, *NETWORK]
    add.append("--checkpoint")
    absent = p2l(*add, tmp_path / "absent.safetensors")
    assert_refused(absent, "absent.safetensors: No such file")
    unfit = p2l(*add, trained, "--architecture", "resnet18")
    assert_refused(unfit, "must fit the architecture", "net.safetensors")
    nameless = tmp_path / "nameless.safetensors"
    networks.write_checkpoint(nameless, {"weight": np.zeros(3, np.float32)}, {})
    assert_refused(p2l(*add, nameless), "--architecture must be given", "nameless")
    assert_refused(p2l(*add, "IMAGENET1K_V1"), "--architecture must be given")
    assert not (tmp_path / "zoo").exists()


def test_published_weights_are_noted_and_not_opened(p2l, tmp_path, folders):
    add = ["catalog", "add", tmp_path / "zoo", "net", folders / "red", *NETWORK]
    details = ["--architecture", "resnet50", "--checkpoint", "IMAGENET1K_V2"]
    assert p2l(*add, *details)[0] == 0
    source = SourceCatalog.load(tmp_path / "zoo")["net"]
    assert (source.architecture, source.checkpoint) == ("resnet50", "IMAGENET1K_V2")
    assert "IMAGENET1K_V2" in p2l("catalog", "list", tmp_path / "zoo")[1]


def test_catalog_remove(p2l, startable, tmp_path, trained):
    SourceCatalog.load(startable).save(
        tmp_path / "zoo", copy_checkpoints=["blue", "light"]
    )
    copies = list((tmp_path / "zoo" / "checkpoints").iterdir())
    assert_refused(p2l("catalog", "remove", tmp_path / "zoo", "green"), "green", "blue")
    everything = p2l("catalog", "remove", tmp_path / "zoo", "blue", "dark", "light")
    assert_refused(everything, "at least one source")
    assert p2l("catalog", "remove", tmp_path / "zoo", "dark") == (
        0,
        f"removed dark from {tmp_path / 'zoo'}, which now has 2 sources\n",
        "",
    )
    _, out, _ = p2l("catalog", "remove", tmp_path / "zoo", "blue")
    catalog = SourceCatalog.load(tmp_path / "zoo")
    assert catalog.names == ("light",)
    # Named where no other source needs it, and never deleted.
    assert list((tmp_path / "zoo" / "checkpoints").iterdir()) == copies
    left = [str(path) for path in copies if str(path) != catalog["light"].checkpoint]
    assert [line.split()[3] for line in out.splitlines()[1:]] == left


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
        assert row["E"] == pytest.approx(E[row["source"]])
        assert row["size_term"] + row["divergence_term"] == pytest.approx(row["E"])
    first, second, last = result["ranking"]
    assert first["margin"] == pytest.approx(first["E"] - second["E"])
    assert last["margin"] is None

    _, table, _ = p2l("rank", folders / "red", zoo, "--k", "-0.7", "--top", 2)
    title, header, *rows = table.splitlines()
    assert title == "sources for red (equation 2, k = -0.7, kl)"
    assert header.split()[:4] == ["rank", "source", "size", "E"]
    assert [row.split()[1] for row in rows] == names[:2]


def test_without_a_catalog_the_zoo_is_ranked(p2l, folders):
    """By k as what was measured with it teaches, or by evidence with its chances."""
    zoo = load_zoo()
    _, out, err = p2l("rank", folders, "--format", "json", "--quiet")
    result = json.loads(out)
    selector = SourceSelector(zoo.sources).fit(zoo.vectors, zoo.improvements)
    assert (result["k"], err) == (selector.k_, "")
    task = Task.from_folder(folders)
    expected = selector.predict(zoo.embedder.fit_transform([task]))[0]
    assert [row["source"] for row in result["ranking"]] == expected.tolist()
    result = json.loads(p2l("rank", folders, "--format", "json", "--k", "-1")[1])
    assert result["k"] == -1

    rank = ["rank", folders, "--evidence", "--quiet"]
    result = json.loads(p2l(*rank, "--format", "json")[1])
    evidence = EvidenceSelector(zoo.sources, embedder=zoo.embedder)
    evidence.fit(zoo.vectors, zoo.improvements, scores=zoo.scores)
    names = [row["source"] for row in result["ranking"]]
    assert names == evidence.predict([task])[0].tolist()
    assert result["weights"] == evidence.weights_
    assert 0.8 <= result["p_best_among_them"] <= 1
    assert "the best is among them with a chance of" in p2l(*rank)[1]


def test_tune_without_a_catalog_starts_from_the_zoo(p2l, folders, tmp_path):
    model = tmp_path / "model.safetensors"
    _, out, _ = p2l("rank", folders, "--format", "json", "--quiet")
    first = json.loads(out)["ranking"][0]
    tune = ["tune", folders, "--output", model, "--epochs", "2", "--quiet"]
    result = json.loads(p2l(*tune, "--format", "json")[1])
    assert result["source"] == first["source"]
    assert result["weights"] == first["checkpoint"]
    assert networks.checkpoint_metadata(model)["image_size"] == "24"


def test_tune_tries_the_first_of_the_evidence(p2l, folders, tmp_path):
    model = tmp_path / "model.safetensors"
    tune = ["tune", folders, "--output", model, "--epochs", "2", "--quiet"]
    tune += ["--evidence", "--try", "2"]
    result = json.loads(p2l(*tune, "--format", "json")[1])
    zoo = load_zoo()
    evidence = EvidenceSelector(zoo.sources, embedder=zoo.embedder)
    evidence.fit(zoo.vectors, zoo.improvements, scores=zoo.scores)
    task = Task.from_folder(folders, test_size=0.2, random_state=0)
    assert result["chosen_by"] == "all evidence"
    tried = {row["source"]: row["score"] for row in result["tried"]}
    assert list(tried) == evidence.predict_top([task], 2)[0].tolist()
    assert tried[result["source"]] == max(tried.values())
    rows = p2l(*tune)[1].splitlines()
    assert rows[1].split(maxsplit=2) == ["chosen", "by", "all evidence"]
    assert rows[2].split()[:2] == ["tried", [*tried][0]]


def test_trials_that_were_interrupted_write_nothing(p2l, folders, tmp_path, startable):
    model = tmp_path / "model.safetensors"
    tune = ["tune", folders, "--output", model, "--catalog", startable, "--try", "2"]
    with patch.object(NetworkClassifier, "score", side_effect=KeyboardInterrupt):
        assert p2l(*tune, *TRAINING)[0] == 130
    assert not model.exists()


@pytest.mark.parametrize("command", ["rank", "embed"])
def test_the_parts_of_a_split_are_not_one_dataset(p2l, folders, tmp_path, command):
    for part in ("train", "test"):
        shutil.copytree(folders, tmp_path / part)
    refused = p2l(command, tmp_path)
    assert_refused(refused, "got the parts of a split", str(tmp_path / "train"))


def test_rank_leaves_the_dataset_itself_out(p2l, zoo, folders, tmp_path):
    rank = ["rank", folders / "dark", zoo, "--quiet", "--format", "json"]
    ranking = json.loads(p2l(*rank, "--k", -5)[1])["ranking"]
    assert ranking[0]["source"] == "dark"
    ranking = json.loads(p2l(*rank, "--exclude-self")[1])["ranking"]
    assert {row["source"] for row in ranking} == {"blue", "light"}
    SourceCatalog.load(zoo)[["dark"]].save(tmp_path / "dark")
    rank[2] = tmp_path / "dark"
    assert_refused(p2l(*rank, "--exclude-self"), "no source for dark")


def test_only_results_reach_stdout(p2l, folders, monkeypatch):
    open_network = networks.open_network

    def noisy(*args, **kwargs):
        print("Downloading: weights")
        return open_network(*args, **kwargs)

    monkeypatch.setattr(networks, "open_network", noisy)
    code, out, err = p2l("embed", folders / "red", *NETWORK, "--quiet")
    assert code == 0
    assert [json.loads(line)["name"] for line in out.splitlines()] == ["red"]
    assert err == "Downloading: weights\n"


def test_k_is_finite_and_mostly_negative(p2l, zoo, folders):
    rank = ["rank", folders / "red", zoo, "--quiet"]
    code, out, err = p2l(*rank, "--k", 2)
    assert code == 0
    assert out.startswith("sources for red (equation 2, k = 2, kl)")
    assert err.startswith("p2l: warning: --k 2 prefers distant sources")
    assert err.count("\n") == 1
    for k in ("nan", "inf", "-inf"):
        assert_refused(p2l(*rank, f"--k={k}"), "--k must be a finite number", k)


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


@pytest.fixture(scope="module")
def evident(folders, trained, tmp_path_factory):
    """A catalog with checkpoints and class means, made by the command line."""
    catalog = str(tmp_path_factory.mktemp("evident") / "catalog")
    classes = tmp_path_factory.mktemp("classes")
    for name, parts in [("dim", ("blue", "dark")), ("warm", ("light", "red"))]:
        (classes / name).mkdir()
        for part in parts:
            (classes / name / part).symlink_to(folders / part)
        add = ["catalog", "add", catalog, name, str(classes / name), "--quiet"]
        assert main([*add, "--checkpoint", str(trained), *NETWORK]) == 0
    return catalog


def test_rank_by_evidence_agrees_with_the_selector(p2l, evident, folders):
    catalog = SourceCatalog.load(evident)
    assert [m.shape for m in catalog.class_means] == [(2, 64)] * 2
    rank = ["rank", folders, evident, "--evidence", "--quiet"]
    result = json.loads(p2l(*rank, "--format", "json")[1])
    embedder = DatasetEmbedder(
        "small_resnet",
        weights=None,
        image_size=16,
        random_state=0,
        class_means=True,
    )
    task = Task.from_folder(folders)
    selector = EvidenceSelector(catalog, embedder=embedder).fit([task])
    assert result["weights"] == selector.weights_
    assert list(result["weights"]) == [
        *("size", "kl", "separability", "logme", "probe", "knn")
    ]
    assert [r["source"] for r in result["ranking"]] == list(selector.predict([task])[0])
    assert result["try_first"] == 2 and "p_best_among_them" not in result
    code, out, err = p2l(*rank)
    assert code == 0 and not err
    _, header, *_, advice = out.splitlines()
    assert "separability" in header and "p best" not in header
    assert advice.startswith("try the first 2; how sure this is")


def test_rank_by_evidence_with_measured_improvements(p2l, evident, folders, tmp_path):
    lines = ["target,dim,warm"]
    targets = []
    for name, classes in [("t0", "blue light"), ("t1", "dark red"), ("t2", "blue red")]:
        for part in classes.split():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / part).symlink_to(folders / part)
        targets.append(tmp_path / name)
        lines.append(f"{name},0.1,0.3")
    csv_file = tmp_path / "improvements.csv"
    csv_file.write_text("\n".join(lines))
    measured = ["--improvements", csv_file, "--targets", *targets[::-1]]
    rank = ["rank", folders, evident, "--evidence", "--quiet"]
    code, out, _ = p2l(*rank, *measured)
    assert code == 0
    _, header, first, *_, best, gain = out.splitlines()
    assert "p best" in header and "prior" in header and "warm" in first
    assert "the best is" in best or best.startswith("take the first")
    assert "better than no transfer with a chance of" in gain
    result = json.loads(p2l(*rank, *measured, "--format", "json", "--top", "1")[1])
    assert 0.8 <= result["p_best_among_them"] <= 1
    assert 0.9 < result["p_first_beats_no_transfer"] <= 1
    assert [row["source"] for row in result["ranking"]] == ["warm"]
    # Of sources that stay closed too little is known for chances.
    opened = json.loads(p2l(*rank, *measured, "--format", "json", "--opened", "1")[1])
    assert "p_best_among_them" not in opened and opened["try_first"] == 2
    (tmp_path / "other" / "t0").mkdir(parents=True)
    refused = p2l(*rank, *measured, tmp_path / "other" / "t0")
    assert_refused(refused, "--targets must be folders of different names")
    refused = p2l(*rank, "--improvements", csv_file, "--targets", targets[0])
    assert_refused(refused, "--targets must name the folder of every row", "t1, t2")


def test_rank_by_evidence_of_what_is_there(p2l, evident, folders, tmp_path):
    """A source that is the dataset; files that cannot be read."""
    for part in ("blue", "dark"):
        (tmp_path / "dim" / part).mkdir(parents=True)
        for image in (folders / part).iterdir():
            (tmp_path / "dim" / part / image.name).write_bytes(image.read_bytes())
    rank = ["rank", tmp_path / "dim", evident, "--evidence", "--quiet"]
    out = json.loads(p2l(*rank, "--exclude-self", "--format", "json")[1])
    assert [row["source"] for row in out["ranking"]] == ["warm"]
    SourceCatalog.load(evident)[["dim"]].save(tmp_path / "only")
    rank[2] = tmp_path / "only"
    assert_refused(p2l(*rank, "--exclude-self"), "--exclude-self leaves no source")
    rank[2] = evident
    result = json.loads(p2l(*rank, "--skip-unreadable", "--format", "json")[1])
    assert list(result["weights"]) == ["size", "kl", "logme", "probe", "knn"]


def test_options_of_the_evidence(p2l, evident, folders, broken):
    rank = ["rank", broken, evident]
    assert_refused(p2l(*rank, "--opened", "1"), "--opened must be given only with")
    assert_refused(p2l(*rank, "--evidence", "--k", "-1"), "--k must be given only with")
    assert_refused(p2l(*rank, "--evidence", "--targets", "x"), "--improvements")
    assert_refused(p2l(*rank, "--evidence"), "subfolder of its class")


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
    assert f"(equation 2, k = {expected.k_:.6g}, kl)" in ranked
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


def test_another_network_is_refused_before_images_are_read(p2l, zoo, broken):
    for command in (["rank", broken, zoo], ["catalog", "add", zoo, "new", broken]):
        result = p2l(*command, "--random-state", 1)
        assert_refused(result, "same reference network")


def test_signed_features_are_told_or_refused(p2l, tmp_path, folders, broken):
    signed = [*NETWORK, "--quiet", "--layer", "body.5.bn2"]
    assert "have a sign" in p2l("embed", folders / "red", *signed)[2]
    add = ["catalog", "add", tmp_path / "zoo", "red", folders / "red"]
    assert p2l(*add, *signed)[0] == 0
    rank = ["rank", broken, tmp_path / "zoo", "--quiet"]
    assert_refused(p2l(*rank), "must be non-negative for metric='kl'")
    near = [folders / "blue", tmp_path / "zoo", "--quiet", "--metric", "cityblock"]
    assert p2l("rank", *near)[::2] == (0, "")
    # Also where the vectors of the catalog happen to have no negative number.
    source = SourceCatalog.load(tmp_path / "zoo")["red"]
    source = dataclasses.replace(source, embedding=np.abs(source.embedding))
    SourceCatalog([source]).save(tmp_path / "zoo")
    assert_refused(p2l(*rank), "have a sign", "--metric must be cityblock")


def test_bad_input_is_one_line_and_exit_code_2(p2l, zoo, folders, tmp_path, rng):
    assert_refused(p2l("rank", folders / "red", tmp_path / "none"), "nothing is there")
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
    catalog = [f"catalog {action}" for action in ("add", "list", "show", "remove")]
    for command in ("embed", *catalog, "rank", "learn-k", "tune"):
        code, out, _ = p2l(*command.split(), "--help")
        assert code == 0
        assert f"usage: p2l {command}" in out


@pytest.mark.parametrize(
    "command, words",
    [
        ("", ["COMMAND", "see p2l --help"]),
        ("rate", ["'rate'", "see p2l --help"]),
        ("rank --top 3", ["DATASET", "see p2l rank --help"]),
        ("rank a b --top few", ["--top", "'few'", "see p2l rank --help"]),
        ("catalog remove zoo", ["NAME", "see p2l catalog remove --help"]),
        ("embed a --max-samples few", ["auto or none, got 'few'"]),
        ("tune a", ["--output", "see p2l tune --help"]),
        ("tune a --output b --epochs 0", ["--epochs", "from 1, got '0'"]),
        ("tune a --output b --learning-rate inf", ["--learning-rate", "above 0"]),
        ("tune a --output b --test-size 1", ["--test-size", "between 0 and 1"]),
        ("tune a --output b --test-size 0.5 --test c", ["not allowed with"]),
    ],
)
def test_wrong_arguments_are_told_in_one_line(p2l, command, words):
    assert_refused(p2l(*command.split()), *words)


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


def test_tune_trains_a_model_that_serves_as_a_checkpoint(p2l, tmp_path, folders):
    model = tmp_path / "model.safetensors"
    tune = ["tune", folders, "--output", model, *SCRATCH, "--test-size", 0.25]
    code, out, err = p2l(*tune, "--format", "json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    classes = ["blue", "dark", "light", "red"]
    assert result["source"] is None
    assert result["architecture"] == "small_resnet"
    assert result["weights"] is None
    assert (result["n_train"], result["n_test"]) == (13, 5)
    assert result["classes"] == classes
    assert result["file"] == str(model)
    assert 0 <= result["score"] <= 1
    metadata = networks.checkpoint_metadata(model)
    assert metadata["architecture"] == "small_resnet"
    assert metadata["image_size"] == "16"
    assert json.loads(metadata["classes"]) == classes

    _, table, _ = p2l(*tune)
    rows = dict(line.split("  ", 1) for line in table.splitlines())
    assert rows["classes"].strip() == "4: blue, dark, light, red"
    # The same seed gives the same model.
    assert rows["accuracy on the test images"].strip() == f"{result['score']:.3f}"

    add = ["catalog", "add", tmp_path / "zoo", "mine", folders, *NETWORK]
    assert p2l(*add, "--checkpoint", model)[0] == 0
    source = SourceCatalog.load(tmp_path / "zoo")["mine"]
    assert (source.architecture, source.n_classes) == ("small_resnet", 4)
    again = NetworkClassifier(str(model), epochs=1).fit(folders)
    assert (again.backbone_, again.image_size_) == ("small_resnet", 16)
    tuned = p2l("tune", folders, "--backbone", model, "--output", model, *TRAINING)
    assert f"{model}" in tuned[1]


def test_predict_uses_what_tune_has_written(p2l, tmp_path, folders):
    model = tmp_path / "model.safetensors"
    p2l("tune", folders, "--output", model, *SCRATCH)
    code, out, err = p2l("predict", model, folders / "red", folders / "dark")
    assert (code, err) == (0, "")
    header, *lines = out.splitlines()
    assert header.split() == ["file", "class", "probability"]
    classifier = NetworkClassifier.from_checkpoint(model)
    files = [
        *sorted((folders / "red").iterdir()),
        *sorted((folders / "dark").iterdir()),
    ]
    P = classifier.predict_proba(files)
    expected = zip(files, classifier.classes_[P.argmax(axis=1)], P.max(axis=1))
    assert [line.split() for line in lines] == [
        [str(file), label, f"{p:.3f}"] for file, label, p in expected
    ]
    code, out, _ = p2l("predict", model, files[0], "--format", "json")
    record = json.loads(out)
    assert record["file"] == str(files[0]) and record["class"] == lines[0].split()[1]
    assert record["probability"] == pytest.approx(P[0].max())
    assert_refused(p2l("predict", model, tmp_path / "nothing"), "nothing there")
    assert_refused(
        p2l("predict", tmp_path / "no.safetensors", folders), "must be a file"
    )


def test_tune_scores_on_a_given_test_part(p2l, tmp_path, folders):
    model = tmp_path / "model.safetensors"
    tune = ["tune", folders, "--test", folders, "--output", model, *SCRATCH]
    result = json.loads(p2l(*tune, "--format", "json")[1])
    assert (result["n_train"], result["n_test"]) == (18, 18)
    classifier = NetworkClassifier(image_size=16, epochs=12, random_state=0)
    task = Task.from_folder(folders)
    assert result["score"] == classifier.fit(task).score(task.X, task.y)


def test_tune_starts_from_the_best_source_with_a_checkpoint(
    p2l, tmp_path, folders, startable, trained
):
    model = tmp_path / "model.safetensors"
    tune = ["tune", folders, "--output", model, *TRAINING, "--format", "json"]
    tune += ["--catalog", startable, "--test", folders]
    ranking = p2l("rank", folders, startable, "--format", "json", "--quiet")[1]
    ranking = [row["source"] for row in json.loads(ranking)["ranking"]]
    assert ranking[0] == "dark"  # which has none
    code, out, err = p2l(*tune)
    assert code == 0
    result = json.loads(out)
    assert result["source"] == ranking[1]
    assert result["weights"] == str(trained)
    assert err.startswith("p2l: warning: ")
    assert "'dark'" in err
    assert err.count("\n") == 1
    for name in ("blue", "light"):
        code, out, err = p2l(*tune, "--source", name)
        assert (code, err) == (0, "")
        assert json.loads(out)["source"] == name
        assert json.loads(out)["architecture"] == "small_resnet"


def test_tune_tells_what_it_trains(p2l, tmp_path, folders, startable):
    options = ["--output", tmp_path / "model.safetensors", *TRAINING[:-1]]
    options += ["--catalog", startable, "--source", "blue"]
    _, out, err = p2l("tune", folders, *options)
    assert err.startswith("p2l: training small_resnet from blue\n")
    assert out.splitlines()[0].split() == ["source", "blue"]


@pytest.mark.parametrize(
    "options, words",
    [
        (["--output", "model.pt"], ["end in .safetensors", "model.pt"]),
        (["--output", "no/model.safetensors"], ["--output must lie in a folder"]),
        (["--output", "{trained}", "--catalog", "{startable}"], ["checkpoint of"]),
        (["--source", "blue"], ["the zoo has no source 'blue'"]),
        ([*SCRATCH, "--source", "blue"], ["--source must be given only with"]),
        (["--source", "photos", "--try", "2"], ["--try must be given only with"]),
        ([*SCRATCH, "--evidence"], ["--evidence must be given only with --catalog"]),
        (["--evidence", "--k", "-2"], ["--k must be given only without --evidence"]),
        ([*SCRATCH, "--k", "-2"], ["--k must be given only with --catalog"]),
        (["--catalog", "{startable}", "--backbone", "vgg16"], ["--backbone"]),
        (["--catalog", "{startable}", "--weights", "none"], ["--weights"]),
        (["--catalog", "{startable}", "--source", "blue", "--k", "-2"], ["--k"]),
        (["--catalog", "{startable}", "--source", "green"], ["green", "blue, dark"]),
        (["--catalog", "{startable}", "--source", "dark"], ["'dark'", "checkpoint"]),
        (["--catalog", "{startable}", "--k", "nan"], ["--k must be a finite"]),
        (["--catalog", "{zoo}"], ["a source with a checkpoint"]),
        (["--catalog", "nowhere"], ["nowhere"]),
        (["--test-size", "0.01"], ["test_size must leave images of each class"]),
        (["--test", "nowhere"], ["nowhere"]),
        (["--test", "{folders}/red"], ["subfolder of its class"]),
    ],
)
def test_tune_refuses_before_it_embeds_or_trains(
    p2l, tmp_path, monkeypatch, folders, zoo, startable, trained, options, words
):
    def late(*args, **kwargs):
        raise AssertionError("too late")

    monkeypatch.setattr(NetworkClassifier, "fit", late)
    monkeypatch.setattr(DatasetEmbedder, "fit", late)
    monkeypatch.chdir(tmp_path)
    paths = {"folders": folders, "zoo": zoo, "startable": startable, "trained": trained}
    options = [option.format(**paths) for option in options]
    if "--output" not in options:
        options += ["--output", "model.safetensors"]
    assert_refused(p2l("tune", folders, *options), *words)
    assert list(tmp_path.iterdir()) == []


def test_tune_needs_class_folders_and_a_network_that_is_known(p2l, tmp_path, folders):
    options = ["--output", tmp_path / "model.safetensors", *SCRATCH]
    assert_refused(p2l("tune", tmp_path / "none", *options), "none")
    assert_refused(p2l("tune", folders / "red", *options), "subfolder of its class")
    options[options.index("small_resnet")] = "resnet99"
    unknown = p2l("tune", folders, *options)
    assert_refused(unknown, "backbone must be", "resnet99")


def test_an_interrupted_training_writes_nothing(p2l, tmp_path, folders, monkeypatch):
    train = networks.train

    def interrupted(*args, **kwargs):
        return dataclasses.replace(train(*args, **kwargs), interrupted=True)

    monkeypatch.setattr(networks, "train", interrupted)
    options = ["--output", tmp_path / "model.safetensors", *SCRATCH]
    assert p2l("tune", folders, *options) == (130, "", "p2l: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_test_part_that_cannot_be_read_costs_no_model(p2l, tmp_path, folders):
    (tmp_path / "test" / "red").mkdir(parents=True)
    (tmp_path / "test" / "red" / "a.png").write_bytes(b"no image")
    model = tmp_path / "model.safetensors"
    options = ["--test", tmp_path / "test", "--output", model, *SCRATCH]
    refused = p2l("tune", folders, *options)
    assert_refused(refused, f"was written to {model}", "a.png")
    assert "classes" in networks.checkpoint_metadata(model)
