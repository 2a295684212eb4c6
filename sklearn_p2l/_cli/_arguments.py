"""What may stand on a command line."""

import argparse
import math

from sklearn_p2l._cli import _catalogs, _rankings, _tuning
from sklearn_p2l._version import __version__
from sklearn_p2l.divergence import METRICS
from sklearn_p2l.embedding import DatasetEmbedder
from sklearn_p2l.tuning import NetworkClassifier


def read_arguments(argv=None):
    """Parse a command line; `run` of the result is the function of its command."""
    return _parser().parse_args(argv)


class _Parser(argparse.ArgumentParser):
    """A parser that tells what is wrong in one line."""

    def error(self, message):
        message = " ".join(message.splitlines())
        self.exit(2, f"p2l: error: {message}; see {self.prog} --help\n")


def _parser():
    parser = _Parser(
        prog="p2l",
        description="Predict which pre-trained source to fine-tune for a dataset. "
        "Results go to stdout, progress and warnings to stderr; bad input ends with "
        "one line and exit code 2, an interrupt with 130.",
    )
    parser.add_argument("--version", action="version", version=f"p2l {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_embed(commands)
    catalog = commands.add_parser("catalog", help="add, list, show or remove sources")
    actions = catalog.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_catalog_add(actions)
    _add_catalog_list(actions)
    _add_catalog_show(actions)
    _add_catalog_remove(actions)
    _add_rank(commands)
    _add_learn_k(commands)
    _add_tune(commands)
    _add_predict(commands)
    return parser


def _add_embed(commands):
    embed = commands.add_parser(
        "embed",
        help="print the vectors of datasets, one JSON line each",
        description="Print name, size, fingerprint and vector of each dataset as a "
        "line of JSON, which the other commands take in place of the dataset.",
    )
    _add_datasets(embed, "datasets", nargs="+")
    _add_network_options(embed)
    embed.set_defaults(run=_rankings.embed)


def _add_catalog_add(actions):
    add = actions.add_parser(
        "add",
        help="embed a dataset and add it as a source",
        description="Embed the dataset that a source was trained on and add it to a "
        "catalog, which is made if there is none. The reference network is the one of "
        "the sources that are there, unless options say otherwise.",
    )
    _add_catalog(add)
    add.add_argument("name", metavar="NAME", help="name of the source")
    _add_datasets(add, "dataset")
    add.add_argument(
        "--size",
        type=int,
        help="number of examples the source was trained on (default: the images in "
        "the folder)",
    )
    add.add_argument(
        "--checkpoint",
        help="file of the trained network, which is tried and copied into the "
        "catalog; or the name of published weights, such as IMAGENET1K_V1, which is "
        "only noted",
    )
    add.add_argument(
        "--architecture",
        help="architecture of the checkpoint (default: the one that the file names)",
    )
    add.add_argument("--n-classes", type=int, help="number of classes it knows")
    _add_network_options(add)
    add.set_defaults(run=_catalogs.add)


def _add_catalog_list(actions):
    list_ = actions.add_parser("list", help="list the sources")
    _add_catalog(list_)
    _add_format(list_)
    list_.set_defaults(run=_catalogs.list_)


def _add_catalog_show(actions):
    show = actions.add_parser("show", help="show all that is known of one source")
    _add_catalog(show)
    show.add_argument("name", metavar="NAME", help="name of the source")
    _add_format(show)
    show.set_defaults(run=_catalogs.show)


def _add_catalog_remove(actions):
    remove = actions.add_parser(
        "remove",
        help="take sources out",
        description="Take sources out of a catalog, which keeps at least one. Their "
        "checkpoints stay where they are; those in the folder of the catalog that no "
        "source needs any more are named.",
    )
    _add_catalog(remove)
    remove.add_argument("names", metavar="NAME", nargs="+", help="name of a source")
    remove.set_defaults(run=_catalogs.remove)


def _add_rank(commands):
    rank = commands.add_parser(
        "rank",
        help="rank the sources for a dataset",
        description="Rank the sources of a catalog for a dataset, best first, by E = "
        "z(log size) + k z(divergence), or with --evidence by all that is at hand.",
    )
    _add_datasets(rank, "dataset")
    rank.add_argument(
        "catalog",
        metavar="CATALOG",
        nargs="?",
        help="folder of a SourceCatalog (default: the zoo of small networks that comes "
        "with the package, and what was measured with it)",
    )
    _add_k(rank, default=argparse.SUPPRESS)
    _add_metric(rank, default=argparse.SUPPRESS)
    rank.add_argument(
        "--exclude-self",
        action="store_true",
        help="leave out a source that is the dataset itself, at no distance from it",
    )
    rank.add_argument("--top", type=int, metavar="N", help="print the best N only")
    _add_format(rank)
    group = rank.add_argument_group("options of the evidence")
    group.add_argument(
        "--evidence",
        action="store_true",
        help="for a folder with a subfolder for each class: rank by sizes, vectors, "
        "classes and the features of the sources' own networks, whatever is there",
    )
    group.add_argument(
        "--opened",
        default=argparse.SUPPRESS,
        type=_count,
        metavar="N",
        help="open the networks of the first N sources by the rest only",
    )
    group.add_argument(
        "--improvements",
        default=argparse.SUPPRESS,
        metavar="CSV",
        help="measured improvements, as for learn-k, from which weights are learned; "
        "then chances are told",
    )
    group.add_argument(
        "--targets",
        default=argparse.SUPPRESS,
        nargs="+",
        metavar="FOLDER",
        help="the targets that these were measured on, named as in the CSV file",
    )
    _add_network_options(rank)
    rank.set_defaults(run=_rankings.rank)


def _add_learn_k(commands):
    learn_k = commands.add_parser(
        "learn-k",
        help="learn k from measured improvements",
        description="Learn k from a CSV file of improvements: a row for each target, "
        "named in the first column, and a column for each measured source, named as "
        "in the catalog; empty where not measured.",
    )
    learn_k.add_argument("improvements", metavar="CSV", help="measured improvements")
    _add_catalog(learn_k)
    _add_datasets(learn_k, "datasets", nargs="+")
    _add_metric(learn_k)
    learn_k.add_argument(
        "--top-sources",
        type=int,
        metavar="N",
        help="judge by the N best measured sources of each target only",
    )
    _add_format(learn_k)
    _add_network_options(learn_k)
    learn_k.set_defaults(run=_rankings.learn_k)


def _add_tune(commands):
    tune = commands.add_parser(
        "tune",
        help="train a classifier, from the source that fits best",
        description="Train a classifier of the images in a folder with a subfolder for "
        "each class, write it to a file, and print its accuracy on images that it has "
        "not seen. It starts from the source of the catalog that is ranked first and "
        "has a checkpoint, from the one that is named, or from --backbone and "
        "--weights. The file names architecture, image size and "
        "classes; it serves as --checkpoint of p2l catalog add.",
    )
    tune.add_argument(
        "dataset", metavar="FOLDER", help="folder with a subfolder for each class"
    )
    tune.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="file to write, ending in .safetensors; replaced if it is there",
    )
    test = tune.add_mutually_exclusive_group()
    test.add_argument(
        "--test-size",
        type=_share,
        default=0.2,
        help="share of the images of each class to test on (default: %(default)s)",
    )
    test.add_argument(
        "--test", metavar="FOLDER", help="another such folder, with images to test on"
    )
    _add_format(tune)
    group = tune.add_argument_group("options of the source")
    group.add_argument(
        "--catalog",
        help="folder of a SourceCatalog (default: the zoo that comes with the package, "
        "unless --backbone is given)",
    )
    group.add_argument(
        "--source",
        default=argparse.SUPPRESS,
        metavar="NAME",
        help="start from this one",
    )
    _add_k(group, default=argparse.SUPPRESS)
    _add_metric(group, default=argparse.SUPPRESS)
    group.add_argument(
        "--evidence",
        action="store_true",
        help="choose by all that is at hand, as p2l rank --evidence does",
    )
    group.add_argument(
        "--try",
        default=argparse.SUPPRESS,
        type=_count,
        metavar="N",
        help="try the first N in cross-validation, and train from the best of them",
    )
    _add_training_options(tune)
    tune.set_defaults(run=_tuning.tune)


def _add_predict(commands):
    predict = commands.add_parser(
        "predict",
        help="tell the classes of images, by what tune has written",
        description="Print the class of each image and its probability, as the network "
        "sees it that p2l tune has written.",
    )
    predict.add_argument(
        "model", metavar="MODEL", help="file that p2l tune has written"
    )
    predict.add_argument(
        "images", nargs="+", metavar="IMAGES", help="files, or folders with images"
    )
    _add_format(predict)
    predict.add_argument(
        "--device", default="auto", help="cpu, cuda or auto (default: %(default)s)"
    )
    predict.set_defaults(run=_tuning.predict)


def _add_catalog(parser):
    parser.add_argument("catalog", metavar="CATALOG", help="folder of a SourceCatalog")


def _add_datasets(parser, name, **settings):
    parser.add_argument(
        name,
        metavar="DATASET",
        help="folder of images, .tsv or .tsv.gz file of bags of sentences, or file of "
        "what embed has printed (- for stdin)",
        **settings,
    )


def _add_format(parser):
    parser.add_argument(
        "--format",
        choices=["table", "json"],
        default="table",
        help="json: full precision, one line each (default: %(default)s)",
    )


def _add_k(parser, default):
    parser.add_argument(
        "--k",
        default=default,
        help="weight of the divergence, negative to prefer near sources: a number, or "
        "a file that learn-k has printed as JSON (default: -1; for the zoo that comes "
        "with the package the one that was learned with it)",
    )


def _add_metric(parser, default=None):
    parser.add_argument(
        "--metric",
        choices=sorted(METRICS),
        default=default,
        help="the divergence (default: kl)",
    )


class _Options:
    """Options that are parameters of an estimator, whose defaults hold without them."""

    def __init__(self, parser, title, estimator):
        self.group = parser.add_argument_group(title)
        self.defaults = estimator.get_params()

    def add(self, flag, text, **settings):
        name = flag.strip("-").replace("-", "_")
        default = self.defaults.get(name)
        text += f" (default: {default})" if default else ""
        settings = {"default": argparse.SUPPRESS, "help": text} | settings
        self.group.add_argument(flag, **settings)

    def add_quiet(self):
        self.add(
            "--quiet", "no progress", dest="verbose", action="store_const", const=0
        )


def _add_network_options(parser):
    title = "options of the reference network"
    options = _Options(parser, title, DatasetEmbedder(random_state=0))
    add = options.add
    text = "torchvision architecture, timm/NAME, hf/NAME, pcnn, small_resnet or file"
    add("--backbone", text)
    add("--weights", "DEFAULT, none (random), or a file", type=_weights)
    add("--layer", "node whose output is summarised (default: before the last layer)")
    add("--image-size", "side of the images, in pixels", type=int)
    add("--summary", "statistic", choices=["mean", "trimmed_mean", "median"])
    add("--random-state", "seed of random weights and samples", type=int)
    add("--max-samples", "samples read: a number, auto or none", type=_samples)
    add("--batch-size", "samples per forward pass", type=int)
    add("--precision", "float32, bfloat16, float16 or auto")
    add("--device", "cpu, cuda or auto")
    add("--n-jobs", "datasets embedded at the same time", type=int)
    add("--memory", "folder where summaries are kept, to embed each dataset once")
    add(
        "--skip-unreadable",
        "leave out what cannot be read, with a warning",
        dest="on_error",
        action="store_const",
        const="skip",
    )
    options.add_quiet()


def _add_training_options(parser):
    title = "options of the training"
    options = _Options(parser, title, NetworkClassifier())
    add = options.add
    text = "torchvision architecture, timm/NAME, hf/NAME, small_resnet or file"
    add("--backbone", text)
    add(
        "--weights",
        "DEFAULT, none (random) or a file (default: none)",
        type=_weights,
    )
    add("--epochs", "passes over the images", type=_count)
    add("--batch-size", "images per step", type=_count)
    add("--learning-rate", "largest learning rate of the last layer", type=_positive)
    add(
        "--image-size",
        "side of the images, in pixels (default: what the network was made for)",
        type=_count,
    )
    add(
        "--random-state",
        "seed of the split, of random weights and of the order (default: 0)",
        type=_seed,
        default=0,
    )
    add("--device", "cpu, cuda or auto")
    options.add_quiet()


def _weights(text):
    return None if text.lower() == "none" else text


def _samples(text):
    if text.lower() in ("auto", "none"):
        return "auto" if text.lower() == "auto" else None
    return _number(int, text, "a number, auto or none", lambda n: n >= 1)


def _count(text):
    return _number(int, text, "a number from 1", lambda n: n >= 1)


def _seed(text):
    return _number(int, text, "a number from 0", lambda n: 0 <= n < 2**32)


def _positive(text):
    return _number(float, text, "a number above 0", lambda x: 0 < x < math.inf)


def _share(text):
    return _number(float, text, "a number between 0 and 1", lambda x: 0 < x < 1)


def _number(kind, text, what, allows):
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not allows(number):
        raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}")
    return number
