"""DSnoT on one layer in torch, the other side of bench/dsnot-layer.js.

Not a part of the product and not the authors' code, but laid out like it (github.com/zyxxmu/DSnoT):
three sorts of full rows, two more to split the pruning candidates by sign, then a loop over swaps on
tensors of [rows, 1]. Unlike there, a row that has stopped is left alone.

usage: dsnot-reference.py FOLDER ROWS COLS SPARSITY CYCLES THRESHOLD REPEATS
FOLDER holds w.f32 [rows, cols] and scaler.f32, sum.f32, variance.f32 [cols]; mask.u8 (1 = keep) is
written to it. Prints the CPU seconds of each repeat as a JSON list.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch


def split_by_sign(contributions):
    """Permutes each row: positions of negative values in order from the left end, those of positive
    values in order from the right end."""
    rows, cols = contributions.shape
    positions = torch.arange(cols, dtype=torch.float64).repeat(rows, 1)
    absent = torch.tensor(float("inf"), dtype=torch.float64)
    negative = torch.sort(torch.where(contributions < 0, positions, absent), dim=1).values
    positive = torch.sort(torch.where(contributions > 0, positions, absent), dim=1).values.flip(1)
    merged = torch.where(torch.isinf(negative), positive, negative)
    return torch.where(torch.isinf(merged), 0, merged).long()


def refine(w, scaler, total, variance, sparsity, cycles, threshold):
    """Wanda's mask (True = pruned), refined."""
    rows, cols = w.shape
    contributions = w * total
    wanda = w.abs() * scaler.sqrt()
    order = torch.sort(wanda, dim=1, stable=True).indices
    count = int(cols * sparsity)
    pruned, kept = order[:, :count], order[:, count:]
    mask = torch.zeros_like(w, dtype=torch.bool).scatter_(1, pruned, True)

    growth = contributions.clone().scatter_(1, kept, 0)
    error = growth.sum(dim=1, keepdim=True)
    growing = torch.sort(growth / variance, dim=1, stable=True).indices

    victims = torch.sort(wanda.clone().scatter_(1, pruned, float("inf")), dim=1, stable=True).indices
    victims = victims[:, : cols - count]
    victims = victims.gather(1, split_by_sign(contributions.gather(1, victims)))

    # Pointers [rows, 2] from the left end and from the right end of each list.
    grow_at = torch.tensor([[0, cols - 1]]).repeat(rows, 1)
    prune_at = torch.tensor([[0, cols - count - 1]]).repeat(rows, 1)
    step = torch.tensor([[1, -1]]).repeat(rows, 1)
    active = torch.ones_like(error, dtype=torch.bool)
    for _ in range(cycles):
        active = active & (error.abs() > threshold)
        if not active.any():
            break
        grow_side, prune_side = (error > 0).long(), (error < 0).long()
        grow_index, prune_index = grow_at.gather(1, grow_side), prune_at.gather(1, prune_side)
        grow, prune = growing.gather(1, grow_index), victims.gather(1, prune_index)
        gained, lost = contributions.gather(1, grow), contributions.gather(1, prune)
        mask.scatter_(1, prune, torch.where(active, True, mask.gather(1, prune)))
        mask.scatter_(1, grow, torch.where(active, False, mask.gather(1, grow)))
        error = torch.where(active, error + lost - gained, error)
        grow_at.scatter_(1, grow_side, grow_index + step.gather(1, grow_side))
        prune_at.scatter_(1, prune_side, prune_index + step.gather(1, prune_side))
        grow_at.clamp_(0, cols - 1)
        prune_at.clamp_(0, cols - count - 1)
    return mask


def main():
    folder = Path(sys.argv[1])
    rows, cols, cycles, repeats = (int(sys.argv[i]) for i in (2, 3, 5, 7))
    sparsity, threshold = float(sys.argv[4]), float(sys.argv[6])
    torch.set_num_threads(1)
    w, *statistics = (
        torch.from_numpy(np.fromfile(folder / f"{name}.f32", dtype=np.float32))
        for name in ("w", "scaler", "sum", "variance")
    )
    w = w.reshape(rows, cols)
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        mask = refine(w, *statistics, sparsity, cycles, threshold)
        seconds.append(time.process_time() - start)
    (~mask).numpy().astype(np.uint8).tofile(folder / "mask.u8")
    print(json.dumps(seconds))


main()
