"""The documentation: ``sphinx-build -W -b html doc doc/_build/html``."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd

import sklearn_p2l

# Pictures are the same on every machine, and none of them opens a window.
os.environ["MPLBACKEND"] = "Agg"
# An example that warns does so on its page, or fails.
warnings.simplefilter("error", UserWarning)

project = "sklearn-p2l"
author = "the sklearn-p2l developers"
project_copyright = author
version = release = sklearn_p2l.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx-mathjax-offline",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
default_role = "code"
suppress_warnings = ["config.cache"]  # the order of the gallery is a class

numpydoc_show_class_members = False
autodoc_typehints = "signature"  # in networks/ types stand nowhere else
toc_object_entries_show_parents = "hide"


class ByQuestion:
    """Order the examples as a newcomer asks."""

    order = (
        "choose_a_source published_networks evidence folder_of_images divergence_and_k "
        "size_and_similarity how_many_images add_a_source measure_ground_truth "
        "relations ready_features divergences serve_without_torch"
    ).split()

    def __init__(self, src_dir):
        pass

    def __call__(self, filename):
        return self.order.index(filename.removeprefix("plot_").removesuffix(".py"))


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"(^|/)quickstart\.py$",
    "within_subsection_order": ByQuestion,
    "ignore_repr_types": r"matplotlib|Path",
    "thumbnail_size": (480, 336),
    "abort_on_example_error": True,
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("sklearn_p2l",),
    "reference_url": {"sklearn_p2l": None},
    "reset_modules": ("matplotlib",),
    "show_memory": False,
    "write_computation_times": False,
    "show_signature": False,
    "download_all_examples": False,
}

html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["p2l.css"]
html_show_sourcelink = False
html_sidebars = {"index": [], "glossary": [], "whats_new": [], "contributing": []}
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "show_toc_level": 2,
    "navbar_align": "left",
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "secondary_sidebar_items": ["page-toc"],
}


def write_help(folder):
    """Write down what the command line says of itself."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (
        "p2l",
        "p2l embed",
        "p2l catalog add",
        "p2l catalog list",
        "p2l catalog show",
        "p2l catalog remove",
        "p2l rank",
        "p2l learn-k",
        "p2l tune",
        "p2l predict",
    ):
        _, *words = name.split()
        command = [sys.executable, "-m", "sklearn_p2l", *words, "--help"]
        env = os.environ | {"COLUMNS": "80", "NO_COLOR": "1"}
        text = subprocess.check_output(command, env=env, text=True)
        path = folder / f"{name.replace(' ', '_')}.txt"
        path.write_text(text, encoding="utf-8")


def write_tables(folder):
    """Take from the tables of the benchmark on images what a page has room for."""
    folder.mkdir(parents=True, exist_ok=True)
    results = Path(__file__).parents[1] / "benchmarks" / "transfer" / "results"

    def write(name, table, columns):
        table = table[columns].rename(columns=lambda column: column.replace("_", " "))
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.2f")

    learned = pd.read_csv(results / "A" / "divergences_and_k.csv")
    write("divergences_and_k", learned, ["reference", "divergence", "k", "ρ"])
    effects = pd.read_csv(results / "A" / "effects.csv").replace({"as above": "P2L"})
    of_size = effects["change"].str.contains("P2L|size|small|merged")
    columns = ["change", "Spearman", "best picked", "accuracy"]
    write("effects", effects[of_size], columns)
    judged = pd.read_csv(results / "A" / "judged.csv")
    columns = ["target", "pick", "performance", "best_performance", "spearman"]
    write("judged", judged[judged["selector"] == "P2L"], columns)
    columns = ["performance", "picked_best", "spearman"]
    rules = judged.groupby("selector", sort=False)[columns].mean().reset_index()
    write("rules", rules, ["selector", *columns])
    columns = ["random weights", "ImageNet (B2)", "mean source", "best source"]
    columns += ["spread over sources", "noise of a seed"]
    by_kind = {
        zoo.name: pd.read_csv(zoo / "matters.csv").groupby("kind")[columns].mean()
        for zoo in sorted(results.glob("[AB]"))
    }
    by_kind = pd.concat(by_kind, names=["zoo"]).reset_index()
    write("matters", by_kind, ["zoo", "kind", *columns])


def setup(app):
    """Make what pages include."""
    generated = Path(__file__).parent / "generated"
    write_help(generated / "help")
    write_tables(generated / "tables")
