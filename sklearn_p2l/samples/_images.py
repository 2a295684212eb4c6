"""Image datasets in every form users have them, read as 8-bit RGB arrays.

Forms: an array of images, a sequence of images (arrays, PIL images) or of their
paths, a folder, a torch Dataset (map or iterable style). Nothing here imports torch.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count, islice
from pathlib import Path

import joblib
import numpy as np
from joblib import cpu_count
from sklearn.utils import gen_batches

from sklearn_p2l._compat import import_pillow
from sklearn_p2l.samples._features import column_of
from sklearn_p2l.samples._keeping import keeper
from sklearn_p2l.samples._modality import Modality
from sklearn_p2l.samples._sampling import (
    is_map_style,
    is_sequence,
    numbers_of,
    random_rows,
    reservoir,
)

# Files of a folder with other extensions are not images and are passed over.
IMAGE_EXTENSIONS = (
    ".bmp",
    ".gif",
    ".jpeg",
    ".jpg",
    ".pbm",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)

# Subfolders of these names are the parts of a split dataset rather than classes.
_TRAINING_PARTS = {"train", "training"}
_PARTS = _TRAINING_PARTS | {"test", "testing", "val", "valid", "validation"}

# Number of the EXIF tag that says how an image is to be turned.
_ORIENTATION = 0x0112

_RANGE = "uint8 in 0..255 or float in 0..1"


class ImageError(ValueError):
    """An image that cannot be used; its message names the image."""


def image_batches(
    dataset,
    batch_size,
    *,
    on_error="raise",
    skipped=None,
    transform=None,
    min_side=None,
    ahead=False,
):
    """Read a dataset of images in batches of 8-bit RGB arrays.

    Images are decoded and transformed by one thread per CPU.

    Conversions: grey images get three equal channels; floats are rounded to 8 bits;
    files are rotated as their EXIF data says; 16-bit files are scaled to 8 bits;
    palette and CMYK files become RGB; transparency is laid over white.

    Parameters
    ----------
    dataset : ndarray, sequence, str, path-like or torch Dataset
        Images: an array (n, H, W), (n, H, W, 1) or (n, H, W, 3), uint8 in 0..255 or
        float in 0..1; a sequence of such single images, PIL images or paths; a folder;
        a torch Dataset of images or of tuples that start with one (tensors as
        (C, H, W)).

    batch_size : int
        Images per batch.

    on_error : {"raise", "skip"}, default="raise"
        What to do with an image that cannot be used.

    skipped : list, default=None
        Collects the messages of skipped images.

    transform : callable, default=None
        Applied by several threads to each image, an array of shape (H, W, 3) or a PIL
        image in RGB, whichever it is without a copy, and to the box of it that the
        picture fills: left, upper, right and lower end in pixels. A JPEG file decoded
        at a reduced size may be padded by a part of one.

    min_side : int, default=None
        A JPEG file whose sides are both at least twice this many pixels may be
        decoded at half, a quarter or an eighth of its size, with no side below it.

    ahead : bool, default=False
        Whether to read the next batch while the caller is busy with one: worth it
        where that leaves the CPU idle.

    Yields
    ------
    batch : list of ndarray of shape (H, W, 3)
        Images as uint8, or what `transform` makes of them.

    Raises
    ------
    ValueError
        If the dataset is empty, or an image cannot be used and `on_error` is "raise":
        unreadable, truncated, with several frames, larger than Pillow's limit for
        decompression bombs, of a wrong shape or type, or with values out of range.
        The message names the file or the index of the image.
    """
    skipped = [] if skipped is None else skipped
    kept, pixels = keeper(), getattr(transform, "pixels", None)
    rule = pixels and (pixels, min_side)

    def read(i, image):
        return kept(image, rule, lambda: make(i, image))

    def make(i, image):
        try:
            rgb, box = read_image(image, f"image {i}", min_side)
        except ImageError as error:
            return error
        return np.asarray(rgb) if transform is None else transform(rgb, box)

    any_image = False
    batches = _numbered_batches(expand(dataset), batch_size)
    for results in _map_batches(read, batches, ahead):
        batch = []
        for result in results:
            if not isinstance(result, ImageError):
                batch.append(result)
            elif on_error == "raise":
                raise result
            else:
                skipped.append(str(result))
        if batch:
            any_image = True
            yield batch
    if not any_image:
        detail = f": all {len(skipped)} images were skipped" if skipped else ""
        raise ValueError(f"a dataset must have at least one image, got none{detail}.")


def list_images(folder):
    """List the image files below a folder (and its class folders), in sorted order.

    Parameters
    ----------
    folder : str or path-like
        Folder; hidden files and folders are passed over.

    Returns
    -------
    paths : list of str
        Files with one of `IMAGE_EXTENSIONS`.

    Raises
    ------
    ValueError
        If there is no such folder, or no image in it.
    OSError
        If a folder below it cannot be listed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn_p2l.datasets import list_images
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.png", "a.jpg", "notes.txt"):
    ...         Path(folder, name).touch()
    ...     [Path(path).name for path in list_images(folder)]
    ['a.jpg', 'b.png']
    """
    folder = os.path.expanduser(folder)
    if not os.path.isdir(folder):
        if os.path.exists(folder):
            found = f"a file: {folder}; pass a list of paths for single files"
        else:
            found = (
                f"nothing there: {folder}; check the path (patterns are not expanded)"
            )
        raise ValueError(
            f"a dataset given as a path must be a folder of images, got {found}."
        )
    paths, seen = [], set()
    walk = os.walk(folder, followlinks=True, onerror=_cannot_be_listed)
    for parent, folders, files in walk:
        real = os.path.realpath(parent)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        if real in seen:  # a link back to a folder already listed
            folders.clear()
            continue
        seen.add(real)
        paths += [
            os.path.join(parent, file)
            for file in files
            if not file.startswith(".")
            and os.path.splitext(file)[1].lower() in IMAGE_EXTENSIONS
        ]
    if not paths:
        raise ValueError(
            f"a folder must hold images ({' '.join(IMAGE_EXTENSIONS)}), got none below "
            f"{folder}."
        )
    return sorted(paths)


def _cannot_be_listed(error):
    """Stop, rather than pass over a class in silence."""
    raise error


def class_folders(folder):
    """List the images below a folder, each with the class subfolder it lies in.

    Parameters
    ----------
    folder : str or path-like
        Folder with one subfolder for each class, as deep as they may be.

    Returns
    -------
    paths : list of str
        The images, as `list_images` lists them.
    classes : list of str
        Name of the subfolder of `folder` that each lies in.

    Raises
    ------
    ValueError
        If an image lies in no subfolder, or the subfolders are the parts of a split.
    """
    paths = list_images(folder)
    inside = [Path(os.path.relpath(path, os.path.expanduser(folder))) for path in paths]
    loose = [path.name for path in inside if len(path.parts) == 1]
    if loose:
        raise ValueError(
            f"every image must lie in the subfolder of its class, got {len(loose)} in "
            f"{folder} itself, such as {loose[0]}; move them, or pass paths and labels."
        )
    classes = [path.parts[0] for path in inside]
    if are_parts(classes):
        raise ValueError(
            f"the subfolders must be classes, got the parts of a split, "
            f"{sorted(set(classes))}, in {folder}; pass the folder of the training "
            "part, and another one as test: Task.from_folder(train, test=...)."
        )
    return paths, classes


def are_parts(subfolders):
    """Tell whether subfolders are parts of a split dataset, by their names."""
    names = {name.lower() for name in subfolders}
    return names <= _PARTS and bool(names & _TRAINING_PARTS)


class _Images(Modality):
    """Images, in arrays, files, folders and Datasets."""

    name, sample, unit = "images", "image", "image"

    def recognises(self, dataset):
        return True

    def as_samples(self, X):
        if isinstance(X, (str, os.PathLike)):
            X = os.path.expanduser(X)
            is_image = os.path.splitext(X)[1].lower() in IMAGE_EXTENSIONS
            return [X] if is_image and not os.path.isdir(X) else list_images(X)
        if hasattr(X, "getbands") or _is_one_image(X):
            return [X]
        X = expand(X)
        if not is_sequence(X) and not hasattr(X, "__len__"):
            raise ValueError(
                "X must have a length: an array, a sequence of images or paths, a "
                f"folder or a map-style Dataset, got {type(X).__name__}; pass a list."
            )
        return X

    def random_part(self, dataset, n_samples, rng, on_error):
        dataset = expand(dataset)
        sized = isinstance(dataset, np.ndarray) or is_sequence(dataset)
        if sized or is_map_style(dataset):
            return random_rows(dataset, n_samples, rng), len(dataset)
        if n_samples is None:
            return dataset, None
        return reservoir(map(_first, dataset), n_samples, rng), None

    def content_key(self, dataset):
        dataset = expand(dataset)
        if isinstance(dataset, np.ndarray) and dataset.dtype.kind in "uif":
            return joblib.hash(np.ascontiguousarray(dataset))
        if not is_sequence(dataset):
            return None
        keys = [_content_of_image(image) for image in dataset]
        return None if None in keys else joblib.hash(keys)


IMAGES = _Images()


def _is_one_image(X):
    """Tell whether an array or tensor is one image and not several."""
    shape = getattr(X, "shape", ())
    if hasattr(X, "detach"):  # a tensor, (C, H, W)
        return len(shape) == 3 and shape[0] in (1, 3)
    return len(shape) == 3 and shape[-1] in (1, 3) and X.dtype.kind in "uf"


def _content_of_image(image):
    if isinstance(image, (str, os.PathLike)) and os.path.exists(image):
        status = os.stat(image)
        return os.path.abspath(image), status.st_size, status.st_mtime_ns
    if isinstance(image, np.ndarray):
        return joblib.hash(np.ascontiguousarray(image))
    if hasattr(image, "getbands"):
        try:  # as the network will see it
            return joblib.hash(np.asarray(read_image(image, "image")[0]))
        except ImageError:
            return None
    return None


def expand(dataset):
    """Return the paths of a folder or a Series as a sequence, and all else as it is."""
    if isinstance(dataset, (str, os.PathLike)):
        return list_images(dataset)
    if hasattr(dataset, "columns") and hasattr(dataset, "to_numpy"):
        return column_of(dataset)
    if hasattr(dataset, "detach"):  # a tensor of several images, (n, C, H, W)
        return list(dataset)
    return dataset.to_numpy() if hasattr(dataset, "to_numpy") else dataset


def _numbered_batches(dataset, batch_size):
    """Iterate over lists of images with their numbers."""
    if isinstance(dataset, np.ndarray) and dataset.ndim != 1:
        _check_array(dataset)
        for part in gen_batches(len(dataset), batch_size) if len(dataset) else ():
            yield list(enumerate(np.asarray(dataset[part]), start=part.start))
        return
    numbers = numbers_of(dataset)
    numbers = count() if numbers is None else numbers.tolist()
    images = zip(numbers, _items(dataset))
    while batch := list(islice(images, batch_size)):
        yield batch


def _map_batches(read, batches, ahead):
    """Apply a function to the images of each batch, in threads."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        before = None
        for batch in batches:
            for _, image in batch:
                if hasattr(image, "getbands"):  # not for two threads at a time
                    with suppress(Exception):  # which reading it will explain
                        image.load()
            results = pool.map(read, *zip(*batch))
            if not ahead:
                yield results
                continue
            if before is not None:
                yield before
            before = results
        if before is not None:
            yield before


def _check_array(dataset):
    shape, hint = dataset.shape, ""
    if dataset.ndim == 3 and shape[-1] in (1, 3, 4):
        hint = "; pass one image as [image], grey images of that width as (n, H, W, 1)"
    elif dataset.ndim == 4 and shape[-1] not in (1, 3):
        hint = (
            "; move the channels last with np.moveaxis(images, 1, -1)"
            if shape[1] in (1, 3)
            else ""
        )
    elif dataset.ndim in (3, 4):
        return
    raise ValueError(
        "a dataset given as an array must have shape (n, H, W), (n, H, W, 1) or "
        f"(n, H, W, 3), or (n, n_features) for ready features, got {shape}{hint}."
    )


def _items(dataset):
    """Iterate over the images of a sequence or torch Dataset."""
    if is_sequence(dataset):
        yield from dataset
    elif is_map_style(dataset):
        for i in range(len(dataset)):
            try:
                yield _first(dataset[i])
            except Exception as error:  # what a user's dataset may raise is not known
                yield error
    elif hasattr(dataset, "__iter__"):
        for item in dataset:
            yield _first(item)
    else:
        raise ValueError(
            "a dataset must be an array, a sequence of images or paths, a folder or a "
            f"torch Dataset, got {type(dataset).__name__}."
        )


def _first(item):
    """The image of an item, which may hold a label and more beside it."""
    if isinstance(item, Mapping):
        names = [name for name in ("image", "img") if name in item]
        return item[names[0]] if names else next(iter(item.values()))
    return item[0] if isinstance(item, (tuple, list)) else item


def read_image(image, name, min_side=None):
    """Read one image, and the box of it that the picture fills.

    It is an array, uint8 (H, W, 3), or a PIL image in RGB.
    """
    if isinstance(image, (str, os.PathLike)):
        return _read_file(Path(image), min_side)
    try:
        rgb = _convert(image, name)
        return rgb, _whole(rgb)
    except ImageError:
        raise
    except Exception as error:  # decoders of broken images raise almost anything
        raise ImageError(f"{name} must be readable, got {_explain(error)}.") from error


def _convert(image, name):
    """Convert an image in memory to uint8 (H, W, 3), or to RGB."""
    if isinstance(image, Exception):
        raise image
    if hasattr(image, "getbands"):
        return _from_pil(image, name)
    if hasattr(image, "detach"):  # a tensor, (C, H, W)
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
        if image.ndim == 3 and image.shape[0] in (1, 3):
            image = np.moveaxis(image, 0, -1)
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"{name} must be an array, a PIL image, a tensor or a path, got "
            f"{type(image).__name__}."
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[-1] not in (1, 3)):
        raise ImageError(
            f"{name} must have shape (H, W), (H, W, 1) or (H, W, 3), got {image.shape}."
        )
    return _to_rgb(image[np.newaxis], name)[0]


def _to_rgb(images, name):
    """Convert an array (n, H, W[, C]) to uint8 (n, H, W, 3)."""
    if 0 in images.shape:
        raise ImageError(f"{name} must have pixels, got shape {images.shape}.")
    if images.dtype.kind == "f":
        if not np.isfinite(images).all():
            raise ImageError(f"{name} must be finite, got NaN or infinity.")
        low, high = float(images.min()), float(images.max())
        if low < -1e-6 or high > 1 + 1e-6:
            raise ImageError(
                f"{name} must be {_RANGE}, got float from {low:g} to {high:g}; divide "
                "by the largest possible value (do not normalise)."
            )
        images = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    elif images.dtype != np.uint8:
        raise ImageError(
            f"{name} must be {_RANGE}, got {images.dtype}; divide by the largest "
            "possible value, or convert values in 0..255 with .astype('uint8')."
        )
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.shape[-1] == 1:
        images = np.repeat(images, 3, axis=-1)
    return images


def _read_file(path, min_side):
    Image = import_pillow()
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ImageError(f"the image must be a regular file, got another: {path}.")
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > (Image.MAX_IMAGE_PIXELS or np.inf):
                raise ImageError(
                    f"the image must have at most {Image.MAX_IMAGE_PIXELS:,} pixels "
                    f"(PIL.Image.MAX_IMAGE_PIXELS), got {width} x {height}: {path}."
                )
            drafted = min_side and image.draft(None, (min_side, min_side))
            size = image.size
            rgb = _from_pil(image, str(path))
            if drafted:
                return rgb, _turned(drafted[1], size, _orientation(image))
            return rgb, _whole(rgb)
    except ImageError:
        raise
    except Exception as error:  # decoders of broken files raise almost anything
        raise ImageError(
            f"the image must be readable, got {_explain(error)} for {path}; replace "
            "it, or leave it out."
        ) from error


def _whole(rgb):
    height, width = rgb.shape[:2] if isinstance(rgb, np.ndarray) else rgb.size[::-1]
    return 0, 0, width, height


def _orientation(image):
    """How an image must be turned; 1, not at all, where its EXIF data is damaged."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # readers of broken data raise almost anything
        return 1


def _turned(box, size, orientation):
    """Where a box lies once the image is turned as its EXIF orientation says."""
    (left, upper, right, lower), (width, height) = box, size
    if orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if orientation in (3, 4, 6, 7):
        upper, lower = height - lower, height - upper
    if orientation in (5, 6, 7, 8):
        left, upper, right, lower = upper, left, lower, right
    return left, upper, right, lower


def _from_pil(image, name):
    frames = getattr(image, "n_frames", 1)
    # Cameras write MPO: a JPEG photo followed by previews of it.
    if frames > 1 and image.format != "MPO":
        raise ImageError(
            f"the image must have one frame, got {frames} in {name}; save the frame "
            "that counts as a file of its own."
        )
    from PIL import Image, ImageOps

    if 0 in image.size:
        raise ImageError(f"{name} must have pixels, got size {image.size}.")
    file_format = image.format  # of which a turned copy knows nothing
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    # Older releases of Pillow read PNG files of 16 bits as 32.
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PNG"):
        return _to_rgb((np.asarray(image) / 65535.0)[np.newaxis], name)[0]
    if image.mode in ("I", "F"):
        raise ImageError(
            f"the image must have 8 or 16 bits per channel, got mode {image.mode!r} of "
            f"32 in {name}; load it as an array scaled to 0..1."
        )
    if (
        "A" in image.getbands()
        or "a" in image.getbands()
        or "transparency" in image.info
    ):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    if image.mode != "RGB":
        return image.convert("RGB")
    image.load()
    return image


def _explain(error):
    reason = error.strerror if getattr(error, "filename", None) else str(error)
    return f"{type(error).__name__}: {reason}".rstrip(".")
