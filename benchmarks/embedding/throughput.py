"""Images per second from JPEG files to the summary, against what one would do instead.

``python benchmarks/embedding/throughput.py`` takes about 7 minutes on 2 CPU cores.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import DATA, machine, rounded, side_by_side, write

from sklearn_p2l import DatasetEmbedder, networks
from sklearn_p2l.datasets import list_images

HERE = Path(__file__).parent
WEIGHTS = {"squeezenet1_1": DATA / "models" / "squeezenet1_1.safetensors"}
N_IMAGES = {
    "cpu": {"vgg16": 64, "resnet50": 128, "squeezenet1_1": 504, "vit_b_16": 64},
    "cuda": dict.fromkeys(["vgg16", "resnet50", "squeezenet1_1", "vit_b_16"], 2016),
}


class Files(torch.utils.data.Dataset):
    """What a user writes."""

    def __init__(self, paths):
        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.Resize(256),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        with Image.open(self.paths[i]) as image:
            return self.transform(image.convert("RGB"))


@torch.no_grad()
def plain_loop(network, paths, device, n_workers):
    model = network.model.to(memory_format=torch.contiguous_format).to(device).eval()
    features = []
    hook = model.get_submodule(network.head).register_forward_pre_hook(
        lambda module, args: features.append(args[0].cpu())
    )
    for batch in torch.utils.data.DataLoader(
        Files(paths), batch_size=32, num_workers=n_workers
    ):
        model(batch.to(device))
    hook.remove()
    network.model.to(memory_format=torch.channels_last)
    features = torch.cat(features)
    features = features.mean(dim=(2, 3)) if features.ndim == 4 else features
    mean = features.numpy().mean(axis=0)
    return mean / np.abs(mean).sum()


def measure(name, paths, device):
    weights = WEIGHTS.get(name)
    embedder = DatasetEmbedder(name, weights=weights, device=str(device))
    embedder.set_params(random_state=0).fit([paths])
    network = embedder._network
    batches = list(network.read(paths, 32))
    vectors = {}

    def forward():
        for _ in networks.extract_features(
            network, batches, precision="auto", device=device
        ):
            pass

    def read():
        for _ in network.read(paths, 32):
            pass

    def embed():
        embedder._kept.clear()  # the summary that it remembers
        vectors["ours"] = embedder.transform([paths])[0]

    def loop():
        vectors["loop"] = plain_loop(network, paths, device, torch.get_num_threads())

    seconds = side_by_side(
        {
            "plain loop": loop,
            "plain loop, no workers": lambda: plain_loop(network, paths, device, 0),
            "forward pass alone": forward,
            "reading alone": read,
            "DatasetEmbedder": embed,
        }
    )
    rates = {what: len(paths) / value for what, value in seconds.items()}
    ceiling = min(rates["forward pass alone"], rates["reading alone"])
    if device.type == "cpu":  # both need all cores
        in_turns = seconds["forward pass alone"] + seconds["reading alone"]
        shared = len(paths) / in_turns
    else:
        shared = ceiling
    error = np.abs(vectors["ours"] - vectors["loop"]).sum()
    return [
        {
            "network": name,
            "device": device.type,
            "what": what,
            "images_per_second": rounded(rate),
            "to_plain_loop": rounded(rate / rates["plain loop"]),
            "to_ceiling": rounded(rate / ceiling),
            "to_shared_ceiling": rounded(rate / shared),
            "l1_error": rounded(error, 2) if what == "DatasetEmbedder" else "",
        }
        for what, rate in rates.items()
    ]


def main():
    device = networks.choose_device("auto")
    paths = list_images(DATA / "data" / "folders" / "clothing")
    rows = []
    for name, n_images in N_IMAGES[device.type].items():
        rows += measure(name, (paths * 4)[:n_images], device)
    write(HERE / "results" / f"throughput_{device.type}.csv", rows)
    write(HERE / "results" / f"machine_{device.type}.csv", [machine()])


if __name__ == "__main__":
    main()
