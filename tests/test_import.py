"""Ranking needs no torch."""

import joblib
import numpy as np
from conftest import run_without_torch

from sklearn_p2l import SourceCatalog, SourceSelector


def test_every_public_name_is_there_without_torch():
    result = run_without_torch(
        """
        import sklearn_p2l
        import sklearn_p2l.catalog, sklearn_p2l.datasets, sklearn_p2l.divergence
        import sklearn_p2l.selection, sklearn_p2l.evaluation, sklearn_p2l.ground_truth
        import sklearn_p2l.metrics, sklearn_p2l.plotting

        for name in sklearn_p2l.__all__:
            getattr(sklearn_p2l, name)
        sklearn_p2l.FineTuner(), sklearn_p2l.DatasetEmbedder(), print("ok")
        """
    )
    assert result.stdout == "ok\n", result.stderr


def test_the_refusal_refuses():
    assert "refused here" in run_without_torch("import sklearn_p2l.networks").stderr


def test_a_loaded_selector_ranks_without_torch(tmp_path):
    rng = np.random.default_rng(0)
    catalog = SourceCatalog.from_arrays(
        rng.random((6, 512)), sizes=range(10, 70, 10), names=list("abcdef")
    )
    X = rng.random((3, 512))
    selector = SourceSelector(catalog, k=-0.5).fit(X)
    joblib.dump(selector, tmp_path / "selector.joblib")
    np.save(tmp_path / "X.npy", X)
    result = run_without_torch(
        """
        import joblib, numpy as np

        selector = joblib.load(sys.argv[1])
        for row in selector.predict(np.load(sys.argv[2])):
            print(*row)
        assert not any(name.split(".")[0] == "torch" for name in sys.modules)
        """,
        tmp_path / "selector.joblib",
        tmp_path / "X.npy",
    )
    expected = "\n".join(" ".join(row) for row in selector.predict(X)) + "\n"
    assert result.stdout == expected, result.stderr
