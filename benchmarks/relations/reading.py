"""How fast text is read, beside merely splitting the same lines.

    python benchmarks/relations/reading.py --megabytes 1000

writes results/reading.csv. The text is generated, with contexts as long as real ones
(median 27 words), into a temporary folder.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from generated import context, sentences

from sklearn_p2l.datasets import read_bags

RESULTS = Path(__file__).parent / "results"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=1000, help="of text to read")
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        return read_once(*options.read)
    frame = pd.DataFrame(reading(options.megabytes)).set_index("what")
    RESULTS.mkdir(exist_ok=True)
    frame.to_csv(RESULTS / "reading.csv", float_format="%.4g")
    print(frame.to_string())


def reading(megabytes):
    """Megabytes a second and peak memory, each in a process of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in (megabytes // 10, megabytes):
            path = Path(folder) / f"{size}.tsv"
            write(path, size * 1_000_000)
            for how in ("split", "read_bags"):
                command = [sys.executable, __file__, "--read", how, str(path)]
                run = subprocess.run(
                    command, check=True, capture_output=True, text=True
                )
                seconds, peak = map(float, run.stdout.split())
                rows.append(
                    {
                        "what": f"{how}, {size} MB",
                        "rate": size / seconds,
                        "unit": "MB/s",
                        "peak_mib": peak,
                    }
                )
            rows[-1]["ratio"] = rows[-1]["rate"] / rows[-2]["rate"]
    return rows


def read_once(how, path):
    start = time.perf_counter()
    if how == "split":
        with open(path, "rb") as file:
            for line in file:
                line.rstrip(b"\r\n").decode("utf-8").split("\t")
    else:
        for _ in read_bags(path):
            pass
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(seconds, peak)


def write(path, n_bytes):
    rng = np.random.default_rng(0)
    contexts = [context(words, rng) for words in sentences(5000)]
    written, pair = 0, 0
    with open(path, "w", encoding="utf-8") as file:
        while written < n_bytes:
            pair += 1
            for i in rng.integers(len(contexts), size=1 + (rng.random() < 0.1)):
                c = contexts[i]
                spans = ["[{},{})".format(*s) for s in (c.span_1, c.span_2)]
                relation = ">r" if pair % 3 == 0 else ""
                fields = [f"e{pair:09}a", f"e{pair:09}b", "PER", "ORG", *spans]
                line = "\t".join([*fields, relation, c.text, c.url]) + "\n"
                file.write(line)
                written += len(line)


if __name__ == "__main__":
    main()
