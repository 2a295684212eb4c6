"""Small classification tasks out of the real images that ship with scikit-learn."""

import numpy as np
from sklearn.datasets import load_digits, load_sample_images
from sklearn.utils import Bunch, check_random_state

from sklearn_p2l._compat import import_pillow
from sklearn_p2l.task import Task

_SIDE = 16
# Photographs are cut into blocks of this side, and each block serves one role only.
_BLOCK = 40
# Sides of the windows that become patches, zoomed in to zoomed out.
_WINDOWS = (8, 16, 32)
# Radii of the Gaussian blur, in pixels of a patch.
_BLURS = (0.0, 0.6, 1.2)
# Patches with less contrast (standard deviation of their values) show nothing.
_MIN_CONTRAST = 15
_N_TEST = 500
_LUMINANCE = np.array([0.299, 0.587, 0.114])

_SOURCES = {
    "china_edges": ("china", "edges", 2000),
    "china_colours": ("china", "colour", 1000),
    "digit_rotations": ("digits", "rotation", 600),
    "flower_edges": ("flower", "edges", 400),
    "digits_0_to_4": ("digits", "low", 300),
    "china_zooms": ("china", "zoom", 250),
    "flower_blurs": ("flower", "blur", 200),
    "digits_5_to_9": ("digits", "high", 120),
}
_TRAINING_TARGETS = {
    "digits": ("digits", "digit", 100),
    "inverted_digits_0_to_4": ("inverted digits", "low", 60),
    "china_blurs": ("china", "blur", 90),
    "grey_flower_edges": ("grey flower", "edges", 80),
    "flower_colours": ("flower", "colour", 80),
    "grey_china_zooms": ("grey china", "zoom", 90),
}
_HELD_OUT_TARGETS = {
    "digits_5_to_9": ("digits", "high", 60),
    "inverted_digit_rotations": ("inverted digits", "rotation", 100),
    "grey_china_edges": ("grey china", "edges", 80),
    "china_zooms": ("china", "zoom", 90),
    "grey_china_blurs": ("grey china", "blur", 90),
}


def load_small_tasks(random_state=0):
    """Make source and target tasks out of scikit-learn's digits and two photographs.

    All images are real: scanned digits, and patches of the photographs "china.jpg" and
    "flower.jpg", 16 × 16 pixels. The tasks are to tell digits, the quarter turn that a
    digit was given, the direction of the strongest edges of a patch (of four), its
    strongest colour (of three), how far it was zoomed out (of three) or blurred (of
    three). No digit and no pixel of a photograph is used in more than one role:
    sources, training targets, held-out targets, and of these the training and the test
    images. A target has up to 500 test images, as many as there are.

    Parameters
    ----------
    random_state : int, RandomState instance or None, default=0
        Decides which images serve which role.

    Returns
    -------
    tasks : Bunch
        With the dicts `sources` (8), `training_targets` (6) and `held_out_targets`
        (5) from names to :class:`~sklearn_p2l.Task`: images `X`, uint8 of shape
        (n, 16, 16, 3), with labels `y`, int of shape (n,); targets also have a test
        part, `X_test` and `y_test`.

    Examples
    --------
    >>> from sklearn_p2l.datasets import load_small_tasks
    >>> tasks = load_small_tasks()
    >>> list(tasks.held_out_targets)[:2]
    ['digits_5_to_9', 'inverted_digit_rotations']
    >>> tasks.sources["digits_0_to_4"].X.shape
    (300, 16, 16, 3)
    """
    rng = check_random_state(random_state)
    shares = {"sources": 0.36, "training": 0.12, "training test": 0.2}
    shares |= {"held out": 0.12, "held out test": 0.2}
    pools = _pools(shares, rng)

    def make(pool, definition, n_samples):
        kind, question, _ = definition
        return _make_task(pools[pool], kind, question, n_samples, rng)

    sources = {
        name: Task(*make("sources", definition, definition[2]))
        for name, definition in _SOURCES.items()
    }
    targets = {}
    for role, definitions in [
        ("training", _TRAINING_TARGETS),
        ("held out", _HELD_OUT_TARGETS),
    ]:
        targets[role] = {}
        for name, definition in definitions.items():
            X_test, y_test = make(f"{role} test", definition, _N_TEST)
            X, y = make(role, definition, definition[2])
            targets[role][name] = Task(X, y, X_test=X_test, y_test=y_test)
    return Bunch(
        sources=sources,
        training_targets=targets["training"],
        held_out_targets=targets["held out"],
    )


def _pools(shares, rng):
    """Deal digits and blocks of the photographs out to the roles."""
    Image = import_pillow()
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = [np.asarray(Image.fromarray(i).resize((_SIDE, _SIDE))) for i in images]
    images = np.repeat(np.stack(images)[..., np.newaxis], 3, axis=-1)
    ends = np.cumsum(list(shares.values()))
    pools = {role: {} for role in shares}
    for role, part in zip(shares, _split(rng.permutation(len(images)), ends)):
        pools[role]["digits"] = (images[part], digits.target[part])
    for name, photo in zip(("china", "flower"), load_sample_images().images):
        rows, columns = photo.shape[0] // _BLOCK, photo.shape[1] // _BLOCK
        blocks = [
            photo[r * _BLOCK : (r + 1) * _BLOCK, c * _BLOCK : (c + 1) * _BLOCK]
            for r in range(rows)
            for c in range(columns)
        ]
        order = rng.permutation(len(blocks))
        for role, part in zip(shares, _split(order, ends)):
            pools[role][name] = [blocks[i] for i in part]
    return pools


def _split(items, ends):
    return np.split(items, np.rint(ends[:-1] * len(items)).astype(int))


def _make_task(pool, kind, question, n_samples, rng):
    material = kind.split()[-1]
    if material == "digits":
        images, labels = pool[material]
        keep = {"low": labels < 5, "high": labels >= 5}.get(question, labels >= 0)
        chosen = rng.permutation(np.flatnonzero(keep))[:n_samples]
        images, labels = images[chosen], labels[chosen]
        if question == "rotation":
            labels = rng.randint(4, size=len(images))
            turned = [np.rot90(i, turns) for i, turns in zip(images, labels)]
            images = np.stack(turned)
    else:
        images, labels = _patches(pool[material], question, n_samples, rng)
    if kind.startswith("grey"):
        grey = np.rint(images @ _LUMINANCE).astype(np.uint8)
        images = np.repeat(grey[..., np.newaxis], 3, axis=-1)
    if kind.startswith("inverted"):
        images = 255 - images
    return images, labels.astype(int)


def _patches(blocks, question, n_samples, rng):
    """Cut random square windows out of the blocks and ask a question about each."""
    from PIL import Image, ImageFilter

    patches, labels = [], []
    while len(patches) < n_samples:
        block, level = blocks[rng.randint(len(blocks))], rng.randint(3)
        window = _WINDOWS[level] if question == "zoom" else _SIDE
        top, left = rng.randint(_BLOCK - window + 1, size=2)
        patch = block[top : top + window, left : left + window]
        if patch.std() < _MIN_CONTRAST:
            continue
        image = Image.fromarray(patch).resize((_SIDE, _SIDE))
        if question == "blur":
            image = image.filter(ImageFilter.GaussianBlur(_BLURS[level]))
        patches.append(np.asarray(image))
        if question == "edges":
            level = _edge_direction(patches[-1])
        elif question == "colour":
            level = patches[-1].mean(axis=(0, 1)).argmax()
        labels.append(level)
    return np.stack(patches), np.array(labels)


def _edge_direction(patch):
    """Direction of the strongest edges, of four, by the structure tensor."""
    down, right = np.gradient(patch @ _LUMINANCE)
    angle = np.arctan2(2 * (down * right).sum(), (right**2 - down**2).sum()) / 2
    return int(np.rint(angle / (np.pi / 4))) % 4
