"""How sure a ranking is: draws of improvements, as training targets teach them."""

import numpy as np
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sklearn_p2l.selection._weights import shares_of_best


def _learned(selector):
    if selector.weights != "learned":
        raise AttributeError(
            "how sure a ranking is can be told only for weights='learned', which "
            f"learns it from measured improvements, got weights={selector.weights!r}."
        )
    return True


class ChancesMixin:
    """Mixin of a ranker that has learned weights, and what they leave unexplained.

    It has `weights`, `noise_` and `spread_`; `_learned`, of which draws are made;
    `_levels`, the mean and the standard deviation of the improvements of each training
    target; `_some_stay_closed`, whether not all of its sources are opened; and the
    methods `_check_targets` and `_standardised`.
    """

    @available_if(_learned)
    def predict_proba(self, X):
        """Compute the chance of each source to be the best of all.

        Parameters
        ----------
        X : sequence of n_targets tasks or datasets, or array-like of shape \
                (n_targets, n_features)
            As in `fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_targets, n_sources)
            Rows sum to 1: the share of draws of the weights and of what they leave
            unexplained, in which the source's improvement is the largest.
        """
        check_is_fitted(self)
        return np.array([shares_of_best(draws) for draws in self._draws(X)])

    @available_if(_learned)
    def expected_regret(self, X):
        """Compute how much improvement each source is expected to fall behind the best.

        Parameters
        ----------
        X : sequence of n_targets tasks or datasets, or array-like of shape \
                (n_targets, n_features)
            As in `fit`.

        Returns
        -------
        regret : ndarray of shape (n_targets, n_sources)
            At least 0, in the unit of the improvements that were measured; inf of a
            source that is no candidate.
        """
        check_is_fitted(self)
        behind = []
        for draws in self._draws(X):
            row, known = np.full(draws.shape[1], np.inf), ~np.isneginf(draws[0])
            if known.any():
                best = draws.max(axis=1, keepdims=True)
                row[known] = (best - draws[:, known]).mean(axis=0) * self.spread_
            behind.append(row)
        return np.array(behind)

    @available_if(_learned)
    def transfer_proba(self, X):
        """Compute the chance of each source to be better than no transfer.

        Where it is below one half for the first of a ranking, what improvements were
        measured against, such as random weights, is the better bet.

        Parameters
        ----------
        X : sequence of n_targets tasks or datasets, or array-like of shape \
                (n_targets, n_features)
            As in `fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_targets, n_sources)
            The share of draws in which the source's improvement is above 0. How much a
            target gains from its sources in the mean, and how much these differ, is
            drawn from the training targets.
        """
        check_is_fitted(self)
        return np.array(
            [(d > self._zeros(len(d))).mean(axis=0) for d in self._draws(X)]
        )

    def _zeros(self, n_draws):
        """Draws of the z-score of an improvement of 0, (n_draws, 1)."""
        if not len(self._levels):  # nothing was measured
            return np.zeros((n_draws, 1))
        rows = np.random.default_rng(0).integers(len(self._levels), size=n_draws)
        mean, spread = self._levels[rows].T
        return (-mean / spread)[:, np.newaxis]

    def _score_of_no_transfer(self):
        """The E at which a source is as likely better as worse than no transfer."""
        noise = self._learned.draw(np.zeros((len(self._learned.values), 1)))
        return float(np.median(self._zeros(len(noise)) - noise))

    def _draws(self, X):
        """Draws of z-scored improvements, (n_draws, n_sources), target by target."""
        if not hasattr(self, "noise_"):
            raise ValueError(
                "how sure a ranking is can be told only where fit was given measured "
                "improvements, got none; pass y to fit."
            )
        if self._some_stay_closed:
            raise ValueError(
                "n_opened must be None to tell how sure a ranking is, got "
                f"{self.n_opened}: of sources that stay closed less is known than of "
                "those that weights were learned from."
            )
        targets = self._check_targets(X)
        z, _, candidates_of = self._standardised(targets)
        of_targets = np.array(list(z.values())).swapaxes(0, 1)
        for signals, candidates in zip(of_targets, candidates_of):
            yield np.where(candidates, self._learned.draw(signals), -np.inf)
