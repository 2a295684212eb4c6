"""What a trained network can do: predict, describe samples, be kept and passed on."""

import json
import os

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.metrics import accuracy_score, average_precision_score
from sklearn.utils.validation import check_is_fitted

from sklearn_p2l._compat import load_networks
from sklearn_p2l.catalog import Source
from sklearn_p2l.samples import as_samples
from sklearn_p2l.task import as_judged, dataset_of


class TrainedNetworkMixin(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """The methods of a classifier whose `weights_` are those of a network."""

    def decision_function(self, X):
        """Compute the outputs of the network before the softmax.

        Parameters
        ----------
        X : dataset of n_samples samples
            As in `fit`, without labels; also a folder of images, a file, or one image.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_outputs) or (n_samples,)
            One column per class or label; for two classes the difference, positive
            for ``classes_[1]``.
        """
        logits = self._logits(X)
        if not self._multilabel and logits.shape[1] == 2:
            return logits[:, 1] - logits[:, 0]
        return logits

    def predict_proba(self, X):
        """Compute probabilities.

        Parameters
        ----------
        X : dataset of n_samples samples
            As in `fit`, without labels; also a folder of images, a file, or one image.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_outputs)
            One column per class, rows summing to 1, or per label, each for itself.
        """
        logits = self._logits(X)
        return expit(logits) if self._multilabel else softmax(logits, axis=1)

    def predict_log_proba(self, X):
        """Compute logarithms of probabilities.

        Parameters
        ----------
        X : dataset of n_samples samples
            As in `predict`.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_outputs)
            Of those that `predict_proba` gives, without loss of the small ones.
        """
        logits = self._logits(X)
        return log_expit(logits) if self._multilabel else log_softmax(logits, axis=1)

    def transform(self, X):
        """Compute the features of samples: what the last layer sees.

        Parameters
        ----------
        X : dataset of n_samples samples
            As in `predict`.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features_out)
            Of the trained network, as float32.
        """
        network, batches, device = self._read(X)
        networks = load_networks()
        features = networks.extract_features(
            network, batches, precision=self.precision, device=device
        )
        return np.concatenate(list(features))

    def predict(self, X):
        """Predict labels.

        Parameters
        ----------
        X : dataset of n_samples samples
            As in `fit`, without labels; also a folder of images, a file, or one image.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Class labels, or the multilabel indicator of probabilities above one half.
        """
        logits = self._logits(X)
        if self._multilabel:
            return (logits > 0).astype(int)
        return self.classes_[logits.argmax(axis=1)]

    def score(self, X, y=None, sample_weight=None):
        """Compute the accuracy, or for multilabel targets the average precision.

        Parameters
        ----------
        X : dataset of n_samples samples
            As in `fit`, without labels; also a folder of images, a file, or one image.

        y : array-like of shape (n_samples,) or (n_samples, n_labels), default=None
            True labels; None where `X` holds them, as in `fit`. Of a Task that has a
            test part, this is what counts.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples.

        Returns
        -------
        score : float
            Accuracy; for multilabel targets the micro-averaged area under the
            precision-recall curve (paper, section 4.2).
        """
        check_is_fitted(self)
        X, y = as_judged(X, y)
        if self._multilabel:
            y = y.toarray() if hasattr(y, "toarray") else y
            return average_precision_score(
                y, self._logits(X), average="micro", sample_weight=sample_weight
            )
        return accuracy_score(y, self.predict(X), sample_weight=sample_weight)

    def to_source(
        self,
        name,
        *,
        checkpoint,
        embedding=None,
        size=None,
        columns=None,
        metadata=None,
        fingerprint=None,
    ):
        """Write the trained weights and return the entry for a SourceCatalog.

        The file also says what is needed to use it: architecture, size of the images,
        and the names of the classes as JSON. `from_checkpoint` reads it.

        Parameters
        ----------
        name : str
            Name of the source.

        checkpoint : str or path-like
            File to write, ending in ".safetensors".

        embedding : array-like of shape (n_features,) or (1, n_features), default=None
            Summary of the data it was trained on, such as ``embedder.transform([X])``;
            None where it will not be ranked by a divergence.

        size : int, default=None
            Number of training examples; None takes ``n_samples_``.

        columns : mapping of str to float, default=None
            Numbers about it, such as its accuracy.

        metadata : dict, default=None
            Anything else worth keeping, as JSON types.

        fingerprint : str, default=None
            Fingerprint of the reference network; None takes the one that vectors of a
            DatasetEmbedder carry.

        Returns
        -------
        source : Source
        """
        check_is_fitted(self)
        networks = load_networks()
        checkpoint = os.fspath(checkpoint)
        if not checkpoint.endswith(".safetensors"):
            raise ValueError(
                f"checkpoint must be a file name ending in '.safetensors', got "
                f"{checkpoint!r}."
            )
        if np.ndim(embedding) == 2 and len(embedding) == 1:
            embedding = embedding[0]
        architecture = self._metadata.get("architecture")
        source = Source(
            name,
            size=self.n_samples_ if size is None else size,
            embedding=embedding,
            checkpoint=checkpoint,
            architecture=architecture,
            n_classes=len(self.classes_),
            columns=columns,
            metadata=metadata,
            fingerprint=fingerprint,
        )
        about = {
            "classes": json.dumps(self.classes_.tolist(), default=str),
            "y_type": self.y_type_,
            "n_samples": str(self.n_samples_),
        }
        networks.write_checkpoint(checkpoint, self.weights_, self._metadata | about)
        return source

    @classmethod
    def from_checkpoint(cls, path):
        """Return the fitted classifier whose weights `to_source` has written.

        Nothing is unpickled, so the file may come from others; joblib keeps what this
        leaves out: the settings of the training and its history.

        Parameters
        ----------
        path : str or path-like
            File that `to_source` or ``p2l tune`` has written.

        Returns
        -------
        classifier : NetworkClassifier
            Predicts as the one that was trained. Fitted again, it starts from the file.
            Its ``classes_`` are strings, numbers or booleans.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not such a file: it names no classes or no architecture, or its
            weights do not fit.
        """
        networks, path = load_networks(), os.fspath(path)
        try:
            network = networks.open_network(path, weights=None, with_head=True)
            metadata = networks.checkpoint_metadata(path)
            classes = np.array(json.loads(metadata["classes"]))
            if classes.ndim != 1 or len(np.unique(classes)) < max(1, len(classes)):
                raise ValueError("classes that are no list of different labels")
            y_type = metadata.get("y_type", "multiclass")
            # Files of the zoo that comes with the package do not tell.
            n_samples = int(metadata.get("n_samples", 0)) or None
            if y_type not in ("binary", "multiclass", "multilabel-indicator"):
                raise ValueError(f"y_type {y_type!r}")
            weights = networks.get_weights(network.model)
            n_outputs = len(weights[f"{network.head}.weight"])
            if n_outputs != len(classes):
                raise ValueError(
                    f"size mismatch: {len(classes)} classes, {n_outputs} outputs"
                )
        except (KeyError, ValueError) as error:
            raise ValueError(
                "path must be a file that to_source or p2l tune has written, with its "
                f"classes and its last layer, got {path!r}: {error}. To start a "
                "training from it, pass it as backbone."
            ) from error
        classifier = cls(path)
        classifier.classes_, classifier.y_type_ = classes, y_type
        classifier.n_samples_ = n_samples
        classifier.weights_ = weights
        classifier.image_size_ = network.image_size
        classifier.backbone_ = network.metadata["architecture"]
        classifier._metadata, classifier._network = network.metadata, network
        classifier._n_features_out = network.num_features
        return classifier

    def to_module(self):
        """Make a torch module that computes `predict_proba` from raw pixels.

        Everything between an image and its probabilities is part of it: resizing as
        Pillow does, the crop, the normalisation, the network; in float32, whatever
        `precision` is. It needs nothing of this package's, and can be saved by
        `torch.export`, or by `torch.onnx.export` for ONNX.

        Returns
        -------
        module : torch.nn.Module
            In evaluation mode, on the CPU: a uint8 tensor (n, 3, H, W) of RGB images of
            one size becomes float32 probabilities (n, n_outputs).

        Raises
        ------
        ValueError
            If the network takes text.
        """
        check_is_fitted(self)
        return load_networks().export_module(
            self._opened(), exclusive=not self._multilabel
        )

    @property
    def _multilabel(self):
        return self.y_type_ == "multilabel-indicator"

    def _opened(self):
        """The trained network, built again where it was left behind."""
        if self._network is None:
            networks = load_networks()
            network = networks.open_network(
                self._metadata.get("architecture", self.backbone_),
                weights=None,
                image_size=self.image_size_,
                metadata=self._metadata,
            )
            network.reset_classifier(len(self.classes_))
            networks.set_weights(network.model, self.weights_)
            self._network = network
        return self._network

    def _read(self, X):
        """The trained network, preprocessed batches for it, and its device."""
        check_is_fitted(self)
        X, network = as_samples(dataset_of(X)), self._opened()
        device = load_networks().choose_device(self.device)
        return (
            network,
            network.read(X, self.batch_size, ahead=device.type != "cpu"),
            device,
        )

    def _logits(self, X):
        network, batches, device = self._read(X)
        logits = load_networks().predict_logits(
            network, batches, self.precision, device
        )
        if not np.isfinite(logits).all():
            raise ValueError(
                "the outputs of the network must be finite, got NaN or infinity: "
                "training diverged; pass a smaller learning_rate, or "
                "precision='float32'."
            )
        return logits

    def __sklearn_is_fitted__(self):
        return hasattr(self, "weights_")

    def __getstate__(self):  # the network is built again from its weights
        state = super().__getstate__()
        return state | {"_network": None} if "_network" in state else state
