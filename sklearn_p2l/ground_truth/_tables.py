"""Records as tables."""

import warnings

from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Bunch

from sklearn_p2l.exceptions import FailedCellsWarning


def warn_of_failures(records):
    """Warn of cells without a result, and of those whose training learned nothing."""
    failed = [r for r in records if r["error"]]
    if failed:
        listed = "; ".join(f"{_name_of(r)}: {r['error']}" for r in failed[:10])
        warnings.warn(
            f"{len(failed)} of {len(records)} cells failed and are left out: {listed}"
            f"{'; ...' if len(failed) > 10 else ''}. Once the cause is mended, pass "
            "retry_failures=True to measure them again.",
            FailedCellsWarning,
            stacklevel=3,
        )
    dead = [r for r in records if r.get("converged") is False]
    if dead:
        listed = "; ".join(map(_name_of, dead[:10]))
        warnings.warn(
            f"{len(dead)} of {len(records)} trainings learned no more than always "
            f"giving the shares of the classes: {listed}"
            f"{'; ...' if len(dead) > 10 else ''}. They count as they are; a smaller "
            "or larger learning_rate, or more epochs, may mend them, under another "
            "folder.",
            ConvergenceWarning,
            stacklevel=3,
        )


def _name_of(record):
    source = record["source"] or "no transfer"
    return f"{record['target']} ← {source} (seed {record['seed']})"


def tables_of(pd, records, targets, sources):
    columns = ["target", "source", "seed", "performance", "error", "seconds"]
    frame = pd.DataFrame(records, columns=_columns(records, columns))
    frame["source"] = (
        frame["source"].astype(object).where(frame["source"].notna(), None)
    )
    frame["performance"] = frame["performance"].astype(float)
    without = frame[frame["source"].isna()].set_index(["target", "seed"])["performance"]
    transferred = frame[frame["source"].notna()].copy()
    keys = pd.MultiIndex.from_frame(transferred[["target", "seed"]])
    transferred["improvement"] = (
        transferred["performance"].to_numpy() - without.reindex(keys).to_numpy()
    )
    cells = transferred.groupby(["target", "source"])

    def table(values):
        return values.unstack().reindex(index=targets, columns=sources)

    return Bunch(
        # Equal means of several seeds stay equal in spite of round-off.
        improvements=table(cells["improvement"].mean().round(12)),
        performances=table(cells["performance"].mean().round(12)),
        baseline=without.groupby("target").mean().reindex(targets).round(12),
        spread=table(cells["improvement"].std()),
        records=frame,
        n_not_converged=sum(r.get("converged") is False for r in records),
    )


def _columns(records, first):
    keys = dict.fromkeys(first)
    for record in records:
        keys |= dict.fromkeys(record)
    return list(keys)
