"""How fast the PCNN is, beside one that pads all contexts of a batch alike.

    python benchmarks/relations/network.py

writes results/network.csv. Both have the same weights and give the same features; they
take turns, and the median of five turns counts. The text is generated.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from generated import context, sentences
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import device_suffix

from sklearn_p2l.datasets import Bag, build_vocabulary
from sklearn_p2l.networks import PCNN, choose_device

RESULTS = Path(__file__).parent / "results"
REPEATS = 5


def main():
    frame = pd.DataFrame(network()).set_index("what")
    RESULTS.mkdir(exist_ok=True)
    frame.to_csv(RESULTS / f"network{device_suffix()}.csv", float_format="%.4g")
    print(frame.to_string())


class Padded(nn.Module):
    """The same network in the usual way: every context as long as the longest."""

    def __init__(self, pcnn):
        super().__init__()
        self.pcnn = pcnn
        n_filters, width = len(pcnn.convolution.bias), pcnn.convolution.in_features // 3
        self.conv = nn.Conv1d(width, n_filters, 3, padding=1)
        weight = pcnn.convolution.weight.detach().view(n_filters, 3, width)
        self.conv.weight.data = weight.permute(0, 2, 1).contiguous()
        self.conv.bias.data = pcnn.convolution.bias.detach().clone()

    def features(self, batch):
        pcnn, lengths = self.pcnn, batch.pieces.sum(dim=1)
        tokens = torch.cat(
            [
                pcnn.words(batch.words),
                pcnn.positions[0](batch.distances[:, 0]),
                pcnn.positions[1](batch.distances[:, 1]),
            ],
            dim=1,
        )
        padded = nn.utils.rnn.pad_sequence(tokens.split(lengths.tolist()), True)
        responses = self.conv(padded.transpose(1, 2))  # (n_contexts, filters, longest)
        ends = batch.pieces.cumsum(dim=1)
        position = torch.arange(padded.shape[1], device=padded.device)
        pieces = []
        for j in range(3):
            start = ends[:, j] - batch.pieces[:, j]
            inside = (position >= start[:, None]) & (position < ends[:, j, None])
            masked = responses.masked_fill(~inside[:, None], -torch.inf)
            pieces.append(masked.amax(dim=2))
        described = torch.stack(pieces, dim=1).flatten(1)
        described = torch.where(described.isinf(), 0.0, described).tanh()
        described = pcnn.network_in_network(described)
        bags = nn.utils.rnn.pad_sequence(described.split(batch.contexts.tolist()), True)
        return bags.amax(dim=1)  # padded with 0, which no feature is below


def network():
    """Contexts a second, forward alone and with the gradients."""
    rng = np.random.default_rng(0)
    bags = [
        Bag(f"{i}a", f"{i}b", [context(words, rng)])
        for i, words in enumerate(sentences(2048))
    ]
    torch.manual_seed(0)
    device = choose_device("auto")
    pcnn = PCNN(build_vocabulary(bags)).eval().to(device)
    padded, n_batch = Padded(pcnn).to(device), 32
    start = time.perf_counter()
    everything = pcnn.encode(bags)
    encoding = len(bags) / (time.perf_counter() - start)
    parts = torch.arange(len(bags)).split(n_batch)
    batches = [everything[part].to(device) for part in parts]
    with torch.inference_mode():
        for batch in batches[:5]:
            expected = padded.features(batch)
            torch.testing.assert_close(
                pcnn.features(batch), expected, rtol=1e-4, atol=1e-5
            )

    def forward(model):
        with torch.inference_mode():
            for batch in batches:
                model.features(batch)

    def training(model):
        for batch in batches:
            model.zero_grad(set_to_none=True)
            model.features(batch).sum().backward()

    rows = [{"what": "encoding", "rate": encoding, "unit": "contexts/s"}]
    for function in (forward, training):
        rates = {"padded": [], "PCNN": []}
        for _ in range(REPEATS):  # in turn, so that both meet the same machine
            for name, model in (("padded", padded), ("PCNN", pcnn)):
                start = time.perf_counter()
                function(model)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                rates[name].append(len(bags) / (time.perf_counter() - start))
        for name, values in rates.items():
            what = f"{function.__name__}, {name}"
            rows.append({"what": what, "rate": np.median(values), "unit": "contexts/s"})
        rows[-1]["ratio"] = rows[-1]["rate"] / rows[-2]["rate"]
    return rows


if __name__ == "__main__":
    main()
