"""DatasetEmbedder: one summary vector per dataset, from one reference network."""

import hashlib
import os
import threading
import warnings
from collections import OrderedDict
from dataclasses import replace
from numbers import Integral, Real

import joblib
import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklearn_p2l._compat import (
    HasMethods,
    Interval,
    StrOptions,
    _fit_context,
    load_networks,
)
from sklearn_p2l._files import remembered
from sklearn_p2l._provenance import Vectors
from sklearn_p2l._workers import as_worker, replacing_workers, this_process
from sklearn_p2l.embedding._class_means import check_labels_stay, labels_of
from sklearn_p2l.embedding._datasets import (
    check_datasets,
    check_feature_names,
    check_features,
    check_kinds,
    naming,
    progress_over,
    width_of_features,
)
from sklearn_p2l.embedding._summary import STATISTICS, finish, statistic_name, summarize
from sklearn_p2l.exceptions import SignedFeaturesWarning
from sklearn_p2l.samples import (
    FEATURES,
    content_key,
    name_of,
    random_part,
    random_rows,
)

# What the fingerprint stands for: fixed by `fit`, as the vectors' name is.
_FIXED = (
    "backbone",
    "weights",
    "layer",
    "summary",
    "proportion",
    "image_size",
    "random_state",
)
# Summaries that an embedder keeps in memory, the last ones used.
_N_KEPT = 256
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
        The reference network: the name of any torchvision classification network, of
        timm's ("timm/convnext_atto.d2_in1k") or of Hugging Face's, on the hub or in a
        folder ("hf/microsoft/resnet-18"); "small_resnet" for images of about 8 to 64
        pixels; "pcnn" for pairs of entities in text (with ``weights=None`` without
        vocabulary); a checkpoint file that names its architecture (as
        `FineTuner.to_source` writes it); or a function without arguments that returns a
        torch module (not a lambda, to be persisted).

    weights : str, path-like or None, default="DEFAULT"
        Weights of the network: a published name ("DEFAULT", "IMAGENET1K_V1", ...;
        downloaded once), a safetensors or state-dict file, in
        which only the classifier may be missing, or None for random weights. Ignored
        where `backbone` is a file, which holds the weights. For a function, "DEFAULT"
        keeps the weights of the module it returns.

    layer : str, default=None
        Node whose output is summarised, by torchvision's feature-extraction names (of
        timm's and Hugging Face's networks, the name of a module); None takes the input
        of the last layer (VGG16: the 4096 responses of fc7 after ReLU; PCNN:
        "features", the network in network's largest response over the contexts of a
        bag, never negative). Maps are averaged over positions. A PCNN also has
        "contexts", what its convolution finds, with a sign.

    summary : {"mean", "trimmed_mean", "median"}, default="mean"
        Statistic over the samples. The mean streams in constant memory; the others
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

    class_means : bool, default=False
        Whether the vectors of datasets that are tasks carry the means of their classes,
        of features of L2 norm 1, as ``vectors.class_means``: a ranking by where classes
        lie needs them ("separability" and "coverage" of EvidenceSelector). Of more than
        64 classes, 64 centres of their means are kept. Not together with
        ``on_error="skip"``.

    image_size : int, default=None
        Side of the images given to the network, in pixels; None for the size that the
        network was made for, and for text. Smaller is faster. An image is resized
        first, for torchvision's networks to 256/224 of this size on its shorter side,
        at every size, and the square in its centre is taken: they do not see a margin
        of about 6 % on each side ("small_resnet" sees all of a square image).

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
        of change), so that each dataset is embedded once in a grid search, or by
        several processes. Torch Datasets are not cached. Without it, a fitted embedder
        itself remembers the last 256 summaries it made, so that `fit` and `predict` of
        a pipeline embed a dataset once.

    device : str or torch.device, default="auto"
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
    signed_ : bool
        Whether features may be negative, which the metrics "kl", "js", "chi2" and
        "hellinger" refuse. For ready features, whether those given to `fit` are.

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
    Task : A dataset with its labels.

    Notes
    -----
    A dataset is one of: an array of images (n, H, W), (n, H, W, 1) or (n, H, W, 3),
    uint8 in 0..255 or float in 0..1; a sequence of images of any sizes (arrays or PIL
    images) or of paths; a Series, or a DataFrame of one column, of paths; a folder of
    images, flat or with class subfolders; a torch Dataset, map or iterable style, of
    images (tensors as (C, H, W)) or of tuples that begin with one; a sequence
    of :class:`~sklearn_p2l.datasets.Bag`, or a .tsv or .tsv.gz file of them
    (:func:`~sklearn_p2l.datasets.read_bags`), for a PCNN; or a 2-D array of ready
    features, for which no network is used. A :class:`Task` is taken for its samples;
    labels are never needed.

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
    >>> np.sum(vectors, axis=1).round(6)
    array([1., 1.])
    """

    _parameter_constraints: dict = {
        "backbone": [str, os.PathLike, callable],
        "weights": [str, os.PathLike, None],
        "layer": [str, None],
        "summary": [StrOptions(set(STATISTICS))],
        "proportion": [Interval(Real, 0, 0.5, closed="left")],
        "max_samples": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
            None,
        ],
        "tolerance": [Interval(Real, 0, None, closed="neither")],
        "class_means": ["boolean"],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "precision": [StrOptions({"auto", "float32", "bfloat16", "float16"})],
        "on_error": [StrOptions({"raise", "skip"})],
        "memory": [str, os.PathLike, HasMethods(["cache"]), None],
        "device": "no_validation",  # a torch.device, too, without importing torch
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
        class_means=False,
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
        self.class_means = class_means
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
        check_labels_stay(self.class_means, self.on_error)
        datasets = check_datasets(X)
        self._network, self._kept = None, OrderedDict()
        self.seed_ = check_random_state(self.random_state).randint(2**31 - 1)
        if FEATURES.recognises(datasets[0]):
            self._fit_features(datasets)
        else:
            network = self._network = self._open_network()
            self.layer_, self._takes = network.layer, network.takes
            self.n_features_out_ = network.num_features
            self.signed_ = network.signed
            self.fingerprint_ = self._fingerprint(network)
        self._fixed = {name: getattr(self, name) for name in _FIXED}
        if self.signed_ and self.layer_ is not None:
            warnings.warn(
                f"The features of {self.fingerprint_.split(':')[0]!r}, layer "
                f"{self.layer_!r}, have a sign: the metrics 'kl' (the default), 'js', "
                "'chi2' and 'hellinger' refuse them. Rank them by metric='cityblock', "
                "'euclidean' or 'cosine', or summarise a layer that follows a ReLU.",
                SignedFeaturesWarning,
                stacklevel=3,
            )
        return self

    def _fit_features(self, datasets):
        features = [d for d in datasets if FEATURES.recognises(d)]
        self.layer_, self._takes = None, FEATURES.name
        self.n_features_out_ = width_of_features(features)
        self._feature_names = check_feature_names(features)
        statistic = statistic_name(self.summary, self.proportion)
        self.fingerprint_ = f"features:{self.n_features_out_}:{statistic}"
        self.signed_ = any(
            np.size(d) > 0 and bool(np.min(np.asarray(d)) < 0) for d in features
        )

    def transform(self, X):
        """Embed datasets.

        Parameters
        ----------
        X : sequence of datasets
            See the notes of the class; all ready features, or none, as in `fit`.

        Returns
        -------
        vectors : Vectors of shape (n_datasets, `n_features_out_`)
            One summary per dataset, of L1 norm 1, as an array that carries the
            `fingerprint_`. Row i depends on dataset i alone.

        Raises
        ------
        ValueError
            If a dataset is empty, of an unknown form, or holds an image that cannot
            be used (unless ``on_error="skip"``), and the message names dataset and
            image; or if a parameter that the fingerprint stands for was changed after
            `fit`.
        """
        check_is_fitted(self)
        datasets = check_datasets(X)
        self._check_unchanged()
        check_labels_stay(self.class_means, self.on_error)
        check_kinds(datasets, self._takes)
        if self.layer_ is None:
            check_feature_names(datasets, self._feature_names)
        labels = [labels_of(item) if self.class_means else None for item in X]
        given = list(zip(datasets, labels))
        keys = [self._key(*pair, i) for i, pair in enumerate(given)]
        known = {i: self._kept[key] for i, key in enumerate(keys) if key in self._kept}
        todo = {i: pair for i, pair in enumerate(given) if i not in known}
        summaries = known | self._summarize_all(todo, keys)
        for i, key in enumerate(keys):
            self._keep(key, summaries[i])
        summaries = [summaries[i] for i in range(len(datasets))]
        rows = [finish(s, d, i) for i, (s, d) in enumerate(zip(summaries, datasets))]
        means = [summary.class_means for summary in summaries]
        means = means if self.class_means else None
        return Vectors(np.vstack(rows), self.fingerprint_, means)

    def _summarize_all(self, given, keys):
        """Summarise datasets with labels, by number, several at a time."""
        summaries = {}
        if not given:
            return summaries
        parallel = Parallel(n_jobs=self.n_jobs, return_as="generator")
        n_jobs = min(parallel.n_jobs, len(given))
        datasets = [dataset for dataset, _ in given.values()]
        bar = progress_over(datasets, n_jobs, self.max_samples, self.verbose)
        with bar, replacing_workers():
            if n_jobs == 1:
                results = (
                    self._summarize(*pair, i, keys[i], bar) for i, pair in given.items()
                )
            else:
                parent = this_process()
                results = parallel(
                    delayed(_summarize_as_worker)(
                        self, *pair, i, keys[i], n_jobs, parent
                    )
                    for i, pair in given.items()
                )
            for i, summary in zip(given, results):
                summaries[i] = summary
                bar.update(n_jobs > 1)
        return summaries

    def _check_unchanged(self):
        """Refuse parameters that would make other vectors under the same name."""
        for name, fitted in self._fixed.items():
            value = getattr(self, name)
            if value is not fitted and value != fitted:
                raise ValueError(
                    f"{name} must be what it was in fit, {fitted!r}, got {value!r}: "
                    "vectors would no longer be what their fingerprint says; call fit "
                    "again."
                )

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

    def _key(self, dataset, labels, number):
        """What a summary depends on: content and settings; None where unknown."""
        with naming(number):
            content = None if self.layer_ is None else content_key(dataset)
        settings = (self.fingerprint_, self.precision, self.on_error)
        if self.max_samples is not None:
            settings += (self.max_samples, self.tolerance, self.seed_)
            settings += (self.batch_size, str(self.device))  # where "auto" stops
        if labels is not None:
            settings += (joblib.hash(labels),)
        return None if content is None else (content, settings)

    def _keep(self, key, summary):
        """Remember a summary, and forget the one that was not used for longest."""
        if key is not None:
            self._kept[key] = summary
            self._kept.move_to_end(key)
            if len(self._kept) > _N_KEPT:
                self._kept.popitem(last=False)

    def _summarize(self, dataset, labels, number, key, bar=None):
        """Summarise one dataset, or look its summary up."""
        if bar is not None:
            name = name_of(dataset) or f"dataset {number}"
            bar.set_description_str(f"embedding {name}")
        with naming(number):
            if self.layer_ is None:
                features = check_features(dataset, self.n_features_out_)
                return summarize([features], self.summary, self.proportion, y=labels)

            def compute():
                return self._summarize_samples(dataset, labels, bar)

            if key is None:
                return compute()
            return remembered(self.memory, key, compute)

    def _summarize_samples(self, dataset, labels, bar):
        networks = load_networks()
        network, skipped = self._get_network(), []
        device = networks.choose_device(self.device)
        n_total = None
        if self.max_samples is not None:
            n_samples = None if self.max_samples == "auto" else self.max_samples
            if labels is not None:  # of the same samples as without them
                rng = check_random_state(self.seed_)
                labels = np.array(random_rows(labels, n_samples, rng))
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
        summary = summarize(
            features,
            self.summary,
            self.proportion,
            tolerance=self.tolerance if known_size else 0.0,
            n_total=n_total,
            y=labels,
        )
        return replace(summary, skipped=skipped)

    def _open_network(self):
        return load_networks().open_network(
            self.backbone,
            weights=self.weights,
            layer=self.layer,
            image_size=self.image_size,
            seed=self.seed_,
        )

    def _get_network(self):
        """Load the network again where it was left out of a pickle."""
        with _one_opening_at_a_time:
            if self._network is not None:
                return self._network
            network = self._open_network()
            if self._fingerprint(network) != self.fingerprint_:
                raise ValueError(
                    "the reference network must be the one this embedder was fitted "
                    f"with, {self.fingerprint_!r}, got {self._fingerprint(network)!r}: "
                    "its weights or its code have changed; fit again."
                )
            self._network = network
            return network

    def _fingerprint(self, network):
        preprocessing = str(network.preprocessing)
        statistic = statistic_name(self.summary, self.proportion)
        parts = [network.architecture, network.layer, statistic]
        digest = hashlib.sha256(
            "|".join([*parts, preprocessing, network.features_hash()]).encode()
        )
        return ":".join([*parts, digest.hexdigest()[:16]])

    def __getstate__(self):
        state = super().__getstate__()
        if "_network" in state:
            state = state | {"_network": None, "_kept": OrderedDict()}
        return state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags


def _summarize_as_worker(embedder, dataset, labels, number, key, n_workers, parent):
    """Summarise one dataset in a process that may get others after it."""
    global _last_network
    with as_worker(n_workers, parent, embedder.device):
        fitted_for, network = _last_network or (None, None)
        if embedder.layer_ is not None and embedder._network is None:
            if fitted_for == embedder.fingerprint_:
                embedder._network = network
            _last_network = embedder.fingerprint_, embedder._get_network()
        return embedder._summarize(dataset, labels, number, key)
