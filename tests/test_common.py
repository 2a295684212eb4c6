"""scikit-learn's own checks, all of them, with default parameters."""

import numpy as np
import pytest
from sklearn.utils import estimator_checks as checks
from sklearn.utils.estimator_checks import check_estimator

from sklearn_p2l import (
    DatasetEmbedder,
    EvidenceSelector,
    FineTuner,
    NetworkClassifier,
    SourceSelector,
)
from sklearn_p2l.selection import (
    ConstantRanking,
    FixedSource,
    LargestSource,
    NearestSource,
    NoTransfer,
    RandomSource,
)

SQUARE = "y has one column per source; the check passes a single one"
ZERO = "the check draws targets that are all zero, which are no summaries"
NONE = "the ranking begins with None, which the check subtracts"
NEEDS_IMPROVEMENTS = dict.fromkeys(
    [
        "check_dict_unchanged",
        "check_dont_overwrite_parameters",
        "check_dtype_object",
        "check_estimators_dtypes",
        "check_estimators_fit_returns_self",
        "check_estimators_nan_inf",
        "check_estimators_overwrite_params",
        "check_estimators_pickle",
        "check_f_contiguous_array_estimator",
        "check_fit2d_1feature",
        "check_fit2d_predict1d",
        "check_fit_check_is_fitted",
        "check_fit_idempotent",
        "check_fit_score_takes_y",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_n_features_in",
        "check_n_features_in_after_fitting",
        "check_pipeline_consistency",
        "check_readonly_memmap_input",
    ],
    SQUARE,
)
ESTIMATORS = [
    (
        SourceSelector(),
        NEEDS_IMPROVEMENTS
        | {
            "check_fit2d_1feature": ZERO,
            "check_fit2d_1sample": "one target with one source teaches no k",
        },
    ),
    (
        SourceSelector(k=-1.0),
        {
            "check_estimators_dtypes": ZERO,
            "check_fit2d_1feature": ZERO,
            "check_fit_score_takes_y": SQUARE,
            "check_pipeline_consistency": SQUARE,
        },
    ),
    (
        SourceSelector(metric="euclidean", k=-1.0),
        {"check_fit_score_takes_y": SQUARE, "check_pipeline_consistency": SQUARE},
    ),
    (LargestSource(), {}),
    (FixedSource(), {}),
    (RandomSource(), {}),
    (NearestSource(), {"check_estimators_dtypes": ZERO, "check_fit2d_1feature": ZERO}),
    (NearestSource(metric="euclidean"), {}),
    (
        NoTransfer(),
        {
            "check_estimators_pickle": NONE,
            "check_fit_idempotent": NONE,
            "check_methods_sample_order_invariance": NONE,
            "check_methods_subset_invariance": NONE,
        },
    ),
    (
        ConstantRanking(),
        NEEDS_IMPROVEMENTS | {"check_positive_only_tag_during_fit": SQUARE},
    ),
    (EvidenceSelector(), {}),
    # They take images or text, not tables: scikit-learn has few checks for them.
    (DatasetEmbedder(), {}),
    (NetworkClassifier(), {}),
    (FineTuner(), {}),
]


@pytest.mark.filterwarnings("ignore")  # the checks warn of what they cannot check
@pytest.mark.parametrize(
    "estimator, expected",
    ESTIMATORS,
    ids=lambda value: repr(value) if hasattr(value, "fit") else "",
)
def test_all_checks_of_scikit_learn(estimator, expected):
    results = check_estimator(
        estimator, expected_failed_checks=expected, on_skip=None, on_fail="raise"
    )
    failed = {r["check_name"] for r in results if r["status"] == "xfail"}
    assert failed == set(expected)  # a reason that no longer holds is to go
    assert any(r["status"] == "passed" for r in results)


# The checks that need no data.
DATA_FREE = [
    checks.check_estimator_cloneable,
    checks.check_estimator_repr,
    checks.check_estimator_tags_renamed,
    checks.check_valid_tag_types,
    checks.check_mixin_order,
    checks.check_no_attributes_set_in_init,
    checks.check_parameters_default_constructible,
    checks.check_get_params_invariance,
    checks.check_set_params,
]


@pytest.mark.parametrize("check", DATA_FREE, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "estimator",
    [DatasetEmbedder(), EvidenceSelector(), NetworkClassifier(), FineTuner()],
    ids=lambda e: type(e).__name__,
)
def test_checks_without_data(estimator, check):
    check(type(estimator).__name__, estimator)


@pytest.mark.parametrize(
    "estimator, name",
    [
        (estimator, name)
        for estimator in (
            DatasetEmbedder("small_resnet", weights=None),
            NetworkClassifier(),
            FineTuner(),
            SourceSelector(),
            EvidenceSelector(),
            NoTransfer(),
            ConstantRanking(),
        )
        for name in ("metric", "backbone", "sources", "epochs", "summary", "selector")
        if name in estimator.get_params()
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_wrong_types_of_parameters_are_named(estimator, name):
    wrong = type(estimator)(**{**estimator.get_params(deep=False), name: 1.5})
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        wrong.fit([[1.0, 2.0]], [[1.0]])


def test_lists_of_datasets_have_no_width():
    """One row per dataset: the length of the first one is no number of features."""
    embedder = DatasetEmbedder().fit([np.ones((5, 2)), np.ones((3, 2))])
    assert embedder.n_features_out_ == 2
    assert not hasattr(embedder, "n_features_in_")
