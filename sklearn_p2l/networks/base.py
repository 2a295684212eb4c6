"""The small contract that every network here keeps."""

import numpy as np
import torch
from torch import nn

from sklearn_p2l.networks.devices import seeded


class Network(nn.Module):
    """A classifier whose last layer can be replaced.

    Calling a network on a batch gives logits (n, num_classes). Subclasses also have:

    - ``takes``: the kind of samples, "images" or "bags";
    - ``metadata``: all that is needed beside the weights to build it again, as str;
    - ``preprocessing``: how samples become its input, to be printed into a fingerprint;
    - ``image_size``: the side of its images, or None;
    - ``preprocess(samples)``: a batch on the CPU, with ``len`` and ``to(device)``;
    - ``read(dataset, batch_size, ahead=False)``: an iterator over preprocessed batches,
      which may read the next one while the caller works on one;
    - ``prepare(batches, n_samples)``: all these batches as one, with ``[indices]``;
    - ``forward_features(batch)``: the responses of ``layer``, (n, num_features);
    - ``features_hash()``: a hash of the weights that the features depend on;
    - ``check()``: learns `num_features`, or says why the network cannot be used.
    """

    def __init__(self, model: nn.Module, *, architecture: str, head: str):
        super().__init__()
        self.model = model
        self.architecture = architecture
        self.head = head

    def reset_classifier(
        self,
        num_classes: int,
        *,
        zero: bool = False,
        bias_init: np.ndarray | None = None,
        seed: int = 0,
    ) -> None:
        """Replace the last layer by a fresh one for `num_classes` classes.

        A random one sends gradients into the layers before it that have nothing to do
        with the task, and the more the larger their features are. `zero` starts it at
        0, so that trained layers are left alone until it has learned something; so
        does `bias_init`, where it holds the log odds of rare labels.
        """
        parent, _, name = self.head.rpartition(".")
        old = self.model.get_submodule(self.head)
        bias = old.bias is not None
        with seeded(seed):
            if isinstance(old, nn.Linear):
                new = nn.Linear(old.in_features, num_classes, bias=bias)
            else:
                new = nn.Conv2d(
                    old.in_channels,
                    num_classes,
                    old.kernel_size,
                    old.stride,
                    old.padding,
                    old.dilation,
                    bias=bias,
                    padding_mode=old.padding_mode,
                )
        if zero:
            for parameter in new.parameters():
                nn.init.zeros_(parameter)
        if bias and bias_init is not None:
            with torch.no_grad():
                new.bias.copy_(torch.from_numpy(bias_init))
        container = self.model.get_submodule(parent)
        setattr(container, name, new.to(old.weight.device))
        # SqueezeNet rectifies its logits, which a fresh layer may not survive.
        for after, module in list(container.named_children()):
            if name.isdigit() and after.isdigit() and int(after) > int(name):
                if isinstance(module, nn.ReLU):
                    setattr(container, after, nn.Identity())

    def classifier_parameters(self) -> list[nn.Parameter]:
        return list(self.model.get_submodule(self.head).parameters())

    def body_parameters(self) -> list[nn.Parameter]:
        classifier = {id(p) for p in self.classifier_parameters()}
        return [p for p in self.model.parameters() if id(p) not in classifier]
