"""DatasetEmbedder: one summary vector per dataset, from one reference network."""

import hashlib
import os
import threading
import warnings
from numbers import Integral, Real

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.preprocessing import normalize
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    StrOptions,
)
from sklearn.utils.validation import check_is_fitted, check_memory
from tqdm import tqdm

from sklearn_p2l._arrays import TracedArray
from sklearn_p2l._jobs import as_worker, replacing_workers, this_process
from sklearn_p2l._summary import summarize
from sklearn_p2l.datasets import (
    Bag,
    content_key,
    is_bags,
    is_features,
    random_part,
)

# PyTorch's tracing of networks is not safe where threads share a process.
_one_opening_at_a_time = threading.Lock()
# The network that this process embedded with last: for the next dataset that it gets.
_last_network = None


class DatasetEmbedder(TransformerMixin, BaseEstimator):
    """Summarise whole datasets as vectors, through one reference network.

    Every sample of a dataset, image or bag of text, passes once through the network;
    the responses of its penultimate layer are summarised over the samples and
    L1-normalised (paper, sections 3.2 and 3.3). Vectors of datasets embedded alike can
    be compared with each other, and only those: they carry the `fingerprint_` of the
    network they come from.

    Parameters
    ----------
    backbone : str, path-like or callable, default="vgg16"
        The reference network: the name of any torchvision classification network;
        "small_resnet" for images of about 8 to 64 pixels; "pcnn" for pairs of entities
        in text (with ``weights=None`` without vocabulary); a checkpoint file that names
        its architecture (as `FineTuner.to_source` writes it); or a function without
        arguments that returns a torch module (defined in a module of its own, not a
        lambda, to be persisted).

    weights : str, path-like or None, default="DEFAULT"
        Weights of the network: a name that torchvision knows for it ("DEFAULT",
        "IMAGENET1K_V1", ...; downloaded once), a safetensors or state-dict file, in
        which only the classifier may be missing, or None for random weights. Ignored
        where `backbone` is a file, which holds the weights. For a function, "DEFAULT"
        keeps the weights of the module it returns.

    layer : str, default=None
        Node whose output is summarised, by torchvision's feature-extraction names;
        None takes the input of the last layer (VGG16: the 4096 responses of fc7 after
        ReLU; PCNN: "features", the network in network's largest response over the
        contexts of a bag, never negative). Maps are averaged over positions. A PCNN
        also has "contexts", what its convolution finds, with a sign.

    summary : {"mean", "trimmed_mean", "median"}, default="mean"
        Statistic over the images. The mean streams in constant memory; the others
        write all features to a temporary file (4 bytes per image and feature) and
        need about 0.5 GiB of memory at most.

    proportion : float, default=0.1
        Share of images that "trimmed_mean" leaves out at each end, below 0.5.

    max_samples : int or "auto", default=None
        Samples of a dataset that are read, drawn at random and alike in every call:
        at most so many, or all (None). "auto" reads on until the summary is expected
        to be within `tolerance` of the one of all samples, so that the cost of a large
        dataset does not grow with its size; only for the mean. A stream (an iterable
        Dataset, a file of bags) is read to its end in any case, and "auto" takes all
        of it. Ready features are always taken whole.

    tolerance : float, default=0.02
        For ``max_samples="auto"``: expected L1 distance of the summary (of L1 norm 1)
        from the one of all samples, estimated after each batch from the standard
        errors of the features.

    image_size : int, default=None
        Side of the images given to the network, in pixels; None for the size that the
        network was made for, and for text. Smaller is faster.

    batch_size : int, default=32
        Samples per forward pass.

    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        "auto" computes in bfloat16 on CPUs and GPUs with instructions for it, else in
        float32. Summaries are accumulated in float64 always. The L1 distance between
        the bfloat16 and the float32 summary of a dataset (both of L1 norm 1, so this
        is a relative error) is below 0.1: about 0.01 for SqueezeNet, and up to 0.05
        for MobileNetV2, where datasets of different kinds are 0.3 or more apart.

    on_error : {"raise", "skip"}, default="raise"
        What happens with an image that cannot be used (unreadable, truncated,
        animated, oversized, NaN, out of range) or a malformed line of text: an error
        that names it, or a warning with the number skipped.

    memory : str, path-like or object with the joblib.Memory interface, default=None
        Caches summaries by the content of the dataset (files by path, size and time
        of change), so that each dataset is embedded once in a grid search. Torch
        Datasets are not cached.

    device : str, default="auto"
        Torch device; "auto" is the GPU if there is one, else the CPU.

    n_jobs : int, default=None
        Datasets embedded at the same time, by joblib: as many processes, each of which
        loads the network once; they take turns at the GPUs and share the CPUs. None
        is 1 unless in a :func:`joblib.parallel_config` context, -1 all CPUs. One
        process uses all CPUs of a machine, so more are for GPUs or clusters.

    random_state : int, RandomState instance or None, default=None
        Decides random weights (``weights=None``) and the samples drawn for
        `max_samples`; drawn once, in `fit`.

    verbose : int, default=0
        1 shows a progress bar, of samples, or with several jobs of datasets.

    Attributes
    ----------
    fingerprint_ : str
        What the vectors depend on: architecture, layer and summary in words, then a
        hash that includes weights and preprocessing.

    n_features_out_ : int
        Width of the vectors.

    layer_ : str or None
        Node that is summarised; None for ready features.

    See Also
    --------
    SourceSelector : Ranks sources by these vectors.
    SourceCatalog : Keeps the vectors of the sources.

    Notes
    -----
    A dataset is one of: an array of images (n, H, W), (n, H, W, 1) or (n, H, W, 3),
    uint8 in 0..255 or float in 0..1; a sequence of images of any sizes (arrays or PIL
    images) or of paths; a folder of images, flat or with class subfolders; a torch
    Dataset, map or iterable style, of images (tensors as (C, H, W)) or of tuples that
    begin with one; a sequence of :class:`~sklearn_p2l.datasets.Bag`, or a .tsv or
    .tsv.gz file of them (:func:`~sklearn_p2l.datasets.read_bags`), for a PCNN; or a 2-D
    array of ready features, for which no network is used. Labels are never needed.

    Images are converted to 8-bit RGB: files are turned as their EXIF data says, 16-bit
    files scaled, palette and CMYK files converted, transparency laid over white.

    References
    ----------
    Bhattacharjee et al., "P2L: Predicting Transfer Learning for Images and Semantic
    Relations", sections 3.1 and 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_p2l import DatasetEmbedder
    >>> rng = np.random.default_rng(0)
    >>> dark = rng.integers(0, 60, size=(12, 16, 16, 3), dtype=np.uint8)
    >>> light = rng.integers(180, 256, size=(20, 16, 16), dtype=np.uint8)
    >>> embedder = DatasetEmbedder(
    ...     "small_resnet", weights=None, image_size=16, random_state=0
    ... )
    >>> vectors = embedder.fit_transform([dark, light])
    >>> vectors.shape
    (2, 64)
    >>> vectors.sum(axis=1).round(6)
    array([1., 1.])
    """

    _parameter_constraints: dict = {
        "backbone": [str, os.PathLike, callable],
        "weights": [str, os.PathLike, None],
        "layer": [str, None],
        "summary": [StrOptions({"mean", "trimmed_mean", "median"})],
        "proportion": [Interval(Real, 0, 0.5, closed="left")],
        "max_samples": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
            None,
        ],
        "tolerance": [Interval(Real, 0, None, closed="neither")],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "precision": [StrOptions({"auto", "float32", "bfloat16", "float16"})],
        "on_error": [StrOptions({"raise", "skip"})],
        "memory": [str, os.PathLike, HasMethods(["cache"]), None],
        "device": [str],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone="vgg16",
        *,
        weights="DEFAULT",
        layer=None,
        summary="mean",
        proportion=0.1,
        max_samples=None,
        tolerance=0.02,
        image_size=None,
        batch_size=32,
        precision="auto",
        on_error="raise",
        memory=None,
        device="auto",
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.layer = layer
        self.summary = summary
        self.proportion = proportion
        self.max_samples = max_samples
        self.tolerance = tolerance
        self.image_size = image_size
        self.batch_size = batch_size
        self.precision = precision
        self.on_error = on_error
        self.memory = memory
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Load the reference network; nothing is learned from the datasets.

        Parameters
        ----------
        X : sequence of datasets
            Only looked at to tell ready features from what needs a network.

        y : None
            Ignored.

        Returns
        -------
        self : object
            Fitted embedder.

        Raises
        ------
        ValueError
            If `X` is not a sequence of datasets, or weights do not fit the network.
        """
        if self.max_samples == "auto" and self.summary != "mean":
            raise ValueError(
                f"summary must be 'mean' for max_samples='auto', got {self.summary!r}; "
                "pass a number of samples."
            )
        datasets = _check_datasets(X)
        self._network = None
        self.seed_ = check_random_state(self.random_state).randint(2**31 - 1)
        if is_features(datasets[0]):
            self.layer_ = None
            self.n_features_out_ = np.shape(datasets[0])[1]
            self.fingerprint_ = f"features:{self.n_features_out_}:{self._statistic()}"
        else:
            self._network = self._open_network()
            self.layer_ = self._network.layer
            self.n_features_out_ = self._network.num_features
            self.fingerprint_ = self._fingerprint(self._network)
        return self

    def transform(self, X):
        """Embed datasets.

        Parameters
        ----------
        X : sequence of datasets
            See the notes of the class; all ready features, or none, as in `fit`.

        Returns
        -------
        vectors : ndarray of shape (n_datasets, `n_features_out_`)
            One summary per dataset, of L1 norm 1. Row i depends on dataset i alone.
            The array carries `fingerprint_` as its attribute `origin`.

        Raises
        ------
        ValueError
            If a dataset is empty, of an unknown form, or holds an image that cannot
            be used (unless ``on_error="skip"``); the message names dataset and image.
        """
        check_is_fitted(self)
        datasets = _check_datasets(X)
        for i, dataset in enumerate(datasets):
            if is_features(dataset) != (self.layer_ is None):
                expected = "ready features" if self.layer_ is None else "images"
                if self.layer_ is not None and self._get_network().takes == "bags":
                    expected = "bags"
                got = "2-D features" if is_features(dataset) else "others"
                raise ValueError(
                    f"dataset {i} must hold {expected} as the datasets given to fit, "
                    f"got {got}."
                )
        parallel = Parallel(n_jobs=self.n_jobs, return_as="generator")
        n_jobs = min(parallel.n_jobs, len(datasets))
        bar = tqdm(
            desc="embedding",
            unit=" samples" if n_jobs == 1 else " datasets",
            total=None if n_jobs == 1 else len(datasets),
            disable=not self.verbose,
        )
        with bar:
            if n_jobs == 1:
                results = (self._summarize(d, i, bar) for i, d in enumerate(datasets))
            else:
                parent = this_process()
                results = parallel(
                    delayed(_summarize_as_worker)(self, d, i, n_jobs, parent)
                    for i, d in enumerate(datasets)
                )
            with replacing_workers():
                summaries = []
                for summary in results:
                    summaries.append(summary)
                    bar.update(n_jobs > 1)
        rows = [self._finish(*s, datasets[i], i) for i, s in enumerate(summaries)]
        return TracedArray(np.vstack(rows), origin=self.fingerprint_)

    def get_feature_names_out(self, input_features=None):
        """Name the output features, by `fingerprint_`, "#" and a number.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        names : ndarray of str objects of shape (`n_features_out_`,)
        """
        check_is_fitted(self, "n_features_out_")
        return np.array(
            [f"{self.fingerprint_}#{j}" for j in range(self.n_features_out_)],
            dtype=object,
        )

    def _summarize(self, dataset, number, bar=None):
        """Summarise one dataset, or look its summary up."""
        try:
            if self.layer_ is None:
                features = self._check_features(dataset)
                return summarize([features], self.summary, self.proportion), []
            key = None if self.memory is None else content_key(dataset)
            memory = None if key is None else self.memory
            if isinstance(memory, os.PathLike):
                memory = os.fspath(memory)
            memory = check_memory(memory)
            look_up = memory.cache(_call, ignore=["compute"])
            settings = (self.fingerprint_, self.precision, self.on_error)
            if self.max_samples is not None:
                settings += (self.max_samples, self.tolerance, self.seed_)
            return look_up(
                key, settings, compute=lambda: self._summarize_samples(dataset, bar)
            )
        except ValueError as error:
            raise ValueError(f"dataset {number}: {error}") from error

    def _finish(self, vector, skipped, dataset, number):
        """Tell of skipped samples, check a summary and normalise it."""
        if skipped:
            what = "line" if is_bags(dataset) else "image"
            warnings.warn(
                f"Skipped {len(skipped)} {what}(s) that cannot be used; the first: "
                f"{skipped[0].rstrip('.')}. Mend or remove them, or pass "
                "on_error='raise' to stop at the first.",
                UserWarning,
                stacklevel=3,
            )
        if not np.isfinite(vector).all():
            raise ValueError(
                f"dataset {number}: the summary must be finite, got NaN or infinity "
                "from the network; pass precision='float32' or check the weights."
            )
        if not vector.any():
            raise ValueError(
                f"dataset {number}: the summary must not be all zero: no unit of the "
                "layer responds to any sample; choose another layer or other weights."
            )
        return normalize(vector[np.newaxis], norm="l1")

    def _check_features(self, dataset):
        if getattr(dataset, "dtype", None) == np.uint8:
            raise ValueError(
                "ready features must not be uint8, as grey images are; a dataset of "
                "grey images is one array (n, H, W) or one list: pass [images]."
            )
        features = check_array(dataset, dtype=np.float64, input_name="features")
        if features.shape[1] != self.n_features_out_:
            raise ValueError(
                f"features must be {self.n_features_out_} wide as those given to fit, "
                f"got {features.shape[1]}."
            )
        return features

    def _summarize_samples(self, dataset, bar):
        from sklearn_p2l import networks

        network, skipped = self._get_network(), []
        device = networks.choose_device(self.device)
        n_total = None
        if self.max_samples is not None:
            n_samples = None if self.max_samples == "auto" else self.max_samples
            dataset, n_total = random_part(
                dataset, n_samples, self.seed_, on_error=self.on_error
            )

        def counted():
            for batch in network.read(
                dataset,
                self.batch_size,
                on_error=self.on_error,
                skipped=skipped,
                ahead=device.type != "cpu",
            ):
                yield batch
                if bar is not None:
                    bar.update(len(batch))

        features = networks.extract_features(
            network,
            counted(),
            precision=self.precision,
            device=device,
        )
        known_size = self.max_samples == "auto" and n_total is not None
        vector = summarize(
            features,
            self.summary,
            self.proportion,
            tolerance=self.tolerance if known_size else 0.0,
            n_total=n_total,
        )
        return vector, skipped

    def _open_network(self):
        from sklearn_p2l import networks

        return networks.open_network(
            self.backbone,
            weights=self.weights,
            layer=self.layer,
            image_size=self.image_size,
            seed=self.seed_,
        )

    def _get_network(self):
        """Load the network again where it was left out of a pickle."""
        with _one_opening_at_a_time:
            return self._reopen_network()

    def _reopen_network(self):
        if self._network is None:
            network = self._open_network()
            if self._fingerprint(network) != self.fingerprint_:
                raise ValueError(
                    "the reference network must be the one this embedder was fitted "
                    f"with, {self.fingerprint_!r}, got {self._fingerprint(network)!r}: "
                    "its weights or its code have changed; fit again."
                )
            self._network = network
        return self._network

    def _fingerprint(self, network):
        preprocessing = str(network.preprocessing)
        parts = [network.architecture, network.layer, self._statistic()]
        digest = hashlib.sha256(
            "|".join([*parts, preprocessing, network.features_hash()]).encode()
        )
        return ":".join([*parts, digest.hexdigest()[:16]])

    def _statistic(self):
        if self.summary == "trimmed_mean":
            return f"trimmed_mean({self.proportion:g})"
        return self.summary

    def __getstate__(self):
        state = super().__getstate__()
        return state | {"_network": None} if "_network" in state else state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags


def _summarize_as_worker(embedder, dataset, number, n_workers, parent):
    """Summarise one dataset in a process that may get others after it."""
    global _last_network
    with as_worker(n_workers, parent, embedder.device):
        fitted_for, network = _last_network or (None, None)
        if embedder.layer_ is not None and embedder._network is None:
            if fitted_for == embedder.fingerprint_:
                embedder._network = network
            _last_network = embedder.fingerprint_, embedder._get_network()
        return embedder._summarize(dataset, number)


def _call(key, settings, compute):
    """Compute a summary; what joblib.Memory caches by `key` and `settings`."""
    return compute()


def _check_datasets(X):
    """Return X as a list of datasets, refusing one dataset given as X itself."""
    if isinstance(X, np.ndarray) and X.dtype.kind == "O" and X.ndim == 1:
        X = list(X)
    if not isinstance(X, (list, tuple)):
        raise ValueError(
            "X must be a list of datasets, one row of the result each, got "
            f"{type(X).__name__}; pass [X] to embed one dataset."
        )
    if not len(X):
        raise ValueError("X must hold at least one dataset, got an empty list.")
    for i, dataset in enumerate(X):
        if hasattr(dataset, "getbands") or isinstance(dataset, Bag):
            what = "a bag" if isinstance(dataset, Bag) else "an image"
            raise ValueError(
                f"X must be a list of datasets, got {what} as dataset {i}; pass [X] to "
                "embed one dataset."
            )
    return list(X)
