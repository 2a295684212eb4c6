"""scikit-learn's own checks."""

import numpy as np
import pytest
from sklearn.utils import estimator_checks as checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_p2l import DatasetEmbedder, FineTuner, SourceSelector
from sklearn_p2l.baselines import (
    ConstantRanking,
    FixedSource,
    LargestSource,
    NearestSource,
    NoTransfer,
    RandomSource,
)


@parametrize_with_checks(
    [
        SourceSelector(metric="euclidean", k=-1.0),
        LargestSource(),
        FixedSource(),
        RandomSource(random_state=0),
        NearestSource(metric="euclidean"),
    ]
)
def test_sklearn_checks(estimator, check):
    check(estimator)


ESTIMATORS = [
    DatasetEmbedder("small_resnet", weights=None),
    FineTuner(source=None, backbone="small_resnet"),
    SourceSelector(),
    NoTransfer(),
    ConstantRanking(),
]
# The checks that need no data: the embedder and the tuner take images, not tables.
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
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_checks_without_data(estimator, check):
    check(type(estimator).__name__, estimator)


@pytest.mark.parametrize(
    "estimator, name",
    [
        (estimator, name)
        for estimator in ESTIMATORS
        for name in ("metric", "backbone", "sources", "epochs", "summary")
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
    embedder = DatasetEmbedder("small_resnet", weights=None, image_size=16)
    embedder.fit([np.zeros((5, 16, 16), np.uint8)])
    assert not hasattr(embedder, "n_features_in_")
