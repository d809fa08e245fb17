"""What one would write without this project: a DataLoader over the store, a Sinkhorn a video.

The baseline of benchmarks/ablation.py: the same model and the same steps, in the straightforward
way, one run after another.

    python benchmarks/plain_loop.py STORE --orders "none; ich,ici" --epochs 1
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import ot
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pcmci.cache.store import Store, open_store
from pcmci.heads.ablation.grid import parse_orders
from pcmci.heads.config import ModelConfig, TrainConfig, ich_is_frozen, order_name
from pcmci.heads.method.model import PCMCI
from pcmci.heads.training.fit import learning_rate_share

LOADERS = 2


class Videos(Dataset):
    """One video an item, read from the store when it is asked for."""

    def __init__(self, path: Path, split: str) -> None:
        self.path, self.store = path, None
        with open_store(path) as store:
            done = set(store.done_rows.tolist())
            self.rows = [r for r, s in enumerate(store.splits) if s == split and r in done]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[np.ndarray, np.ndarray, int]:
        if self.store is None:  # each process of the loader opens its own
            self.store: Store | None = open_store(self.path)
        row = np.array([self.rows[place]])
        vlm, video = (self.store.read(name, row)[0, 0] for name in ("vlm", "video"))
        return vlm.astype(np.float32), video.astype(np.float32), int(self.store.activity[row[0]])


def sinkhorn_weights(text: np.ndarray, vlm: Tensor, temperature: float, lam: float) -> Tensor:
    """S~ [B, N, L], video by video with POT."""
    found = []
    for frames in F.normalize(vlm, dim=-1).numpy():
        log_s = text @ frames.T / temperature
        n, length = log_s.shape
        rows, columns = np.full(n, 1 / n), np.full(length, 1 / length)
        plan = ot.sinkhorn(rows, columns, -log_s, reg=lam, method="sinkhorn_log", stopThr=1e-7)
        refined = torch.from_numpy(log_s + np.log(plan + 1e-30)).softmax(-1)
        found.append(refined.float())
    return torch.stack(found)


def train(path: Path, order: tuple[str, ...], epochs: int, seed: int = 0) -> dict[str, float]:
    """Seconds of an epoch of one run for `activity`, and of its prediction of the test videos."""
    with open_store(path) as store:
        text, width = store.text("activity"), store.spec.video.width
    torch.manual_seed(seed)
    config, model_config = TrainConfig(labels=("activity",), epochs=epochs), ModelConfig(order)
    model = PCMCI(model_config, torch.from_numpy(text), width)
    loader = DataLoader(Videos(path, "train"), config.batch_size, shuffle=True, num_workers=LOADERS)
    test = DataLoader(Videos(path, "test"), config.batch_size, num_workers=LOADERS)
    optimiser = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=config.weight_decay)
    steps = epochs * len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: learning_rate_share(step, steps, config.warmup)
    )
    aligned = "ich" in order and ich_is_frozen(model_config)
    normed = F.normalize(torch.from_numpy(text), dim=-1).numpy()
    transport = model_config.transport

    def weights(vlm: Tensor) -> Tensor | None:
        if not aligned:
            return None
        return sinkhorn_weights(normed, vlm, transport.temperature, transport.lam)

    generator = torch.Generator().manual_seed(seed)
    began = time.perf_counter()
    for _ in range(epochs):
        for vlm, video, target in loader:
            draws = model.draw(len(target), generator)
            loss = F.cross_entropy(model(vlm, video, weights(vlm), draws), target)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimiser.step()
            schedule.step()
            if not math.isfinite(loss.item()):
                raise RuntimeError("diverged")
    trained = time.perf_counter()
    model.eval()
    with torch.no_grad():
        for vlm, video, _ in test:
            model(vlm, video, weights(vlm))
    done = time.perf_counter()
    return {"epoch": (trained - began) / epochs, "test": done - trained}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--orders", default="all")
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args()
    seconds = {
        order_name(order): train(options.store, order, options.epochs)
        for order in parse_orders(options.orders)
    }
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
