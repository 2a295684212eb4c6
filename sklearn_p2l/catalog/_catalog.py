"""The candidate sources of one zoo, as one immutable value."""

from numbers import Integral
from pathlib import Path

import numpy as np

from sklearn_p2l._provenance import check_same_fingerprint
from sklearn_p2l.catalog._arrays import check_content, stack
from sklearn_p2l.catalog._format import names_to_copy, read_catalog, write_catalog
from sklearn_p2l.catalog._inputs import position_of, positions_of
from sklearn_p2l.catalog._making import MakingMixin
from sklearn_p2l.catalog._show import one_line, table
from sklearn_p2l.catalog._source import Source, check_size, same_or_unknown


class SourceCatalog(MakingMixin):
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
        Numbers of training examples, read-only: of dtype int64 where all are known and
        whole, of dtype float64 otherwise, with NaN where unknown.

    embeddings : ndarray of shape (n_sources, n_features)
        Summary vectors, read-only, rows of NaN where unknown, and no columns where all
        are; memory-mapped where a large catalog was loaded.

    class_means : tuple of n_sources (ndarray of shape (n_means, n_features) or None)
        Means of each source's classes, read-only, at most 64; None where unknown.

    has_embedding : ndarray of bool of shape (n_sources,)
        Whether the vector of a source is known.

    column_names : tuple of str
        What :meth:`column` has at least one number of.

    fingerprint : str or None
        Fingerprint of the reference network; None if unknown.

    See Also
    --------
    Source : One of them.
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
        columns = dict.fromkeys(name for source in sources for name in source.columns)
        content = check_content(
            names=[source.name for source in sources],
            sizes=[source.size for source in sources],
            embeddings=stack([source.embedding for source in sources]),
            class_means=[source.class_means for source in sources],
            details=[source._details() for source in sources],
            columns={key: [s.columns.get(key) for s in sources] for key in columns},
            fingerprint=fingerprint,
        )
        self.__setstate__(content)

    @classmethod
    def _make(cls, **content):
        catalog = cls.__new__(cls)
        catalog.__setstate__(check_content(**content))
        return catalog

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
            return self._source(position_of(self.names, key))
        indices = positions_of(self.names, key)
        return self._make(
            names=[self.names[j] for j in indices],
            sizes=self.sizes[indices],
            embeddings=self.embeddings[indices],
            class_means=[self.class_means[j] for j in indices],
            details=[self._details[j] for j in indices],
            columns={key: values[indices] for key, values in self._columns.items()},
            fingerprint=self.fingerprint,
            unknown=self._unknown,
        )

    def __eq__(self, other):
        if not isinstance(other, SourceCatalog):
            return NotImplemented
        ours, theirs = self._known_columns(), other._known_columns()
        return (
            self.names == other.names
            and self.fingerprint == other.fingerprint
            and self._details == other._details
            and self._unknown == other._unknown
            and np.array_equal(self.sizes, other.sizes, equal_nan=True)
            and ours.keys() == theirs.keys()
            and all(np.array_equal(ours[k], theirs[k], equal_nan=True) for k in ours)
            and np.array_equal(self.embeddings, other.embeddings, equal_nan=True)
            and all(map(same_or_unknown, self.class_means, other.class_means))
        )

    def _known_columns(self):
        columns = self._columns.items()
        return {key: v for key, v in columns if not np.isnan(v).all()}

    def __hash__(self):
        # The hash of a NaN is its own in every array.
        sizes = tuple(np.nan_to_num(self.sizes).tolist())
        return hash((self.names, sizes, self.fingerprint))

    def __repr__(self):
        return one_line(self)

    def _repr_html_(self):
        """Show the catalog as a table in notebooks, the first sources of a long one."""
        return table(self)

    def __getstate__(self):
        return dict(self.__dict__, embeddings=np.asarray(self.embeddings))

    def __setstate__(self, state):
        means = [own for own in state["class_means"] if own is not None]
        columns = state["_columns"].values()
        for array in (state["embeddings"], state["sizes"], *columns, *means):
            array.flags.writeable = False
        self.__dict__.update(state)

    @property
    def n_features(self):
        """Width of the summary vectors; 0 where all are unknown."""
        return self.embeddings.shape[1]

    @property
    def has_embedding(self):
        """Whether the vector of a source is known, as a mask.

        Of vectors that are memory-mapped, it reads the first number each.
        """
        if self.n_features == 0:
            return np.zeros(len(self), dtype=bool)
        return ~np.isnan(np.asarray(self.embeddings[:, 0]))

    @property
    def column_names(self):
        """What :meth:`column` has at least one number of."""
        names = ("size", "n_classes", *self._columns)
        return tuple(name for name in names if not np.isnan(self.column(name)).all())

    def column(self, name):
        """Return one number of every source.

        Parameters
        ----------
        name : str
            "size", "n_classes", or one of the columns.

        Returns
        -------
        values : ndarray of shape (n_sources,)
            As floats, NaN where unknown.

        Raises
        ------
        KeyError
            If there is no such column.

        Examples
        --------
        >>> from sklearn_p2l import Source, SourceCatalog
        >>> catalog = SourceCatalog(
        ...     [Source("birds", columns={"accuracy": 0.75}), Source("cars", size=8144)]
        ... )
        >>> catalog.column("accuracy")
        array([0.75,  nan])
        >>> catalog.column_names
        ('size', 'accuracy')
        """
        if name == "size":
            return self.sizes.astype(np.float64)
        if name == "n_classes":
            known = [detail["n_classes"] for detail in self._details]
            return np.array(known, dtype=np.float64)  # None becomes NaN
        if name not in self._columns:
            raise KeyError(
                f"no column {name!r}; the columns are "
                f"{['size', 'n_classes', *self._columns]}."
            )
        return self._columns[name].copy()

    def _source(self, j):
        detail = self._details[j]
        vector = np.array(self.embeddings[j])
        known = vector.size > 0 and not np.isnan(vector[0])
        columns = {key: values[j].item() for key, values in self._columns.items()}
        return Source._from_checked(
            name=self.names[j],
            size=check_size(self.sizes[j], "sizes"),
            embedding=vector if known else None,
            class_means=self.class_means[j],
            checkpoint=detail["checkpoint"],
            architecture=detail["architecture"],
            n_classes=detail["n_classes"],
            columns={key: None if np.isnan(v) else v for key, v in columns.items()},
            metadata=detail["metadata"],
            fingerprint=self.fingerprint,
            _unknown=detail["unknown"],
        )

    def append(self, *sources):
        """Return a new catalog with more sources at its end.

        It has the columns of all, with NaN where a source has no number.

        Parameters
        ----------
        *sources : Source or SourceCatalog
            What to add; names must be new, fingerprints the same where known.

        Returns
        -------
        catalog : SourceCatalog

        Raises
        ------
        ValueError
            If a name is there already, or vectors are of another reference network.

        Examples
        --------
        >>> from sklearn_p2l import Source, SourceCatalog
        >>> catalog = SourceCatalog([Source("birds", size=5994)])
        >>> catalog.append(Source("cars", size=8144))
        SourceCatalog(2 sources, no vectors: birds (5,994), cars (8,144))
        """
        added, unknown = [*self], self._unknown
        for source in sources:
            if isinstance(source, SourceCatalog):
                added += source
                unknown = source._unknown | unknown
            else:
                added.append(source)
        grown = SourceCatalog(added, fingerprint=self.fingerprint)
        grown.__dict__["_unknown"] = unknown
        return grown

    def drop(self, *names):
        """Return a new catalog without some sources.

        Parameters
        ----------
        *names : str or int
            What to take away, by name or position.

        Returns
        -------
        catalog : SourceCatalog

        Raises
        ------
        KeyError
            If there is no source of that name.
        ValueError
            If nothing would be left.

        Examples
        --------
        >>> from sklearn_p2l import Source, SourceCatalog
        >>> catalog = SourceCatalog([Source("birds"), Source("cars")])
        >>> catalog.drop("birds").names
        ('cars',)
        """
        gone = {position_of(self.names, name) for name in names}
        kept = [j for j in range(len(self)) if j not in gone]
        if not kept:
            raise ValueError(
                "names must leave at least one source in the catalog, got all "
                f"{len(self)}."
            )
        return self[kept]

    def save(self, folder, *, copy_checkpoints=False):
        """Write the catalog to a folder as JSON and npy, replacing one that is there.

        The folder is complete at every moment: the JSON file is replaced atomically
        after everything it names has been written.

        Parameters
        ----------
        folder : str or path-like
            Created if needed.

        copy_checkpoints : bool or sequence of str, default=False
            Whose checkpoint files are copied into the folder, so that it can be shared
            as a whole: of all sources (True), of none, or of those named. Others keep
            their absolute paths. Files in the folder are known by their place in it,
            published checkpoints by their names.

        Returns
        -------
        folder : Path

        Raises
        ------
        FileNotFoundError
            If a file to be copied is not there.
        ValueError
            If `copy_checkpoints` names a source without a file.

        See Also
        --------
        SourceCatalog.load : Reads it.

        Examples
        --------
        >>> import tempfile
        >>> from sklearn_p2l import Source, SourceCatalog
        >>> catalog = SourceCatalog([Source("birds", size=5994)])
        >>> folder = catalog.save(tempfile.mkdtemp())
        >>> SourceCatalog.load(folder) == catalog
        True
        """
        folder = Path(folder).absolute()
        records = [
            {"name": source.name, "size": source.size, **detail}
            | {"columns": source.columns}
            for source, detail in zip(self, self._details)
        ]
        write_catalog(
            folder,
            records,
            self.embeddings if self.has_embedding.any() else None,
            self.class_means,
            fingerprint=self.fingerprint,
            unknown=self._unknown,
            copied=names_to_copy(records, copy_checkpoints),
        )
        return folder

    @classmethod
    def load(cls, folder):
        """Read a catalog that :meth:`save` wrote.

        Vectors of more than 64 MiB are memory-mapped. Nothing in the folder is ever
        executed or unpickled. What this release does not know is kept for the next
        :meth:`save`.

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
            If the folder holds no catalog, one of another version, or a damaged one; if
            a path in it leads out of the folder without being marked as external.

        See Also
        --------
        SourceCatalog.save : Writes it.

        Examples
        --------
        See :meth:`save`.
        """
        folder = Path(folder).absolute()
        content = read_catalog(folder)
        try:
            return cls._make(**content)
        except ValueError as error:
            raise ValueError(f"the catalog in {folder} is damaged: {error}") from error
