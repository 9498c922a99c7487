"""Forward and backward passes in torch, the other side of the bench of gradients.

usage: autodiff-reference.py [--case NAME] [--repeat N] [--threads N]
       autodiff-reference.py --export FOLDER

Prints JSON: for each case the CPU and wall-clock seconds of each repeat, of one step (or, for ssd-*, of a pass
over 2,000 images), the loss of the first batch, and the peak resident memory of the process, which is a fresh
one for every case. --export writes the same networks as FOLDER/NET.onnx with the batch that the cases start
from, NET.inputs.npy and NET.targets.npy; the cases take its first rows. Needs torch, numpy and onnx.

A step is forward, mean cross-entropy and backward to every parameter, without an update; BatchNormalizations
are in inference mode, as they are when a trained model is edited. The CNN is fixtures/golden/ssd/cnn with its
data; the others have random weights, because only their speed matters.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

SSD = Path(__file__).resolve().parent.parent / "fixtures" / "golden" / "ssd"
SEED = 7
SSD_IMAGES = 2000
VOCABULARY, WIDTH, LAYERS, HEADS, LENGTH = 8192, 256, 4, 4, 128

# Name: network, batch, steps per repeat. Short steps are timed together, above the clock's resolution.
STEPS = {
    "cnn-1": ("cnn", 1, 200),
    "cnn-16": ("cnn", 16, 50),
    "cnn-64": ("cnn", 64, 20),
    "resnet18-16": ("resnet18", 16, 1),
    "transformer-16": ("transformer", 16, 1),
}
# Name: batch.
IMPORTANCE = {"ssd-64": 64, "ssd-1": 1}


def build_cnn():
    import onnx
    import torch
    from onnx import numpy_helper
    from torch import nn

    class Cnn(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.conv2, self.bn2 = nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
            self.fc1, self.fc2 = nn.Linear(16 * 7 * 7, 24), nn.Linear(24, 10)
            self.pool = nn.MaxPool2d(2)

        def forward(self, x):
            x = self.pool(self.bn1(self.conv1(x)).relu())
            x = self.pool(self.bn2(self.conv2(x)).relu())
            return self.fc2(self.fc1(x.flatten(1)).relu())

    model = Cnn()
    weights = onnx.load(SSD / "cnn" / "cnn.onnx").graph.initializer
    state = {w.name: torch.from_numpy(numpy_helper.to_array(w).copy()) for w in weights}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    return model


def build_resnet18():
    """The form for 32x32 images: a 3x3 stem of stride 1, no pooling after it."""
    from torch import nn

    def conv_bn(inputs, outputs, kernel, stride):
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs))

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.a = conv_bn(inputs, outputs, 3, stride)
            self.b = conv_bn(outputs, outputs, 3, 1)
            same = inputs == outputs and stride == 1
            self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride)

        def forward(self, x):
            return (self.b(self.a(x).relu()) + self.shortcut(x)).relu()

    widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
    strides = [1, 1, 2, 1, 2, 1, 2, 1]
    blocks = [Block(*shape) for shape in zip(widths, widths[1:], strides)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    return nn.Sequential(conv_bn(3, 64, 3, 1), nn.ReLU(), *blocks, *head)


def build_transformer():
    """A decoder-only language model."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln1, self.ln2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def attention(self, x):
            q, k, v = (
                part.reshape(-1, LENGTH, HEADS, WIDTH // HEADS).transpose(1, 2)
                for part in self.qkv(x).split(WIDTH, 2)
            )
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out(mixed.transpose(1, 2).reshape(-1, LENGTH, WIDTH))

        def forward(self, x):
            x = x + self.attention(self.ln1(x))
            return x + self.down(F.gelu(self.up(self.ln2(x))))

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.token_embedding = nn.Embedding(VOCABULARY, WIDTH)
            self.position_embedding = nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
            nn.init.normal_(self.token_embedding.weight, std=0.02)
            self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
            self.ln = nn.LayerNorm(WIDTH)
            self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

        def forward(self, input_ids):
            x = self.token_embedding(input_ids) + self.position_embedding
            return self.head(self.ln(self.blocks(x)))

    return Transformer()


def ssd_data(count):
    import numpy as np
    import torch

    part = np.load(SSD / "data" / "train.npz")
    x, y = part["input"][:count], part["label"][:count]
    return torch.from_numpy(x.reshape(-1, 1, 28, 28).astype(np.float32) / 255), torch.from_numpy(y.astype(np.int64))


def random_images():
    import torch

    return torch.randn(16, 3, 32, 32), torch.randint(10, (16,))


def random_tokens():
    import torch

    return torch.randint(VOCABULARY, (16, LENGTH)), torch.randint(VOCABULARY, (16, LENGTH))


NETS = {
    "cnn": (build_cnn, lambda: ssd_data(64)),
    "resnet18": (build_resnet18, random_images),
    "transformer": (build_transformer, random_tokens),
}


def scatter(model):
    """Moves every vector off its initial ones or zeros: the exporter merges equal parameters into one."""
    import torch

    with torch.no_grad():
        for value in [*model.parameters(), *model.buffers()]:
            if value.is_floating_point() and value.ndim == 1:
                value += 0.1 * torch.rand_like(value)
    return model


def make(net):
    """The network in inference mode, and its batch; always the same."""
    import torch

    build, data = NETS[net]
    torch.manual_seed(SEED)
    model = build().eval()
    return model if net == "cnn" else scatter(model), *data()


def step(model, x, y):
    from torch.nn import functional as F

    model.zero_grad(set_to_none=True)
    logits = model(x)
    loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))
    loss.backward()
    return loss.item()


def steps(case):
    net, batch, count = STEPS[case]
    model, x, y = make(net)
    x, y = x[:batch], y[:batch]

    def work():
        for _ in range(count):
            step(model, x, y)

    return work, count, step(model, x, y), {"network": net, "batch": batch}


def importances(case):
    """The importance pass of Selective Synaptic Dampening: squared gradients of each batch, averaged."""
    import torch

    batch = IMPORTANCE[case]
    model, *_ = make("cnn")
    x, y = ssd_data(SSD_IMAGES)
    parameters = list(model.parameters())

    def work():
        totals = [torch.zeros_like(p) for p in parameters]
        parts = list(zip(x.split(batch), y.split(batch)))
        for images, labels in parts:
            step(model, images, labels)
            for total, p in zip(totals, parameters):
                total += p.grad.pow(2)
        for total in totals:
            total /= len(parts)

    loss = step(model, x[:batch], y[:batch])
    return work, 1, loss, {"network": "cnn", "batch": batch, "images": SSD_IMAGES}


def peak_memory():
    """In bytes. Where the system tells it, of this program alone: ru_maxrss may count the parent's pages."""
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def measure(case, repeat, threads):
    import torch

    torch.set_num_threads(threads)
    imported = peak_memory()
    work, count, loss, about = importances(case) if case in IMPORTANCE else steps(case)
    work()
    cpu, wall = [], []
    for _ in range(repeat):
        began_cpu, began_wall = time.process_time(), time.perf_counter()
        work()
        cpu.append((time.process_time() - began_cpu) / count)
        wall.append((time.perf_counter() - began_wall) / count)
    return {
        "case": case,
        **about,
        "torch": torch.__version__,
        "threads": threads,
        "loss": loss,
        "cpuSeconds": cpu,
        "wallSeconds": wall,
        "peakBytes": peak_memory(),
        "importedBytes": imported,  # of the peak, what importing torch takes
    }


def export(folder):
    import numpy as np
    import onnx
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    for net in NETS:
        model, x, y = make(net)
        # The exporter folds BatchNormalizations unless told to preserve the mode, and transposes the weights
        # of linear layers only when it may fold constants.
        convolutional = net != "transformer"
        mode = torch.onnx.TrainingMode.PRESERVE if convolutional else torch.onnx.TrainingMode.EVAL
        path = folder / f"{net}.onnx"
        name = "input" if convolutional else "input_ids"
        torch.onnx.export(
            model, (x[:2],), str(path), dynamo=False, opset_version=17,
            training=mode, do_constant_folding=not convolutional,
            input_names=[name], output_names=["logits"],
            dynamic_axes={name: {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip
        proto = onnx.load(path)
        assert not any(node.op_type == "Identity" for node in proto.graph.node)
        for node in proto.graph.node:
            node.doc_string = ""
        onnx.save(proto, path)
        np.save(folder / f"{net}.inputs.npy", x.numpy())
        np.save(folder / f"{net}.targets.npy", y.numpy())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", choices=[*STEPS, *IMPORTANCE])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    # Before torch is imported, which reads it.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    if args.export:
        export(args.export)
    elif args.case:
        print(json.dumps(measure(args.case, args.repeat, args.threads)))
    else:
        options = ["--repeat", str(args.repeat), "--threads", str(args.threads)]
        results = []
        for case in (*STEPS, *IMPORTANCE):
            run = [sys.executable, __file__, "--case", case, *options]
            results.append(json.loads(subprocess.run(run, check=True, stdout=subprocess.PIPE).stdout))
        print(json.dumps(results, indent=2))


main()
