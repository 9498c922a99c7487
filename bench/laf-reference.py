"""A pair of LAF's steps in torch, the other side of bench/laf.js.

usage: laf-reference.py --case cnn|resnet8 [--authors] [--repeat N] [--threads N]

Prints JSON: CPU and wall-clock seconds of a pair in each repeat, and the peak resident memory of the process.
A pair is what `unlearn laf` makes of 32 kept examples and 32 to forget: a step of Adam down the unlearning loss,
another down the alignment loss, through the whole extractor in inference mode. The autoencoders get no gradients,
and representations of the original are given, as there. With --authors it is what the authors' code does: kept
images and those to forget run apart, the autoencoders get gradients that nobody reads, and the original runs in
every pair, with its graph kept for a backward pass that never comes. Needs torch and onnx.
"""
import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BATCH, LATENT, TEMPERATURE, PAIRS = 32, 8, 20, 10


def networks(case):
    """The extractor, its width, and the shape of an image."""
    import onnx
    import torch
    from onnx import numpy_helper
    from torch import nn

    if case == "resnet8":
        sys.path.insert(0, str(ROOT / "fixtures" / "train"))
        from resnet8 import ResNet8, read_weights

        net = read_weights(ResNet8(), ROOT / "fixtures" / "resnet8" / "resnet8.onnx")
        net.fc = nn.Identity()
        return net, 64

    class Cnn(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2))
            self.conv2 = nn.Sequential(nn.Conv2d(8, 16, 5, padding=2))
            self.fc1, self.pool = nn.Linear(144, 64), nn.MaxPool2d(2)

        def forward(self, x):
            x = self.pool(self.conv1(x).relu())
            return self.fc1(self.pool(self.pool(self.conv2(x).relu())).flatten(1))

    net = Cnn()
    weights = onnx.load(ROOT / "fixtures" / "golden" / "laf" / "laf.onnx").graph.initializer
    state = {w.name: torch.from_numpy(numpy_helper.to_array(w).copy()) for w in weights}
    missing, _ = net.load_state_dict(state, strict=False)
    assert not missing
    return net.eval(), 64


def autoencoder(width, trained):
    import torch
    from torch import nn

    class Vae(nn.Module):
        def __init__(self):
            super().__init__()
            outer, inner = max(16, width // 2), max(16, width // 8)
            self.encoder = nn.Sequential(nn.Linear(width, outer), nn.ReLU(), nn.Linear(outer, inner), nn.ReLU())
            self.mean, self.log_variance = nn.Linear(inner, LATENT), nn.Linear(inner, LATENT)
            self.decoder = nn.Sequential(
                nn.Linear(LATENT, inner), nn.ReLU(), nn.Linear(inner, outer), nn.ReLU(),
                nn.Linear(outer, width), nn.Sigmoid())  # fmt: skip

        def forward(self, e):
            code = self.encoder(e)
            mean = self.mean(code)
            return self.decoder(mean + (0.5 * self.log_variance(code)).exp() * torch.randn_like(mean))

    return Vae().requires_grad_(trained)


def pair(case, authors):
    import torch

    torch.manual_seed(7)
    net, width = networks(case)
    kept_vae, forgotten_vae = autoencoder(width, authors), autoencoder(width, authors)
    images = torch.rand(2 * BATCH, 1, 28, 28)
    original, _ = networks(case)
    with torch.no_grad():
        teacher = original(images)
    parameters = list(net.parameters())
    first, second = torch.optim.Adam(parameters, 2e-4), torch.optim.Adam(parameters, 4e-4)

    def spread(vae, e):
        error = ((vae(e) - e) ** 2).sum(1)
        return (error / (error + 1)).exp().sum()

    def distance(a, b):
        return 1 - (a * b).sum(1) / (((a * a).sum(1) + 1e-12) * ((b * b).sum(1) + 1e-12)).sqrt()

    def step(optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def apart(network):
        return torch.cat([network(images[:BATCH]), network(images[BATCH:])])

    def as_authors():
        e = apart(net)
        step(first, spread(kept_vae, e[:BATCH]) - spread(forgotten_vae, e[BATCH:]))
        d = distance(apart(net), apart(original))
        step(second, d[:BATCH].sum() - BATCH * torch.logsumexp(d[BATCH:] / TEMPERATURE, 0))

    def work():
        e = net(images)
        step(first, spread(kept_vae, e[:BATCH]) - spread(forgotten_vae, e[BATCH:]))
        d = distance(net(images), teacher)
        step(second, d[:BATCH].sum() - BATCH * torch.logsumexp(d[BATCH:] / TEMPERATURE, 0))

    return as_authors if authors else work


def measure(case, authors, repeat, threads):
    import torch

    torch.set_num_threads(threads)
    work = pair(case, authors)
    for _ in range(3):
        work()
    cpu, wall = [], []
    for _ in range(repeat):
        began_cpu, began_wall = time.process_time(), time.perf_counter()
        for _ in range(PAIRS):
            work()
        cpu.append((time.process_time() - began_cpu) / PAIRS)
        wall.append((time.perf_counter() - began_wall) / PAIRS)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"torch": torch.__version__, "cpuSeconds": cpu, "wallSeconds": wall, "peakBytes": peak}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", choices=["cnn", "resnet8"], required=True)
    parser.add_argument("--authors", action="store_true")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    # Before torch is imported, which reads it.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    print(json.dumps(measure(args.case, args.authors, args.repeat, args.threads)))


main()
