"""LogME and a linear probe of PCNN features beside equation 2, on measured relations.

    python benchmarks/relations/evidence.py --folder work/relations

needs the sources' networks in the folder of `run.py` (it trains them if they are not
there, about ten minutes), and takes two minutes then. Writes EVIDENCE.md.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from evaluate import Truth
from run import train_zoo
from tasks import load_tasks

sys.path.insert(0, str(Path(__file__).parents[1]))
from report import Report, bootstrap_interval

from sklearn_p2l import EvidenceSelector, SourceSelector
from sklearn_p2l.metrics import regret_loss, spearman_score

HERE = Path(__file__).parent
OPENED = ["logme", "probe", "knn"]
ONE_PASS = ["size", "prior", "similar_targets", "kl", "separability"]
RANKERS = {
    **{name: [name] for name in [*ONE_PASS, *OPENED]},
    "one pass": ONE_PASS,
    "all": [*ONE_PASS, *OPENED],
    "size, prior and LogME": ["size", "prior", "logme"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True, help="that of run.py")
    folder = Path(parser.parse_args().folder)
    sources, targets = load_tasks()
    truth = Truth()
    improvement, baseline = truth.improvement().to_numpy(), truth.main["none"]
    settings = dict(class_means=True, memory=folder / "vectors")
    zoo, reference = train_zoo(sources, folder, n_jobs=2, **settings)
    tasks = [targets[name] for name in truth.names]
    vectors = reference.fit(tasks).transform(tasks)
    E = {"equation 2": rank_without(zoo, vectors, improvement, SourceSelector(zoo))}
    for name, signals in RANKERS.items():
        selector = EvidenceSelector(
            zoo, embedder=reference, signals=signals, memory=folder / "features"
        )
        E[name] = rank_without(zoo, tasks, improvement, selector)
    page = Report()
    page.add(TEXT)
    page.table(table_of(E, improvement, baseline.to_numpy()))
    page.write(HERE / "EVIDENCE.md")


def rank_without(zoo, X, improvement, selector):
    """E of every target among all sources but its own subtask, which has -inf.

    Weights are learned from the other targets.
    """
    n = len(zoo)
    E = np.full((n, n), -np.inf)
    for i in range(n):
        others = np.delete(np.arange(n), i)
        is_list = isinstance(X, list)
        training = [X[j] for j in others] if is_list else X[others]
        selector.fit(training, improvement[others])
        chosen = selector.with_sources(zoo[others])
        E[i, others] = chosen.decision_function([X[i]] if is_list else X[[i]])[0]
    return E


def table_of(rankings, improvement, baseline):
    """Means over targets, and differences to the first ranker, with intervals."""
    rows, first = {}, None
    settings = dict(baseline=baseline, average=None)
    for name, E in rankings.items():
        rho = spearman_score(improvement, E, average=None)
        regret = [regret_loss(improvement, E, top=n, **settings) for n in (1, 2, 3)]
        best = np.argmax(E, axis=1) == np.nanargmax(improvement, axis=1)
        first = first or (rho, regret[0])
        low, high = bootstrap_interval(rho - first[0])
        lost_low, lost_high = bootstrap_interval(regret[0] - first[1])
        lost = np.mean(regret[0] - first[1])
        rows[name] = {
            "ρ": f"{rho.mean():.2f}",
            "ρ: difference": f"{np.mean(rho - first[0]):+.2f} "
            f"({low:+.2f} to {high:+.2f})",
            "best picked": f"{best.mean():.0%}",
            "regret@1": f"{regret[0].mean():.1%}",
            "regret@1: difference": f"{lost:+.1%} "
            f"({lost_low:+.1%} to {lost_high:+.1%})",
            "regret@2": f"{regret[1].mean():.1%}",
            "regret@3": f"{regret[2].mean():.1%}",
        }
    return pd.DataFrame(rows).T.rename_axis("ranked by")


TEXT = """# Ranking relations by evidence

What `python benchmarks/relations/evidence.py --folder work/relations` has measured, on
the subtasks of [README.md](README.md), leave-one-target-out; a target's own subtask is
no candidate. *Regret@n*: what the best of the first n lacks of the best AUC-PR,
relative. *Difference*: to equation 2 with KL; intervals are 95 % of bootstrap resamples
of the targets, which are eight.

Signals are named as in `EvidenceSelector`: LogME, probe and neighbours are of the
features of each source's own PCNN, whose labels are several per pair.
"""


if __name__ == "__main__":
    main()
