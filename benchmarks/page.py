"""Put measured tables into pages: those of speed into benchmarks/README.md.

Each table stands between a comment that names its file and ``<!-- end -->``; the text
around them is written by hand. Run as ``python benchmarks/page.py``.
"""

import csv
import re
from pathlib import Path

HERE = Path(__file__).parent


def table(path):
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    rows[0] = [name.replace("_", " ") for name in rows[0]]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def fill(text):
    """Return the page with its tables as their files are now."""

    def tables(match):
        name = match[1]
        return f"<!-- {name} -->\n\n{table(HERE / name)}\n\n<!-- end -->"

    return re.sub(r"<!-- (\S+\.csv) -->.*?<!-- end -->", tables, text, flags=re.DOTALL)


def fill_file(page):
    page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    fill_file(HERE / "README.md")
