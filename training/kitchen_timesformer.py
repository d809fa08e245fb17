"""Train the kitchen world's tiny TimeSformer on clips of single atomic actions: its Kinetics.

    python training/kitchen_timesformer.py     # --minutes of training, 20 by default

It has been run for a few dozen steps only; no weights ship yet, and its quality is not known.

Other persons in other kitchens than any video of the world, and no confounder holds. Trained with
`transformers` (the `test` extra), whose layout our loader reads. Writes `timesformer.json`,
`timesformer.safetensors` and `timesformer.quality.json` into the package.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import TimesformerConfig, TimesformerModel

from pcmci.kitchen import CLIP_LABELS, action_clip

PACKAGE = Path(__file__).parents[1] / "pcmci" / "extract" / "encoders" / "kitchen"
MEAN, STD = 0.45, 0.225
HELD_OUT = 10_000_000

CONFIG = {
    "image_size": 96,
    "patch_size": 12,
    "num_frames": 8,
    "hidden_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "hidden_act": "gelu",
    "attention_type": "divided_space_time",
}


def clips(numbers: range) -> tuple[np.ndarray, np.ndarray]:
    """[n, 8, 96, 96, 3] uint8 and the labels [n]."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        drawn = pool.map(action_clip, numbers, chunksize=16)
        shown, labels = zip(*tqdm(drawn, total=len(numbers), unit="clip"), strict=True)
    return np.stack(shown), np.array(labels)


def pixels(shown: np.ndarray) -> torch.Tensor:
    """[B, 8, 3, 96, 96] float32, normalised as the authors do."""
    return torch.from_numpy(shown).permute(0, 1, 4, 2, 3).float().div(255).sub(MEAN).div(STD)


class Classifier(torch.nn.Module):
    """The encoder with one linear layer on the mean of its patch tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = TimesformerModel(TimesformerConfig(**CONFIG))
        self.head = torch.nn.Linear(CONFIG["hidden_size"], len(CLIP_LABELS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x).last_hidden_state[:, 1:].mean(1))


@torch.no_grad()
def accuracy(model: Classifier, shown: np.ndarray, labels: np.ndarray) -> float:
    model.eval()
    parts = range(0, len(shown), 64)
    guessed = [model(pixels(shown[i : i + 64])).argmax(1).numpy() for i in parts]
    return float((np.concatenate(guessed) == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=12_000)
    parser.add_argument("--minutes", type=float, default=20, help="of training, drawing apart")
    parser.add_argument("--out", type=Path, default=PACKAGE)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "timesformer.json").write_text(json.dumps(CONFIG, indent=1) + "\n")

    shown, labels = clips(range(arguments.clips))
    held_out = clips(range(HELD_OUT, HELD_OUT + 600))
    model = Classifier()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    rng = np.random.default_rng(0)
    began, step, budget = time.perf_counter(), 0, 60 * arguments.minutes
    bar = tqdm(total=budget, unit="s", desc="training", bar_format="{l_bar}{bar}|{postfix}")
    while (passed := time.perf_counter() - began) < budget:
        share = passed / budget
        for group in optimiser.param_groups:
            group["lr"] = 1.5e-3 * min(1, 20 * share) * 0.5 * (1 + np.cos(np.pi * share))
        model.train()
        rows = np.sort(rng.choice(len(shown), 32, replace=False))
        dx, dy = rng.integers(-4, 5, 2)
        x = torch.roll(pixels(shown[rows]), (int(dy), int(dx)), (3, 4))
        loss = F.cross_entropy(model(x), torch.from_numpy(labels[rows]), label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        bar.n = passed
        if step % 20 == 0:
            bar.set_postfix_str(f"step {step}, loss {loss.item():.3f}")
        if step % 400 == 0:
            tqdm.write(f"{passed:.0f} s: accuracy {accuracy(model, *held_out):.3f}")
    state = model.encoder.state_dict()
    state = {name: tensor.half().contiguous() for name, tensor in state.items()}
    save_file(state, arguments.out / "timesformer.safetensors")
    model.encoder.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    found = {
        "atomic action": accuracy(model, *held_out),
        "classes": len(CLIP_LABELS),
        "steps": step,
        "clips": len(shown),
    }
    (arguments.out / "timesformer.quality.json").write_text(json.dumps(found, indent=1) + "\n")
    print(found)


if __name__ == "__main__":
    main()
