"""Warnings by what they are about, to be filtered by their category."""

__all__ = [
    "FailedCellsWarning",
    "LearnedWeightWarning",
    "SignedFeaturesWarning",
    "SkippedSamplesWarning",
    "SkippedSourcesWarning",
    "TiedRankingWarning",
]


class FailedCellsWarning(UserWarning):
    """Trainings of a ground truth failed, and their cells are left out."""


class LearnedWeightWarning(UserWarning):
    """A weight was learned that little speaks for: without bound, or of a wrong sign.

    Or targets took no part in learning it.
    """


class SignedFeaturesWarning(UserWarning):
    """A reference network's features have a sign, which some divergences refuse."""


class SkippedSamplesWarning(UserWarning):
    """Samples of a dataset could not be used and were skipped."""


class SkippedSourcesWarning(UserWarning):
    """Networks of sources could not be opened or used, and are no candidates."""


class TiedRankingWarning(UserWarning):
    """Several sources share the highest score, so that the pick is arbitrary."""
