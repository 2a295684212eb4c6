"""The documentation: ``sphinx-build -W -b html doc doc/_build/html``."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import sklearn_p2l

# Pictures are the same on every machine, and none of them opens a window.
os.environ["MPLBACKEND"] = "Agg"
# An example that warns does so on its page, or fails.
warnings.simplefilter("error", UserWarning)
sys.path.insert(0, str(Path(__file__).parent))

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
exclude_patterns = ["_build", "_templates", "auto_examples/*.ipynb"]
templates_path = ["_templates"]
default_role = "code"
suppress_warnings = ["config.cache"]

autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"(^|/)quickstart\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("sklearn_p2l",),
    "reference_url": {"sklearn_p2l": None},
    "reset_modules": ("matplotlib",),
    "min_reported_time": 1,
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "copyfile_regex": r".*\.rst",
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


def setup(app):
    """Write down what the command line says of itself."""
    folder = Path(__file__).parent / "generated" / "help"
    folder.mkdir(parents=True, exist_ok=True)
    for words in ([], ["embed"], ["catalog", "add"], ["rank"], ["learn-k"]):
        command = [sys.executable, "-m", "sklearn_p2l", *words, "--help"]
        env = os.environ | {"COLUMNS": "80", "NO_COLOR": "1"}
        text = subprocess.check_output(command, env=env, text=True)
        path = folder / f"{'_'.join(['p2l', *words])}.txt"
        path.write_text(text, encoding="utf-8")
