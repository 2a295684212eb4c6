"""The loss of samples, each with a weight."""

import numpy as np
import torch
from torch import nn


class Loss:
    """The mean loss of some of the samples, weighted.

    Parameters
    ----------
    targets : ndarray
        Class indices (n,), for the cross-entropy, or an indicator (n, n_labels), for
        the sum of the cross-entropies of all labels.

    weight : ndarray of shape (n,) or None
        Weights of the samples; None for equal ones.

    device : torch.device
        Where logits are.
    """

    def __init__(
        self, targets: np.ndarray, weight: np.ndarray | None, device: torch.device
    ):
        self.multilabel = targets.ndim == 2
        dtype = np.float32 if self.multilabel else np.int64
        self.targets = torch.from_numpy(targets.astype(dtype))
        self.weight = None if weight is None else torch.tensor(weight).float()
        self.mean_weight = 1.0 if weight is None else self.weight.mean().item()
        self.device = device

    def __call__(self, logits: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        # (n, n_outputs), (n,) -> ()
        wanted = self.targets[indices].to(logits.device)
        if self.multilabel:  # a sum: not the less, the more labels there are
            losses = nn.functional.binary_cross_entropy_with_logits(
                logits, wanted, reduction="none"
            ).sum(dim=1)
        else:
            losses = nn.functional.cross_entropy(logits, wanted, reduction="none")
        if self.weight is None:
            return losses.mean()
        weight = self.weight[indices].to(logits.device)
        return (losses * weight).sum() / weight.sum().clamp_min(1e-12)

    def for_step(self, logits: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """The loss of one step: samples count by their weights, not by their batch's.

        Its mean over the batches of all samples is their weighted mean.
        """
        if self.weight is None:
            return self(logits, indices)
        share = self.count(indices) / len(indices) / self.mean_weight
        return self(logits, indices) * share

    def count(self, indices: torch.Tensor) -> float:
        """How many samples these are, or what they weigh."""
        return (
            len(indices) if self.weight is None else self.weight[indices].sum().item()
        )

    def to_score(self, indices: torch.Tensor, logits: np.ndarray) -> tuple:
        """Targets, logits and weights (or None) of some samples, as arrays."""
        weight = None if self.weight is None else self.weight[indices].numpy()
        return self.targets[indices].numpy().astype(int), logits, weight

    def constant(self, indices: torch.Tensor, n_outputs: int) -> torch.Tensor:
        """The logits (n_outputs,) whose loss is the smallest if all samples get them.

        They stand for the shares of the classes, or of each label.
        """
        targets = self.targets[indices]
        if not self.multilabel:
            targets = nn.functional.one_hot(targets, n_outputs)
        weight = (
            torch.ones(len(indices)) if self.weight is None else self.weight[indices]
        )
        weight = weight.double() / weight.double().sum().clamp_min(1e-12)
        shares = (weight @ targets.double()).clamp(1e-12, 1 - 1e-12)
        return (shares.logit() if self.multilabel else shares.log()).float()
