"""Benchmarks: their tasks are what they claim, their reports are computed."""

import importlib.util
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import real_file, real_images
from numpy.testing import assert_allclose

from sklearn_p2l.datasets import load_transfer_results
from sklearn_p2l.divergence import pairwise_divergence

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(benchmark, name):
    spec = importlib.util.spec_from_file_location(
        f"{benchmark}_{name}", BENCHMARKS / benchmark / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_no_image_and_no_group_serves_twice():
    real_file("data", "images", "hand_shapes.npz")
    tasks = load("transfer", "tasks")
    sources, targets = tasks.load_tasks()
    parts = {
        **{f"source {n}": t.X for n, t in sources.items() if n not in tasks.MERGED},
        **{f"train {n}": t.X for n, t in targets.items()},
        **{f"test {n}": t.X_test for n, t in targets.items()},
    }
    keys = {name: [i.tobytes() for i in images] for name, images in parts.items()}
    everything = [key for part in keys.values() for key in part]
    assert len(set(everything)) == len(everything)
    group_of = {}
    for name in ("hand_shapes", "gtsrb"):
        images, _, groups = real_images(name)
        group_of |= {i.tobytes(): (name, g) for i, g in zip(images, groups)}
    owner = {}
    for name, part in keys.items():
        for group in {group_of[key] for key in part if key in group_of}:
            assert owner.setdefault(group, name) == name
    assert len(owner) > 500
    sizes = [len(task) for task in sources.values()]
    assert len(sources) >= 10 and max(sizes) / min(sizes) > 10**1.5
    assert len(targets) >= 10
    assert all(100 <= len(task) <= 500 for task in targets.values())
    for task in targets.values():
        assert set(task.y) == set(task.y_test)


@pytest.mark.slow
@pytest.mark.parametrize("benchmark, n_figures", [("transfer", 14), ("relations", 5)])
def test_report_is_what_the_tables_give(benchmark, n_figures, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    evaluate, folder = load(benchmark, "evaluate"), BENCHMARKS / benchmark
    monkeypatch.setattr(evaluate, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(evaluate, "FIGURES", tmp_path)
    monkeypatch.setattr(evaluate, "HERE", tmp_path)
    monkeypatch.setattr(evaluate, "DATA", tmp_path / "absent", raising=False)
    shutil.copytree(folder / "results", tmp_path / "results")
    evaluate.main()
    number = re.compile(r"-?\d+\.\d+|-?inf")
    computed = (tmp_path / "RESULTS.md").read_text()
    committed = (folder / "RESULTS.md").read_text()
    committed = re.split("\n\n#+ Transfer matrices of others", committed)[0].rstrip()
    assert number.sub("x", computed.rstrip()) == number.sub("x", committed)
    np.testing.assert_allclose(
        [float(n) for n in number.findall(computed)],
        [float(n) for n in number.findall(committed)],
        atol=0.0021,
    )
    assert len(list(tmp_path.rglob("*.png"))) == n_figures


@pytest.mark.slow
def test_relation_sources_never_see_the_text_of_a_target():
    real_file("data", "relations", "contexts.tsv.gz")
    tasks = load("relations", "tasks")
    sources, targets = tasks.load_tasks()
    seen = {}
    for name, target in targets.items():
        source = sources[name]
        parts = {"source": source.X, "target": target.X, "test": target.X_test}
        for part, bags in parts.items():
            for bag in bags:
                for context in bag.contexts:
                    for key in (context.text.lower(), tasks.document(context)):
                        assert seen.setdefault(key, part) == part
        counts = [source.y.sum(axis=0), target.y.sum(axis=0), target.y_test.sum(axis=0)]
        assert counts[1].max() < 100 <= counts[0].max()
        assert all((count > 0).all() for count in counts)
        n_negatives = (~target.y.any(axis=1)).sum()
        assert n_negatives == 10 * len(tasks.positives(target.X, target.y)), name
    assert len(seen) > 50_000


def test_tables_of_training_are_those_of_the_records(tmp_path, monkeypatch):
    report = load("training", "report")
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    report.main()
    names = {path.name for path in tmp_path.iterdir()}
    assert {"targets.csv", "recipes.csv", "ingredients.csv"} <= names
    for name in names:
        committed = BENCHMARKS / "training" / "results" / name
        assert (tmp_path / name).read_text() == committed.read_text()


@pytest.mark.slow
def test_targets_of_training_share_nothing_with_their_test_parts():
    real_file("data", "images", "hand_shapes.npz")
    tasks = load("training", "tasks")
    names = [*tasks.CHOSEN_ON, *tasks.JUDGED_ON]
    assert len(tasks.JUDGED_ON) >= 5 and not set(tasks.CHOSEN_ON) & set(tasks.JUDGED_ON)
    group_of = {}
    for dataset in ("hand_shapes", "gtsrb"):
        images, _, groups = real_images(dataset)
        group_of |= {i.tobytes(): (dataset, g) for i, g in zip(images, groups)}
    source = {i.tobytes() for i in tasks.load_source()[0]}
    for name in names:
        task = tasks.load_target(name)
        assert 60 <= len(task) <= 500 and len(task.y_test) >= 300
        train, test = ({i.tobytes() for i in part} for part in (task.X, task.X_test))
        assert not train & test and not train & source
        groups = [
            {group_of[key] for key in part if key in group_of} for part in (train, test)
        ]
        assert not groups[0] & groups[1]


def test_pages_hold_the_measured_tables():
    spec = importlib.util.spec_from_file_location("page", BENCHMARKS / "page.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    readme = (BENCHMARKS.parent / "README.md").read_text(encoding="utf-8")
    assert "front.csv" in readme and readme == page.fill(readme)
    text = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert text == page.fill(text)
    tables = set(re.findall(r"<!-- (\S+\.csv) -->", text))
    measured = {
        str(path.relative_to(BENCHMARKS))
        for folder in ("embedding", "selection", "training")
        for path in (BENCHMARKS / folder / "results").glob("*.csv")
    }
    assert tables == measured


def test_packaged_results_are_those_of_the_benchmark():
    results, tables = load_transfer_results(), BENCHMARKS / "transfer" / "results"
    sources = pd.read_csv(tables / "sources.csv").query("source != 'imagenet'")
    names = sources["source"].tolist()
    assert list(results.sources.names) == names
    assert results.sources.sizes.tolist() == sources["size"].tolist()
    n_classes = [source.n_classes for source in results.sources]
    assert n_classes == sources["n_classes"].tolist()
    targets = pd.read_csv(tables / "targets.csv")
    assert results.target_names == targets["target"].tolist()
    assert results.target_sizes.tolist() == targets["n_train"].tolist()
    assert results.training.tolist() == (targets["group"] == "training").tolist()
    records = pd.read_csv(tables / "measured.csv", keep_default_na=False)
    records = records.query("zoo == 'A' and recipe == 'default'")
    means = records.groupby(["target", "source"])["performance"].mean().unstack()
    means = means.loc[results.target_names]
    assert_allclose(results.baseline, means["none"], atol=1e-9)
    performance = results.improvements + results.baseline[:, None]
    assert_allclose(performance, means[names], atol=1e-9)
    divergences = pd.read_csv(tables / "divergences.csv")
    divergences = divergences.query(
        "reference == 'squeezenet' and image_size == 224 and summary == 'mean'"
    )
    for metric, table in divergences.groupby("metric"):
        D = pairwise_divergence(
            results.vectors, results.sources.embeddings, metric=metric
        )
        expected = table.set_index("target").loc[results.target_names, names]
        assert_allclose(D, expected, rtol=1e-5)
    assert results.vectors.fingerprint == results.sources.fingerprint
