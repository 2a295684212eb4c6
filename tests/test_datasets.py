"""Datasets: what kinds there are, in which forms, and the small tasks."""

import io
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
from conftest import real_file
from numpy.testing import assert_array_equal
from PIL import Image, ImageOps

from sklearn_p2l import Task
from sklearn_p2l.datasets import Bag, Context, list_images, load_small_tasks
from sklearn_p2l.embedding import Vectors
from sklearn_p2l.samples import (
    MODALITIES,
    _kinds,
    as_samples,
    class_folders,
    content_key,
    image_batches,
    is_map_style,
    length_of,
    modality_of,
    name_of,
    random_part,
    take,
)
from sklearn_p2l.samples._modality import Modality


def read(dataset, batch_size=7, **kwargs):
    """All images of a dataset, as a list."""
    return [i for batch in image_batches(dataset, batch_size, **kwargs) for i in batch]


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, size=(20, 6, 5, 3), dtype=np.uint8)


@pytest.fixture
def folder(images, tmp_path):
    """The images as PNG files in two class folders, with things that are no images."""
    root = tmp_path / "pictures"
    for i, image in enumerate(images):
        parent = root / f"class{i // 10}"
        parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(parent / f"{i:02}.PNG")
    (root / "notes.txt").write_text("not an image")
    (root / ".hidden.png").write_bytes(b"")
    (root / ".cache").mkdir()
    (root / ".cache" / "a.png").write_bytes(b"")
    return root


class MapStyle:
    """What torch's map-style datasets offer."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        if not 0 <= i < len(self.items):
            raise IndexError(i)
        item = self.items[i]
        if isinstance(item, Exception):
            raise item
        return item


class IterableStyle:
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


class Columns(MapStyle):
    """What Datasets of Hugging Face offer: items are dicts, and they are iterable."""

    def __init__(self, **columns):
        self.columns_ = columns
        super().__init__([dict(zip(columns, row)) for row in zip(*columns.values())])

    @property
    def column_names(self):
        return list(self.columns_)

    def __iter__(self):
        return iter(self.items)

    def __getitem__(self, key):
        return self.columns_[key] if isinstance(key, str) else super().__getitem__(key)


def a_bag(text="Paris lies in France."):
    return Bag("France", "Paris", [Context(text, (14, 20), (0, 5))])


def test_all_forms_are_the_same_dataset(images, folder):
    import torch
    from torch.utils.data import TensorDataset

    paths = list_images(folder)
    chw = torch.from_numpy(np.moveaxis(images, -1, 1).copy())
    forms = {
        "array": images,
        "float64": images / 255,
        "float32": (images / 255).astype(np.float32),
        "list": list(images),
        "tuple of PIL": tuple(Image.fromarray(i) for i in images),
        "folder": folder,
        "str of folder": str(folder),
        "paths": [os.fspath(p) for p in paths],
        "array of paths": np.array(paths),
        "map": MapStyle([(i, 0) for i in images]),
        "iterable": IterableStyle([(i, 0) for i in images]),
        "columns": Columns(label=range(20), image=list(images)),
        "columns, another name": Columns(img=list(images), label=range(20)),
        "one column": Columns(picture=list(images)),
        "stream of dicts": IterableStyle([{"label": 0, "image": i} for i in images]),
        "generator": (i for i in images),
        "tensor": chw,
        "tensors": TensorDataset(chw),
        "iterable of tensors": IterableStyle(list(chw / 255)),
    }
    for name, dataset in forms.items():
        assert_array_equal(read(dataset), images, err_msg=name)


def test_grey_is_three_equal_channels(images):
    grey = images[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=-1)
    for dataset in (
        grey,
        grey[..., None],
        list(grey),
        [Image.fromarray(g) for g in grey],
    ):
        assert_array_equal(read(dataset), expected)


def test_sizes_may_differ(rng):
    shapes = [(6, 5, 3), (4, 9, 3), (3, 3)]
    dataset = [rng.integers(0, 256, size=s, dtype=np.uint8) for s in shapes]
    assert [i.shape for i in read(dataset)] == [(6, 5, 3), (4, 9, 3), (3, 3, 3)]


def test_batches(images):
    assert [len(b) for b in image_batches(images, 8)] == [8, 8, 4]
    assert [len(b) for b in image_batches(list(images), 8)] == [8, 8, 4]


def test_series_of_paths(folder):
    pd = pytest.importorskip("pandas")
    paths = list_images(folder)
    series = pd.Series(paths, index=range(5, 25))
    assert len(read(series)) == 20
    assert content_key(series) == content_key(folder)


def test_linked_folders_are_followed_once(folder, tmp_path):
    (folder / "again").symlink_to(folder, target_is_directory=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (4, 4)).save(outside / "x.png")
    (folder / "linked").symlink_to(outside, target_is_directory=True)
    assert len(list_images(folder)) == 21


def test_a_folder_that_cannot_be_listed_is_not_passed_over(folder, monkeypatch):
    scandir = os.scandir
    closed = min(p for p in folder.glob("[!.]*") if p.is_dir())

    def refusing(path):
        if str(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PermissionError, match=closed.name):
        list_images(folder)


def test_folders_that_are_none(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="got a file"):
        read(tmp_path / "a.png")
    with pytest.raises(ValueError, match="got nothing there"):
        read(str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="must hold images"):
        read(tmp_path / "empty")


def test_files_are_converted_by_rule(tmp_path, rng):
    values = rng.integers(0, 256, size=(6, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(values)

    def stored(image, name, **kwargs):
        image.save(tmp_path / name, **kwargs)
        return read([tmp_path / name])[0]

    # 16 bits are scaled, not clipped
    deep = (np.arange(30, dtype=np.uint16) * 2000).reshape(6, 5)
    expected = np.rint(deep / 65535 * 255).astype(np.uint8)
    for name in ("deep.png", "deep.tif"):
        assert_array_equal(stored(Image.fromarray(deep), name)[..., 1], expected)
    # transparency is laid over white
    alpha = picture.copy()
    alpha.putalpha(Image.fromarray(np.full((6, 5), 0, np.uint8)))
    assert (stored(alpha, "alpha.png") == 255).all()
    alpha.putalpha(Image.fromarray(np.full((6, 5), 255, np.uint8)))
    assert_array_equal(stored(alpha, "opaque.png"), values)
    grey_alpha = Image.new("LA", (5, 6), (0, 0))
    assert (stored(grey_alpha, "grey_alpha.png") == 255).all()
    # palettes, also with a transparent colour
    palette = Image.fromarray(values // 64 * 64).quantize(64)
    assert_array_equal(
        stored(palette, "palette.png"), np.asarray(palette.convert("RGB"))
    )
    flat = Image.new("P", (5, 6), 3)
    flat.putpalette([200, 0, 0] * 8)
    assert (stored(flat, "clear.png", transparency=3) == 255).all()
    # CMYK and bilevel
    cmyk = Image.new("CMYK", (5, 6), (0, 255, 255, 0))
    red = stored(cmyk, "cmyk.jpg", quality=100).mean(axis=(0, 1))
    assert red[0] > 240 and red[1] < 15 and red[2] < 15
    assert (stored(Image.new("1", (5, 6), 1), "bilevel.png") == 255).all()
    # cameras note how they were held
    exif = Image.Exif()
    exif[0x0112] = 6  # quarter turn
    turned = stored(picture, "turned.png", exif=exif)
    assert_array_equal(turned, np.rot90(values, k=-1))


@pytest.fixture
def broken(tmp_path, images):
    """A folder of images with one that cannot be used, by kind of damage."""

    def make(kind):
        root = tmp_path / kind
        root.mkdir()
        for i in range(3):
            Image.fromarray(images[i]).save(root / f"good{i}.png")
        bad = root / "bad.png"
        if kind == "zero bytes":
            bad.write_bytes(b"")
        elif kind == "text":
            bad.write_text("no image at all")
        elif kind == "truncated":
            large = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(large).save(bad)
            bad.write_bytes(bad.read_bytes()[:2000])
        elif kind == "truncated JPEG":
            bad = root / "bad.jpg"
            large = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(large).save(bad)
            bad.write_bytes(bad.read_bytes()[:1500])
        elif kind == "animated":
            bad = root / "bad.gif"
            frames = [Image.fromarray(i) for i in images[:3]]
            frames[0].save(bad, save_all=True, append_images=frames[1:])
        elif kind == "float":
            bad = root / "bad.tif"
            Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(bad)
        elif kind == "oversized":
            Image.new("1", (40, 40)).save(bad)
        elif kind == "a link to nothing":
            bad.symlink_to(root / "missing.png")
        return root, bad

    return make


KINDS = [
    "zero bytes",
    "text",
    "truncated",
    "truncated JPEG",
    "animated",
    "float",
    "oversized",
    "a link to nothing",
]


@pytest.mark.parametrize("kind", KINDS)
def test_broken_files_are_named_or_skipped(kind, broken, images, monkeypatch):
    if kind == "oversized":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    root, bad = broken(kind)
    with pytest.raises(ValueError, match=f"the image must.*{bad.name}"):
        read(root)
    skipped = []
    assert_array_equal(read(root, on_error="skip", skipped=skipped), images[:3])
    assert len(skipped) == 1 and bad.name in skipped[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_files_are_turned_once(tmp_path, orientation, rng):
    """Pillow itself turns them in some releases; the crop is the centre of all."""
    image = Image.fromarray(rng.integers(0, 256, (40, 24, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.tif"
    image.save(path, exif=exif)
    seen = []
    (batch,) = image_batches(
        [path], 1, transform=lambda rgb, box: seen.append(box) or rgb, min_side=8
    )
    turned = Image.fromarray(np.asarray(image))
    turned.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(turned))
    assert_array_equal(batch[0], expected)
    assert seen == [(0, 0, expected.shape[1], expected.shape[0])]


def test_damaged_exif_data_turns_nothing(tmp_path, images):
    file = io.BytesIO()
    Image.fromarray(images[0]).save(file, "png", exif=b"Exif\0\0MM\0*nonsense")
    path = tmp_path / "damaged.png"
    path.write_bytes(file.getvalue())
    assert_array_equal(read([path])[0], images[0])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_not_waited_for(tmp_path, images):
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="regular file.*pipe.png"):
        read(tmp_path)
    skipped = []
    assert len(read(tmp_path, on_error="skip", skipped=skipped)) == len(skipped) == 1


def test_numbers_of_32_bits_have_no_known_range(tmp_path):
    image = Image.fromarray(np.full((4, 4), 70, dtype=np.int32))
    image.save(tmp_path / "a.tif")
    for one in (image, tmp_path / "a.tif"):
        with pytest.raises(ValueError, match="8 or 16 bits.*'I'"):
            read([one])


def test_an_image_without_pixels_is_refused():
    with pytest.raises(ValueError, match=r"image 0 must have pixels, got .*\(0, 5\)"):
        read([Image.new("RGB", (0, 5))])


def test_reading_in_threads_leaves_warnings_as_they_are(tmp_path, images):
    """Filters are global: what each thread sets and resets would stay behind."""
    paths = [tmp_path / f"{i}.png" for i in range(40)]
    for path in paths:
        Image.fromarray(images[0]).save(path)
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda path: read([path])[0], paths * 5))
    assert len(results) == 200 and warnings.filters == before


def test_multi_picture_photos_are_photos(tmp_path, images):
    first, second = (Image.fromarray(i) for i in images[:2])
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.n_frames == 2
    assert read([tmp_path / "a.jpg"])[0].shape == (6, 5, 3)


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize(
    "value, message",
    [
        (np.nan, "NaN"),
        (np.inf, "NaN"),
        (1.5, "float from .* to 1.5"),
        (-0.1, "from -0.1"),
    ],
)
def test_bad_pixels_are_named_or_skipped(images, value, message, as_list):
    dataset = images / 255
    dataset[13, 2, 2, 1] = value
    dataset = list(dataset) if as_list else dataset
    with pytest.raises(ValueError, match=f"image 13 must.*{message}"):
        read(dataset)
    skipped = []
    left = read(dataset, on_error="skip", skipped=skipped)
    assert_array_equal(left, np.delete(images, 13, axis=0))
    assert len(skipped) == 1 and "image 13" in skipped[0]


@pytest.mark.parametrize(
    "dataset, message",
    [
        (np.zeros((4, 6, 5), np.int64), "int64; divide"),
        (np.zeros((4, 6, 5), np.uint16), "uint16; divide"),
        (np.zeros((4, 6, 5), bool), "bool"),
        (np.full((4, 6, 5), 16.0), "do not normalise"),
        (np.zeros((4, 6, 3), np.uint8), r"pass one image as \[image\]"),
        (np.zeros((4, 3, 6, 5), np.uint8), "moveaxis"),
        (np.zeros((4, 6, 5, 4), np.uint8), "must have shape"),
        (np.zeros((4, 6, 5, 3, 1), np.uint8), "must have shape"),
        (np.zeros((4, 0, 5), np.uint8), "must have pixels"),
        (np.zeros(4, np.uint8), "uint8"),
        ([np.zeros(4, np.uint8)], "image 0 must have shape"),
        ([np.zeros((6, 5, 2), np.uint8)], "image 0 must have shape"),
        ([[1, 2]], "image 0 must be an array.*got list"),
        ([None], "got NoneType"),
        (7, "must be an array, a sequence"),
        ([], "at least one image"),
        (np.zeros((0, 6, 5), np.uint8), "at least one image"),
        (iter([]), "at least one image"),
    ],
)
def test_what_is_no_dataset(dataset, message):
    with pytest.raises(ValueError, match=message):
        read(dataset)


def test_datasets_that_fail_on_an_item(images):
    dataset = MapStyle([images[0], OSError("disk on fire"), images[2]])
    with pytest.raises(ValueError, match="image 1 must be readable.*disk on fire"):
        read(dataset)
    skipped = []
    assert len(read(dataset, on_error="skip", skipped=skipped)) == 2
    assert "disk on fire" in skipped[0]


def test_nothing_left_is_an_error():
    dataset = [np.full((4, 4), np.nan)] * 3
    with pytest.raises(ValueError, match="all 3 images were skipped"):
        read(dataset, on_error="skip")


# -- kinds of samples -----------------------------------------------------------------


def test_what_is_of_which_kind(images, folder):
    pd = pytest.importorskip("pandas")
    import torch

    kinds = {
        "features": [
            np.ones((3, 4)),
            images[0, :, :, 0],  # a grey image by itself; the embedder tells
            torch.ones(3, 4),
            Vectors([[1.0, 2.0]], "vgg16"),
            pd.DataFrame(np.ones((3, 4))),
            pd.DataFrame({"one": [1.0, 2.0]}),
            pd.DataFrame({"one": [1, None], "two": [2, 3]}, dtype="Int64"),
        ],
        "bags": [
            a_bag(),
            [a_bag()],
            (a_bag(), a_bag()),
            pd.Series([a_bag()]),
            "bags.tsv",
            Path("BAGS.TSV.gz"),
        ],
        "images": [
            images,
            images[..., 0],
            list(images),
            Image.fromarray(images[0]),
            [],
            folder,
            "picture.png",
            MapStyle([]),
            IterableStyle([]),
            Columns(image=list(images)),
            torch.ones(2, 3, 4, 4),
            pd.DataFrame({"path": ["a.png"]}),
            pd.Series(["a.png"]),
        ],
    }
    assert [kind.name for kind in MODALITIES] == ["features", "bags", "images"]
    for name, datasets in kinds.items():
        for dataset in datasets:
            assert modality_of(dataset).name == name, dataset
    assert {(m.sample, m.unit) for m in MODALITIES} == {
        ("row", "row"),
        ("bag", "line"),
        ("image", "image"),
    }


def test_the_contract_of_a_kind_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Modality()
    for name in ("recognises", "as_samples", "random_part", "content_key"):
        assert name in Modality.__abstractmethods__
        for kind in MODALITIES:
            assert name in vars(type(kind))


class Sounds(Modality):
    """A kind of samples that this package does not know."""

    name, sample, unit = "sounds", "sound", "sound"

    def recognises(self, dataset):
        return isinstance(dataset, range)

    def as_samples(self, X):
        return list(X)

    def random_part(self, dataset, n_samples, rng, on_error):
        return dataset[:n_samples], len(dataset)

    def content_key(self, dataset):
        return repr(dataset)


def test_another_kind_is_one_entry(monkeypatch, images):
    sounds = Sounds()
    monkeypatch.setattr(_kinds, "MODALITIES", (sounds, *MODALITIES))
    assert modality_of(range(4)) is sounds
    assert as_samples(range(4)) == [0, 1, 2, 3]
    assert random_part(range(4), 2, 0) == (range(2), 4)
    assert content_key(range(4)) == "range(0, 4)"
    assert Task(range(4), [0, 1, 0, 1]).X == [0, 1, 2, 3]
    assert modality_of(images).name == "images"


def test_one_sample_is_a_dataset_of_one(images, folder):
    """Only where samples are wanted, as in `predict`; never among datasets."""
    import torch

    path = list_images(folder)[0]
    for one in (
        images[0],
        images[0] / 255,
        images[0, :, :, :1],
        Image.fromarray(images[0]),
        torch.from_numpy(np.moveaxis(images[0], -1, 0).copy()),
        path,
        Path(path),
    ):
        samples = as_samples(one)
        assert len(samples) == 1 and len(read(samples)) == 1
    assert_array_equal(read(as_samples(path))[0], images[0])
    assert as_samples("/absent/photo.JPG") == ["/absent/photo.JPG"]  # reading will tell
    assert as_samples(a_bag()) == [a_bag()]
    assert_array_equal(as_samples(images), images)
    grey = images[:, :, :, 0]
    assert as_samples(grey) is grey and as_samples(grey[0]) is not None
    assert as_samples(np.ones((3, 4))).shape == (3, 4)


def test_files_and_folders_as_samples(folder, tmp_path, monkeypatch):
    assert as_samples(folder) == list_images(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert as_samples("~/pictures") == list_images(folder)
    assert as_samples("~/a.png") == [str(tmp_path / "a.png")]
    folder.rename(tmp_path / "named_like_a.png")
    assert len(as_samples(tmp_path / "named_like_a.png")) == 20


def test_samples_have_a_length(images):
    for stream in (IterableStyle(list(images)), iter(images)):
        with pytest.raises(ValueError, match="X must have a length.* pass a list"):
            as_samples(stream)
    with pytest.raises(ValueError, match="must be a folder of images, got a file"):
        as_samples(__file__)
    sized = MapStyle(list(images))
    assert as_samples(sized) is sized


def test_frames(folder, images):
    """One column of paths is a dataset of images, numbers are ready features."""
    pd = pytest.importorskip("pandas")
    paths = list_images(folder)
    frame = pd.DataFrame({"path": paths}, index=range(5, 25))
    assert_array_equal(read(frame), images)
    assert_array_equal(as_samples(frame), paths)
    assert content_key(frame) == content_key(folder)
    assert_array_equal(read(pd.DataFrame({"image": list(images)})), images)
    numbers = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    assert as_samples(numbers) is numbers
    assert content_key(numbers) == content_key(numbers.to_numpy())
    both = frame.assign(label=0)
    for use in (modality_of, as_samples, content_key):
        with pytest.raises(ValueError, match=r"one column of paths.*frame\['path'\]"):
            use(both)


def test_chosen_samples(images):
    pd = pytest.importorskip("pandas")
    rows = np.array([3, 0, 3])
    for samples in (
        images,
        list(images),
        MapStyle([(i, 0) for i in images]),
        Columns(label=range(20), image=list(images)),
    ):
        chosen = take(samples, rows)
        assert len(chosen) == 3
        assert_array_equal(read(chosen), images[rows])
        # and again, of what was chosen
        assert_array_equal(read(take(chosen, [1])), images[[0]])
    named = pd.Series(list("abcd"), index=[7, 8, 9, 10])
    assert list(take(named, rows)) == ["d", "a", "d"]
    bags = [a_bag(), a_bag("Paris loves, France.")]
    assert take(bags, [1]) == bags[1:]
    subset = take(MapStyle(list(images)), rows)
    assert is_map_style(subset)
    with pytest.raises(IndexError):
        subset[3]


def test_names_and_lengths(images, folder, tmp_path):
    assert name_of(folder) == name_of(f"{folder}/") == "pictures"
    assert name_of(tmp_path / "bags.tsv.gz") == "bags.tsv.gz" and name_of(images) == ""
    assert length_of(images) == length_of(list(images)) == 20
    assert length_of(MapStyle(list(images))) == 20
    assert length_of(folder) == 20
    for unknown in ("bags.tsv", IterableStyle([]), iter([])):
        assert length_of(unknown) is None


# -- folders of classes ---------------------------------------------------------------


def test_class_folders(folder, tmp_path, monkeypatch):
    paths, classes = class_folders(folder)
    assert paths == list_images(folder)
    assert classes == ["class0"] * 10 + ["class1"] * 10
    deeper = folder / "class0" / "more" / "x.png"
    deeper.parent.mkdir()
    Image.new("RGB", (4, 4)).save(deeper)
    paths, classes = class_folders(str(folder) + os.sep)
    assert classes[paths.index(str(deeper))] == "class0" and len(classes) == 21
    monkeypatch.setenv("HOME", str(tmp_path))
    assert class_folders("~/pictures")[1] == classes
    Image.new("RGB", (4, 4)).save(folder / "loose.png")
    with pytest.raises(ValueError, match=r"got 1 in .*pictures itself.* loose\.png"):
        class_folders(folder)


@pytest.mark.parametrize(
    "parts", [("train", "test"), ("Train", "Val"), ("training", "validation", "test")]
)
def test_parts_of_a_split_are_no_classes(parts, tmp_path):
    for part in parts:
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / part / name / "x.png")
    with pytest.raises(ValueError, match="got the parts of a split.*from_folder"):
        class_folders(tmp_path)
    assert class_folders(tmp_path / parts[0])[1] == ["cat", "dog"]
    (tmp_path / "plane").mkdir()  # among others, they are classes
    Image.new("RGB", (4, 4)).save(tmp_path / "plane" / "x.png")
    assert set(class_folders(tmp_path)[1]) == {*parts, "plane"}


def test_tests_without_a_training_part_may_be_classes(tmp_path):
    for name in ("test", "val"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "x.png")
    assert class_folders(tmp_path)[1] == ["test", "val"]


# -- random parts ---------------------------------------------------------------------


def forms_of(images, folder):
    pd = pytest.importorskip("pandas")
    import torch

    return {
        "array": images,
        "list": list(images),
        "tensor": torch.from_numpy(np.moveaxis(images, -1, 1).copy()),
        "folder": folder,
        "frame": pd.DataFrame({"path": list_images(folder)}),
        "map": MapStyle([(i, 0) for i in images]),
        "columns": Columns(label=range(20), image=list(images)),
    }


def test_random_parts_of_images_are_alike_in_every_form(images, folder):
    drawn = np.random.RandomState(3).permutation(20)
    for name, dataset in forms_of(images, folder).items():
        part, n_total = random_part(dataset, 8, 3)
        assert len(part) == 8 and n_total == 20, name
        assert_array_equal(read(part), images[drawn[:8]], err_msg=name)
        whole, n_total = random_part(dataset, None, 3)
        assert len(whole) == n_total == 20
        assert_array_equal(read(whole), images[drawn], err_msg=name)
        assert len(random_part(dataset, 100, 3)[0]) == 20


def test_random_parts_of_streams(images):
    stream = IterableStyle([(i, 0) for i in images])
    part, n_total = random_part(stream, 8, 3)
    assert len(part) == 8 and n_total is None
    assert len({i.tobytes() for i in part}) == 8
    assert_array_equal(part, random_part(stream, 8, 3)[0])
    assert random_part(stream, None, 3) == (stream, None)
    assert len(random_part(stream, 100, 3)[0]) == 20


def test_ready_features_are_taken_whole(rng):
    features = rng.random((30, 4))
    for n_samples in (5, None):
        part, n_total = random_part(features, n_samples, 0)
        assert part is features and n_total == 30


def test_what_is_not_drawn_is_not_read(images):
    items = [OSError("not to be read")] * 20
    drawn = np.random.RandomState(0).permutation(20)[:4]
    for i in drawn:
        items[i] = images[i]
    part, _ = random_part(MapStyle(items), 4, 0)
    assert_array_equal(read(part), images[drawn])


# -- content --------------------------------------------------------------------------


def test_content_key(images, folder):
    paths = list_images(folder)
    key = content_key(folder)
    assert key == content_key(str(folder)) == content_key(paths)
    os.utime(paths[3], (1, 1))
    assert content_key(folder) != key
    assert content_key(images) == content_key(images.copy())
    assert content_key(images) != content_key(images[::-1].copy())
    pictures = [Image.fromarray(i) for i in images]
    assert content_key(list(images)) == content_key(pictures)
    assert content_key(MapStyle(list(images))) is None
    assert content_key([object()]) is None
    assert content_key(Columns(image=list(images))) is None
    assert content_key(IterableStyle([])) is None
    features = images.reshape(20, -1).astype(float)
    assert content_key(features) == content_key(Vectors(features, "vgg16")) != key
    assert content_key(features) != content_key(features + 1)
    assert isinstance(content_key(images), str)


def test_content_key_of_what_the_network_sees():
    indices = np.arange(30, dtype=np.uint8).reshape(6, 5)
    one, other = Image.fromarray(indices, "P"), Image.fromarray(indices, "P")
    one.putpalette(list(range(96)))
    other.putpalette(list(range(96))[::-1])
    assert content_key([one]) != content_key([other])
    assert content_key([one]) == content_key([one.convert("RGB")])
    closed = Image.new("RGB", (4, 4))
    closed.close()
    assert content_key([closed]) is None
    assert content_key(["/nonexistent.png"]) is None


def test_iterable_torch_dataset_with_a_length(images):
    from torch.utils.data import IterableDataset

    class Sized(IterableDataset):
        def __len__(self):
            return len(images)

        def __iter__(self):
            return iter(images)

    assert_array_equal(read(Sized()), images)


def test_images_in_memory_that_cannot_be_used(images):
    import torch

    closed = Image.new("RGB", (4, 4))
    closed.close()
    sparse = torch.eye(4).to_sparse()
    dataset = [images[0], closed, sparse, images[1]]
    with pytest.raises(ValueError, match="image 1 must be readable"):
        read(dataset)
    skipped = []
    assert_array_equal(read(dataset, on_error="skip", skipped=skipped), images[:2])
    assert len(skipped) == 2
    half = torch.from_numpy(np.moveaxis(images[0], -1, 0) / 255).to(torch.bfloat16)
    assert np.abs(read([half])[0].astype(int) - images[0]).max() <= 1
    nearly = [np.full((4, 4), -1e-9)]  # round-off
    assert (read(nearly)[0] == 0).all()


def test_small_tasks():
    tasks = load_small_tasks()
    assert joblib.hash(tasks) == joblib.hash(load_small_tasks(0))
    assert joblib.hash(tasks) != joblib.hash(load_small_tasks(1))
    assert len(tasks.sources) >= 6
    targets = {**tasks.training_targets, **tasks.held_out_targets}
    assert len(targets) >= 5
    sizes = [len(task) for task in tasks.sources.values()]
    assert max(sizes) > 10 * min(sizes)
    for task in [*tasks.sources.values(), *targets.values()]:
        assert isinstance(task, Task)
        assert task.X.shape == (len(task), 16, 16, 3)
        assert task.X.dtype == np.uint8
        counts = np.unique(task.y, return_counts=True)[1]
        assert len(counts) >= 3 and counts.max() < 0.6 * len(task)
    for task in targets.values():
        assert task.X_test.shape == (len(task.y_test), 16, 16, 3)
        assert set(task.y) == set(task.y_test)
    assert all(task.X_test is None for task in tasks.sources.values())


def test_small_tasks_are_disjoint():
    """No digit is in two roles, whatever was done to it."""
    tasks = load_small_tasks()

    def canonical(images):
        versions = []
        for image in images:
            image = image[..., 0].astype(int)
            forms = [np.rot90(i, t) for i in (image, 255 - image) for t in range(4)]
            versions.append(min(form.tobytes() for form in forms))
        return set(versions)

    roles = [
        [t.X for n, t in tasks.sources.items() if "digit" in n],
        [t.X for n, t in tasks.training_targets.items() if "digit" in n],
        [t.X_test for n, t in tasks.training_targets.items() if "digit" in n],
        [t.X for n, t in tasks.held_out_targets.items() if "digit" in n],
        [t.X_test for n, t in tasks.held_out_targets.items() if "digit" in n],
    ]
    seen = [set().union(*map(canonical, role)) for role in roles]
    assert all(len(s) > 50 for s in seen)
    for i in range(len(seen)):
        for j in range(i):
            assert not seen[i] & seen[j]


@pytest.mark.slow
def test_real_photos():
    folder = real_file("data", "folders", "clothing")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sizes = {image.shape for image in read(folder)}
    assert len(list_images(folder)) == 504 and len(sizes) > 50
