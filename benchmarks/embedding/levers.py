"""What each means of speeding up a pass is worth, one after the other.

``python benchmarks/embedding/levers.py`` takes about 6 minutes on 2 CPU cores.
"""

import copy
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.transforms import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import DATA, rounded, side_by_side, write

from sklearn_p2l import networks
from sklearn_p2l.datasets import list_images
from sklearn_p2l.samples import image_batches

HERE = Path(__file__).parent
CPU = torch.device("cpu")
N_IMAGES = {"vgg16": 32, "resnet50": 64, "squeezenet1_1": 128, "mobilenet_v2": 128}


def passes(name):
    """Ways to pass the same random images through one network, on the CPU."""
    network = networks.open_network(name, weights=None)
    n = N_IMAGES[name]
    plain = copy.deepcopy(network.model).to(memory_format=torch.contiguous_format)
    images = torch.rand(n, 3, 224, 224)
    last = images.contiguous(memory_format=torch.channels_last)
    raw = torch.randint(0, 256, (n, 224, 224, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    fast = network._fast_extractor
    compiled = torch.compile(fast)
    with torch.inference_mode():
        compiled(last[:4])

    def over(function, batch, size, precision="float32", keeps_casts=False):
        # autocast keeps what it has cast, but not in inference_mode.
        mode = torch.no_grad if keeps_casts else torch.inference_mode

        def run():
            with mode(), networks.devices.autocast(precision, CPU):
                for part in batch.split(size):
                    function(part)

        return run

    seconds = side_by_side(
        {
            "batches of 32, channels first": over(plain, images, 32),
            "+ channels last": over(network.model, last, 32),
            "+ 4 images at once": over(network.model, last, 4),
            "+ norms folded": over(fast, last, 4),
            "+ bfloat16": over(fast, last, 4, "bfloat16"),
            "+ weights cast once": over(fast, last, 4, "bfloat16", True),
            "+ 8 images at once": over(fast, last, 8, "bfloat16", True),
            "as DatasetEmbedder does": over(network.forward_features, raw, 32, "auto"),
            "norms folded, torch.compile": over(compiled, last, 4),
        }
    )
    first = n / next(iter(seconds.values()))
    return [
        {
            "network": name,
            "what": what,
            "images_per_second": rounded(n / value),
            "ratio": rounded(n / value / first),
        }
        for what, value in seconds.items()
    ]


def arithmetic(rate):
    """Operations per second of a VGG16 pass, and of large matrix products."""
    n = 4096
    a, b = torch.rand(n, n), torch.rand(n, n)
    products = {"float32": lambda: a @ b}
    if networks.devices.has_fast_bfloat16(CPU):
        halves = a.bfloat16(), b.bfloat16()
        products["bfloat16"] = lambda: torch.matmul(*halves)
    rows = [
        (f"{precision} matrix product of 4,096", 2 * n**3 / seconds)
        for precision, seconds in side_by_side(products).items()
    ]
    # Multiply and add.
    rows.append(("VGG16 as DatasetEmbedder does", 2 * 15.47e9 * rate))
    return [{"what": what, "gflop_per_second": rounded(v / 1e9)} for what, v in rows]


def readings(paths, large):
    """Ways to read the same files, one thread where nothing else is said."""
    network = networks.open_network("squeezenet1_1", weights=None)
    rule = network.preprocessing

    def decode(path):
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))

    def torch_decode(path):
        data = torch.from_numpy(np.fromfile(path, dtype=np.uint8))
        return torchvision.io.decode_image(data, torchvision.io.ImageReadMode.RGB)

    def torch_resize(path):
        batch = torch.from_numpy(decode(path)).permute(2, 0, 1)[None]
        return F.center_crop(F.resize(batch, [256], antialias=True), [224])

    def pillow_resize(path):
        image = Image.fromarray(decode(path))
        return np.asarray(F.center_crop(F.resize(image, [256]), [224]))

    def in_threads(files, **settings):
        return lambda: sum(
            map(len, image_batches(files, 32, transform=rule, **settings))
        )

    def threads_of_the_whole():
        with ThreadPoolExecutor(joblib.cpu_count()) as pool:
            list(pool.map(pillow_resize, paths))

    functions = {
        "decode with Pillow": lambda: [decode(p) for p in paths],
        "decode with torchvision": lambda: [torch_decode(p) for p in paths],
        "decode, resize with torch": lambda: [torch_resize(p) for p in paths],
        "decode, resize with Pillow": lambda: [pillow_resize(p) for p in paths],
        "decode, resize the crop alone": lambda: [rule(decode(p)) for p in paths],
        "decode, resize with Pillow, threads": threads_of_the_whole,
        "as DatasetEmbedder does, threads": in_threads(
            paths, min_side=2 * rule.resize_size
        ),
    }
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = side_by_side(functions)
    torch.set_num_threads(before)
    rows = [("photos of 0.2 megapixels", w, len(paths) / s) for w, s in seconds.items()]
    seconds = side_by_side(
        {
            "whole, threads": in_threads(large),
            "at reduced size, threads": in_threads(
                large, min_side=2 * rule.resize_size
            ),
        }
    )
    rows += [("photos of 12 megapixels", w, len(large) / s) for w, s in seconds.items()]
    return [
        {"files": files, "what": what, "images_per_second": rounded(rate)}
        for files, what, rate in rows
    ]


def enlarge(path, folder):
    """Write a photo again at 12 megapixels, as a phone takes it."""
    large = Path(folder) / Path(path).name
    with Image.open(path) as image:
        image.convert("RGB").resize((3000, 4000)).save(large, quality=90)
    return large


def main():
    rows = [row for name in N_IMAGES for row in passes(name)]
    write(HERE / "results" / "levers.csv", rows)
    ours = [r["images_per_second"] for r in rows if r["what"].startswith("as Data")]
    write(HERE / "results" / "arithmetic.csv", arithmetic(ours[0]))
    paths = list_images(DATA / "data" / "folders" / "clothing")
    with tempfile.TemporaryDirectory() as folder:
        large = [enlarge(path, folder) for path in paths[:16]]
        write(HERE / "results" / "reading.csv", readings(paths, large))


if __name__ == "__main__":
    main()
