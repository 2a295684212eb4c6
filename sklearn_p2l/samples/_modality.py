"""What every kind of sample can do, whatever its datasets look like."""

from abc import ABC, abstractmethod


class Modality(ABC):
    """A kind of samples: images, bags of text, or rows of ready features.

    Everything that depends on the kind of samples, and on nothing else, is asked of
    one of these; :func:`~sklearn_p2l.samples.modality_of` finds it. A network says by
    its `takes` which one it reads.
    """

    #: What a dataset of the kind holds, as `takes` of a network names it.
    name: str
    #: What messages call one sample.
    sample: str
    #: What messages call one thing that could not be read.
    unit: str

    @abstractmethod
    def recognises(self, dataset):
        """Tell whether a dataset holds samples of this kind, without reading them."""

    @abstractmethod
    def as_samples(self, X):
        """Return samples as a sequence, whether X is one of them, a folder or a file.

        Its length is the number of samples; they are not read yet.
        """

    @abstractmethod
    def random_part(self, dataset, n_samples, rng, on_error):
        """Draw samples; see :func:`~sklearn_p2l.samples.random_part`."""

    @abstractmethod
    def content_key(self, dataset):
        """Hash what a dataset holds; None where that is not cheap."""
