"""What a zoo of sources is: in memory, and on disk as plain open formats."""

import hashlib
import html
import json
import os
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

import numpy as np
from sklearn.utils import check_array

__all__ = ["Source", "SourceCatalog"]

_FORMAT = "sklearn_p2l.SourceCatalog"
_VERSION = 1
# Larger summary files are memory-mapped when a catalog is loaded.
_MEMORY_MAP_BYTES = 64 * 2**20
# Sources of a longer catalog that notebooks show.
_ROWS_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Source:
    """One candidate source: a dataset, and usually the network trained on it.

    Parameters
    ----------
    name : str
        Unique name within a catalog.

    size : int or float
        Number of training examples, ``|s|`` in the paper; positive.

    embedding : array-like of shape (n_features,)
        Summary vector of the source's data, as a DatasetEmbedder returns it.

    checkpoint : str or path-like, default=None
        File with the trained weights (safetensors or a torch state dict).

    architecture : str, default=None
        Name of the network that the checkpoint belongs to, such as "resnet18".

    n_classes : int, default=None
        Number of classes that the source network was trained on.

    metadata : dict, default=None
        Anything else worth keeping (JSON types): licence, date, accuracy.

    fingerprint : str, default=None
        Fingerprint of the reference network behind `embedding`.

    Examples
    --------
    >>> from sklearn_p2l import Source
    >>> Source("birds", size=5994, embedding=[0.25, 0.75]).size
    5994
    """

    name: str
    size: int
    embedding: np.ndarray = field(repr=False)
    checkpoint: str | None = None
    architecture: str | None = None
    n_classes: int | None = None
    metadata: Mapping | None = None
    fingerprint: str | None = None

    def __post_init__(self):
        _check_name(self.name)
        _check_sizes([self.size])
        if np.ndim(self.embedding) != 1:
            raise ValueError(
                f"the embedding of source {self.name!r} must be one vector, got shape "
                f"{np.shape(self.embedding)}."
            )
        details = {key: getattr(self, key) for key in _DETAILS}
        for key, value in _check_details(self.name, **details).items():
            object.__setattr__(self, key, value)
        own = fingerprint_of(self.embedding)
        if self.fingerprint is None:
            object.__setattr__(self, "fingerprint", own)
        check_same_fingerprint(own, self.fingerprint, f"source {self.name!r}")

    def __eq__(self, other):
        if not isinstance(other, Source):
            return NotImplemented
        return SourceCatalog([self]) == SourceCatalog([other])

    def __hash__(self):
        return hash((self.name, self.size, self.fingerprint))


# What a catalog keeps of each source besides its name, size and vector.
_DETAILS = ("checkpoint", "architecture", "n_classes", "metadata")


class SourceCatalog:
    """The candidate sources of one zoo, described through one reference network.

    An immutable value object: clone and grid search share it, changes return a new
    catalog. It behaves as a sequence of :class:`Source`; a name, a list of names, a
    slice or a boolean mask selects.

    Parameters
    ----------
    sources : iterable of Source
        At least one, with unique names and vectors of one width.

    fingerprint : str, default=None
        Fingerprint of the reference network behind all vectors; None takes it from
        the sources.

    Attributes
    ----------
    names : tuple of str
        Unique names, in order.
    sizes : ndarray of shape (n_sources,)
        Numbers of training examples.
    embeddings : ndarray of shape (n_sources, n_features)
        Summary vectors, read-only; memory-mapped where a large catalog was loaded.
    fingerprint : str or None
        Fingerprint of the reference network; None if unknown.

    See Also
    --------
    SourceSelector : Ranks the sources of a catalog for a target.

    Examples
    --------
    >>> from sklearn_p2l import SourceCatalog
    >>> catalog = SourceCatalog.from_arrays(
    ...     [[0.25, 0.75], [0.5, 0.5]], sizes=[5994, 8144], names=["birds", "cars"]
    ... )
    >>> catalog
    SourceCatalog(2 sources, 2 features: birds (5,994), cars (8,144))
    >>> catalog["cars"].size
    8144
    >>> catalog[["cars"]].names
    ('cars',)
    """

    def __init__(self, sources, *, fingerprint=None):
        sources = list(sources)
        if not sources:
            raise ValueError("a catalog must have at least one source, got none.")
        for source in sources:
            if not isinstance(source, Source):
                raise TypeError(
                    f"sources must be Source objects, got {type(source).__name__}; "
                    "pass SourceCatalog.from_arrays(...) arrays instead."
                )
            fingerprint = fingerprint or source.fingerprint
            check_same_fingerprint(
                source.fingerprint, fingerprint, f"source {source.name!r}"
            )
        widths = {np.shape(source.embedding)[0] for source in sources}
        if len(widths) > 1:
            raise ValueError(
                "the embeddings of all sources must have the same number of features, "
                f"got {sorted(widths)}; embed them with one reference network."
            )
        self._set(
            names=[source.name for source in sources],
            sizes=[source.size for source in sources],
            embeddings=np.stack([np.asarray(s.embedding) for s in sources]),
            details=[{key: getattr(s, key) for key in _DETAILS} for s in sources],
            fingerprint=fingerprint,
        )

    def _set(self, *, names, sizes, embeddings, details, fingerprint):
        own = fingerprint_of(embeddings)
        check_same_fingerprint(own, fingerprint, "the embeddings")
        if fingerprint is not None and not isinstance(fingerprint, str):
            raise TypeError(
                f"fingerprint must be a str or None, got {type(fingerprint).__name__}."
            )
        # A memory-mapped file stays one, and its values are checked when compared.
        if isinstance(embeddings, np.memmap):
            if embeddings.ndim != 2 or embeddings.dtype.kind != "f":
                raise ValueError(
                    "memory-mapped embeddings must be a 2-D array of floats, got "
                    f"{embeddings.dtype} of shape {embeddings.shape}."
                )
            embeddings = embeddings.view()
        else:
            embeddings = check_array(
                embeddings,
                dtype=[np.float64, np.float32],
                copy=True,
                ensure_min_features=0,
                input_name="embeddings",
            )
            embeddings = np.asarray(embeddings)
        embeddings.flags.writeable = False
        sizes = _check_sizes(sizes)
        sizes.flags.writeable = False
        for what, values in [("sizes", sizes), ("names", names), ("details", details)]:
            if len(values) != len(embeddings):
                raise ValueError(
                    f"{what} must have one entry per row of embeddings "
                    f"({len(embeddings)}), got {len(values)}."
                )
        names = tuple(_check_name(name) for name in names)
        repeated = sorted(name for name, n in Counter(names).items() if n > 1)
        if repeated:
            raise ValueError(
                f"names of sources must be unique, got {repeated} more than once."
            )
        self.__dict__.update(
            names=names,
            sizes=sizes,
            embeddings=embeddings,
            fingerprint=own if fingerprint is None else fingerprint,
            _details=tuple(details),
        )

    @classmethod
    def _make(cls, **content):
        catalog = cls.__new__(cls)
        catalog._set(**content)
        return catalog

    @classmethod
    def from_arrays(
        cls,
        embeddings,
        *,
        sizes,
        names,
        checkpoints=None,
        architectures=None,
        n_classes=None,
        metadata=None,
        fingerprint=None,
    ):
        """Build a catalog from arrays, one entry per source.

        Parameters
        ----------
        embeddings : array-like of shape (n_sources, n_features) or None
            Summary vectors, as a DatasetEmbedder returns them; None where only sizes
            and distances (``metric="precomputed"``) are known.
        sizes : array-like of shape (n_sources,)
            Numbers of training examples; positive. A Series whose index holds names
            is matched by name.
        names : sequence of str
            Unique names.
        checkpoints : sequence of (str or path-like or None), default=None
            Files with the trained weights.
        architectures : sequence of (str or None), or str, default=None
            Names of the networks; one str serves all.
        n_classes : sequence of (int or None), default=None
            Numbers of classes of the source networks.
        metadata : sequence of (dict or None), default=None
            Anything else worth keeping, as JSON types.
        fingerprint : str, default=None
            Fingerprint of the reference network; None takes the one that vectors of
            a DatasetEmbedder carry.

        Returns
        -------
        catalog : SourceCatalog

        Raises
        ------
        ValueError
            For repeated names, sizes that are not positive, or lengths that differ.
        """
        names = list(names)
        if embeddings is None:
            embeddings = np.empty((len(names), 0))
        if hasattr(sizes, "loc") and any(name in sizes.index for name in names):
            absent = [name for name in names if name not in sizes.index]
            if absent:
                raise ValueError(
                    f"sizes must have a number for every name, got none for {absent}."
                )
            sizes = sizes.loc[names]
        if isinstance(architectures, str):
            architectures = [architectures] * len(names)
        columns = {}
        for key, argument, values in [
            ("checkpoint", "checkpoints", checkpoints),
            ("architecture", "architectures", architectures),
            ("n_classes", "n_classes", n_classes),
            ("metadata", "metadata", metadata),
        ]:
            values = [None] * len(names) if values is None else list(values)
            if len(values) != len(names):
                raise ValueError(
                    f"{argument} must have one entry per name ({len(names)}), got "
                    f"{len(values)}."
                )
            columns[key] = values
        details = [
            _check_details(name, **dict(zip(columns, values)))
            for name, values in zip(names, zip(*columns.values()))
        ]
        return cls._make(
            names=names,
            sizes=sizes,
            embeddings=embeddings,
            details=details,
            fingerprint=fingerprint,
        )

    @classmethod
    def from_frame(cls, frame, *, fingerprint=None):
        """Build a catalog from a pandas DataFrame, one row per source.

        Parameters
        ----------
        frame : DataFrame
            The index holds the names (or a column "name" does); column "size" the
            numbers of training examples; columns "checkpoint", "architecture" and
            "n_classes", where present, the details; all other columns are features.
        fingerprint : str, default=None
            Fingerprint of the reference network.

        Returns
        -------
        catalog : SourceCatalog

        Raises
        ------
        ValueError
            If there is no column "size" or a feature column is not numeric.
        """
        if "size" not in frame.columns:
            raise ValueError(
                "frame must have a column 'size', the number of training examples, "
                f"got columns {list(frame.columns)}."
            )
        if "name" in frame.columns:
            frame = frame.set_index("name")
        special = {"size", "checkpoint", "architecture", "n_classes"}
        features = [column for column in frame.columns if column not in special]
        textual = [
            c
            for c in features
            if not np.issubdtype(np.asarray(frame[c]).dtype, np.number)
        ]
        if textual:
            raise ValueError(
                f"feature columns of frame must be numeric, got text in {textual}; "
                "drop them or pass them as metadata to from_arrays."
            )

        def column(key, convert):
            if key not in frame.columns:
                return None
            missing = frame[key].isna()
            return [None if m else convert(v) for v, m in zip(frame[key], missing)]

        return cls.from_arrays(
            frame[features].to_numpy(dtype=np.float64),
            sizes=frame["size"].to_numpy(),
            names=list(frame.index),
            checkpoints=column("checkpoint", os.fspath),
            architectures=column("architecture", str),
            n_classes=column("n_classes", int),
            fingerprint=fingerprint or fingerprint_of(frame[features]),
        )

    def __setattr__(self, name, value):
        raise AttributeError(
            "a SourceCatalog is immutable; append() and indexing return a new one."
        )

    def __sklearn_clone__(self):
        return self

    def __len__(self):
        return len(self.names)

    def __iter__(self):
        return (self._source(j) for j in range(len(self)))

    def __contains__(self, name):
        return name in self.names

    def __getitem__(self, key):
        if isinstance(key, (str, Integral)) and not isinstance(key, bool):
            return self._source(self._index(key))
        if isinstance(key, slice):
            indices = list(range(len(self)))[key]
        elif np.asarray(key).dtype == bool:
            if np.shape(key) != (len(self),):
                raise IndexError(
                    f"a mask must have one entry per source ({len(self)}), got shape "
                    f"{np.shape(key)}."
                )
            indices = np.flatnonzero(key).tolist()
        else:
            indices = [self._index(item) for item in key]
        if not indices:
            raise ValueError("a catalog must have at least one source, none selected.")
        return self._make(
            names=[self.names[j] for j in indices],
            sizes=self.sizes[indices],
            embeddings=self.embeddings[indices],
            details=[self._details[j] for j in indices],
            fingerprint=self.fingerprint,
        )

    def __eq__(self, other):
        if not isinstance(other, SourceCatalog):
            return NotImplemented
        return (
            self.names == other.names
            and self.fingerprint == other.fingerprint
            and self._details == other._details
            and np.array_equal(self.sizes, other.sizes)
            and np.array_equal(self.embeddings, other.embeddings)
        )

    def __hash__(self):
        return hash((self.names, tuple(self.sizes.tolist()), self.fingerprint))

    def __repr__(self):
        shown = [
            f"{name} ({size:,})" for name, size in zip(self.names, self.sizes.tolist())
        ]
        if len(shown) > 6:
            shown = [*shown[:5], "..."]
        sources = "source" if len(self) == 1 else "sources"
        return (
            f"SourceCatalog({len(self)} {sources}, {self.n_features} features: "
            f"{', '.join(shown)})"
        )

    def _repr_html_(self):
        """Show the catalog as a table in notebooks, the first sources of a long one."""
        shown = range(min(len(self), _ROWS_SHOWN))
        keys = ("architecture", "n_classes", "checkpoint")
        rows = ""
        for j in shown:
            details = [self._details[j][key] for key in keys]
            details[2] = details[2] and os.path.basename(details[2])
            rows += _html_row("td", self.names[j], f"{self.sizes[j]:,}", *details)
        more = len(self) - len(shown)
        caption = f"{len(self):,} source{'s' * (len(self) != 1)}, {self.n_features:,} "
        caption += f"features of {self.fingerprint or 'an unknown reference network'}"
        return (
            f"<table><caption>{html.escape(caption)}</caption><thead>"
            f"{_html_row('th', 'name', 'size', *keys)}</thead><tbody>{rows}"
            f"{_html_row('td', f'and {more:,} more') if more else ''}</tbody></table>"
        )

    def __getstate__(self):
        return dict(self.__dict__, embeddings=np.asarray(self.embeddings))

    def __setstate__(self, state):
        for key in ("embeddings", "sizes"):
            state[key].flags.writeable = False
        self.__dict__.update(state)

    @property
    def n_features(self):
        """Width of the summary vectors."""
        return self.embeddings.shape[1]

    def _index(self, key):
        if isinstance(key, str):
            if key not in self.names:
                raise KeyError(
                    f"no source {key!r}; the sources are {list(self.names)}."
                )
            return self.names.index(key)
        if not -len(self) <= key < len(self):
            raise IndexError(f"no source {key}: the catalog has {len(self)}.")
        return int(key)

    def _source(self, j):
        return Source(
            self.names[j],
            size=self.sizes[j].item(),
            embedding=self.embeddings[j],
            fingerprint=self.fingerprint,
            **self._details[j],
        )

    def append(self, *sources):
        """Return a new catalog with more sources at its end.

        Parameters
        ----------
        *sources : Source or SourceCatalog
            What to add; names must be new, fingerprints the same where known.

        Returns
        -------
        catalog : SourceCatalog
        """
        added = []
        for source in sources:
            added += list(source) if isinstance(source, SourceCatalog) else [source]
        return SourceCatalog([*self, *added], fingerprint=self.fingerprint)

    def save(self, folder, *, copy_checkpoints=True):
        """Write the catalog to a folder as JSON and npy, replacing one that is there.

        The folder is complete at every moment: the JSON file is replaced atomically
        after everything it names has been written.

        Parameters
        ----------
        folder : str or path-like
            Created if needed.
        copy_checkpoints : bool, default=True
            Copy checkpoints into the folder, so that it can be shared as a whole;
            False keeps their absolute paths.

        Returns
        -------
        folder : Path
        """
        folder = Path(folder).absolute()
        checkpoints = [detail["checkpoint"] for detail in self._details]
        for name, checkpoint in zip(self.names, checkpoints):
            if copy_checkpoints and checkpoint and not os.path.isfile(checkpoint):
                raise FileNotFoundError(
                    f"the checkpoint of source {name!r} is not there: {checkpoint}; "
                    "pass copy_checkpoints=False to save the catalog without it."
                )
        folder.mkdir(parents=True, exist_ok=True)
        replaced = _read_catalog_file(folder).get("embeddings")
        if copy_checkpoints:
            checkpoints = [
                checkpoint and _store_checkpoint(Path(checkpoint), folder, name)
                for name, checkpoint in zip(self.names, checkpoints)
            ]
        array = np.ascontiguousarray(self.embeddings)
        digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array)
        array_name = f"embeddings-{digest.hexdigest()[:16]}.npy"
        if not (folder / array_name).exists():
            with atomic_write(folder / array_name) as file:
                np.save(file, array)
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "fingerprint": self.fingerprint,
            "embeddings": array_name,
            "sources": [
                {"name": name, "size": size, **detail, "checkpoint": checkpoint}
                for name, size, detail, checkpoint in zip(
                    self.names, self.sizes.tolist(), self._details, checkpoints
                )
            ],
        }
        text = json.dumps(content, indent=1, ensure_ascii=False)
        with atomic_write(folder / "catalog.json") as file:
            file.write(text.encode())
        if replaced not in (None, array_name):
            (folder / replaced).unlink(missing_ok=True)
        return folder

    @classmethod
    def load(cls, folder):
        """Read a catalog that :meth:`save` wrote.

        Vectors of more than 64 MiB are memory-mapped. Nothing in the folder is ever
        executed or unpickled.

        Parameters
        ----------
        folder : str or path-like
            The folder.

        Returns
        -------
        catalog : SourceCatalog

        Raises
        ------
        ValueError
            If the folder holds no catalog, or one of a newer format.
        """
        folder = Path(folder).absolute()
        content = _read_catalog_file(folder)
        if not content:
            raise ValueError(
                f"{folder} must be a folder written by SourceCatalog.save, got one "
                "without a readable catalog.json."
            )
        version = content["version"]
        if version > _VERSION:
            raise ValueError(
                f"the catalog in {folder} has format version {version}, this release "
                f"reads up to {_VERSION}; upgrade sklearn-p2l."
            )
        array_file = folder / content["embeddings"]
        large = array_file.stat().st_size > _MEMORY_MAP_BYTES
        embeddings = np.load(
            array_file, mmap_mode="r" if large else None, allow_pickle=False
        )
        details = []
        for record in content["sources"]:
            detail = {key: record[key] for key in _DETAILS}
            if detail["checkpoint"] is not None:
                # Joining keeps an absolute path as it is.
                detail["checkpoint"] = os.path.abspath(folder / detail["checkpoint"])
            details.append(detail)
        return cls._make(
            names=[record["name"] for record in content["sources"]],
            sizes=[record["size"] for record in content["sources"]],
            embeddings=embeddings,
            details=details,
            fingerprint=content["fingerprint"],
        )


def check_same_fingerprint(given, expected, what):
    """Raise unless both fingerprints are the same or one is unknown (None)."""
    if given is not None and expected is not None and given != expected:
        raise ValueError(
            f"{what} must come from the same reference network as the catalog, "
            f"{expected!r}, got {given!r}; embed all datasets with the same backbone, "
            "weights (random ones with the same random_state), layer, summary and "
            "image_size."
        )


def fingerprint_of(X):
    """Return the fingerprint that vectors carry, or None if they carry none.

    Arrays of a DatasetEmbedder carry it themselves, its DataFrames in the names of
    their columns, "<fingerprint>#<number>". These must be of one network and in order.
    """
    if not hasattr(X, "columns"):
        origin = getattr(X, "origin", None)
        return origin if isinstance(origin, str) else None
    names = [re.fullmatch(r"(.+)#(\d+)", str(column)) for column in X.columns]
    if not names or None in names:
        return None
    stems, numbers = zip(*((name[1], int(name[2])) for name in names))
    if len(set(stems)) > 1:
        raise ValueError(
            "the columns of a DataFrame must come from one reference network, got "
            f"{sorted(set(stems))}."
        )
    if list(numbers) != sorted(set(numbers)):
        raise ValueError(
            f"the columns of a DataFrame must be in order, {X.columns[0]!r} comes too "
            "early or late; sort them by the number at their end."
        )
    return stems[0]


@contextmanager
def atomic_write(path):
    """Open a binary file that replaces `path` only when it was written in full."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with open(unfinished, "xb") as file:
            yield file
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _html_row(tag, *cells):
    cells = ["" if cell is None else html.escape(str(cell)) for cell in cells]
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"


def _check_name(name):
    if not isinstance(name, str) or not name:
        raise ValueError(f"names of sources must be non-empty str, got {name!r}.")
    return str(name)  # NumPy's str, too


def _check_details(name, *, checkpoint, architecture, n_classes, metadata):
    """Check what a catalog keeps of a source, as it is kept."""
    if checkpoint is not None:
        checkpoint = os.path.abspath(checkpoint)
    if architecture is not None and not isinstance(architecture, str):
        raise ValueError(
            f"architecture of source {name!r} must be a str or None, got "
            f"{architecture!r}."
        )
    if n_classes is not None:
        if not isinstance(n_classes, Integral) or n_classes < 1:
            raise ValueError(
                f"n_classes of source {name!r} must be a positive int or None, got "
                f"{n_classes!r}."
            )
        n_classes = int(n_classes)
    if metadata is not None:
        try:
            metadata = json.loads(json.dumps(metadata))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"metadata of source {name!r} must be JSON types, got {error}."
            ) from error
    return {
        "checkpoint": checkpoint,
        "architecture": architecture,
        "n_classes": n_classes,
        "metadata": metadata,
    }


def _check_sizes(sizes):
    sizes = np.array(sizes)
    if sizes.ndim != 1 or sizes.dtype.kind not in "iuf":
        raise ValueError(
            "sizes must be positive numbers, one per source, got "
            f"{sizes.ravel().tolist()[:5]}."
        )
    wrong = ~(np.isfinite(sizes) & (sizes > 0))
    if wrong.any():
        raise ValueError(
            "sizes must be positive and finite (numbers of training examples), got "
            f"{sizes[wrong][0]}."
        )
    return sizes.astype(np.float64 if sizes.dtype.kind == "f" else np.int64)


def _read_catalog_file(folder):
    """Return the content of a folder's catalog.json; empty if there is none."""
    try:
        content = json.loads((folder / "catalog.json").read_text(encoding="utf-8"))
        keys = {"version", "fingerprint", "embeddings", "sources"}
        # The folder may be a stranger's: no path that leads out of it.
        named = re.fullmatch(r"embeddings-[0-9a-f]{16}\.npy", content["embeddings"])
        known = content["format"] == _FORMAT and keys <= set(content)
        return content if known and named else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _store_checkpoint(checkpoint, folder, name):
    """Copy a checkpoint into `folder` and return its path there.

    Its name holds a hash of its content, so nothing that is there is overwritten.
    """
    checkpoint = checkpoint.resolve()
    if checkpoint.is_relative_to(folder.resolve()):
        return checkpoint.relative_to(folder.resolve()).as_posix()
    digest = hashlib.sha256()
    with open(checkpoint, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name[:80])
    file_name = f"{safe}-{digest.hexdigest()[:16]}{checkpoint.suffix}"
    stored = folder / "checkpoints" / file_name
    if not stored.exists():
        stored.parent.mkdir(exist_ok=True)
        with open(checkpoint, "rb") as source, atomic_write(stored) as target:
            shutil.copyfileobj(source, target)
    return stored.relative_to(folder).as_posix()
