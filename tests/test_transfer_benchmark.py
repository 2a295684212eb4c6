"""The transfer benchmark: its tasks are what they claim, its report is computed."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import real_file, real_images

FOLDER = Path(__file__).parents[1] / "benchmarks" / "transfer"


def load(name):
    spec = importlib.util.spec_from_file_location(
        f"transfer_{name}", FOLDER / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_no_image_and_no_group_serves_twice():
    real_file("data", "images", "hand_shapes.npz")
    tasks = load("tasks")
    sources, targets = tasks.load_tasks()
    parts = {
        **{
            f"source {n}": t.images for n, t in sources.items() if n not in tasks.MERGED
        },
        **{f"train {n}": t.images for n, t in targets.items()},
        **{f"test {n}": t.test_images for n, t in targets.items()},
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
    sizes = [len(task.labels) for task in sources.values()]
    assert len(sources) >= 10 and max(sizes) / min(sizes) > 10**1.5
    assert len(targets) >= 10
    assert all(100 <= len(task.labels) <= 500 for task in targets.values())
    for task in targets.values():
        assert set(task.labels) == set(task.test_labels)


@pytest.mark.slow
def test_report_is_what_the_tables_give(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    evaluate = load("evaluate")
    monkeypatch.setattr(evaluate, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(evaluate, "FIGURES", tmp_path)
    monkeypatch.setattr(evaluate, "HERE", tmp_path)
    monkeypatch.setattr(evaluate, "DATA", tmp_path / "absent")
    (tmp_path / "results").mkdir()
    for name in ("measured", "targets", "sources", "divergences"):
        text = (FOLDER / "results" / f"{name}.csv").read_text()
        (tmp_path / "results" / f"{name}.csv").write_text(text)
    evaluate.main()
    number = re.compile(r"-?\d+\.\d+|-?inf")
    computed = (tmp_path / "RESULTS.md").read_text()
    committed = (FOLDER / "RESULTS.md").read_text()
    committed = committed[: committed.find("\n\n## Transfer matrices of others")] + "\n"
    assert number.sub("x", computed) == number.sub("x", committed)
    np.testing.assert_allclose(
        [float(n) for n in number.findall(computed)],
        [float(n) for n in number.findall(committed)],
        atol=0.0021,
    )
    assert len(list(tmp_path.glob("figure*.png"))) == 6
