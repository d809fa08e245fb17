"""Train the kitchen world's tiny TimeSformer on clips of single atomic actions: its Kinetics.

    python training/kitchen_timesformer.py

Other persons in other kitchens than any video of the world, and no confounder holds. As the authors
began with an image model, so does this one: first single frames, then clips. Trained with
`transformers` (the `test` extra), whose layout our loader reads, and PyTorch's Muon (2.9 or newer).
Writes `timesformer.json`, `timesformer.safetensors` and `timesformer.quality.json` into the
package.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from endless import HELD_OUT, OneCycle, batches
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import TimesformerConfig, TimesformerModel

from pcmci.extract.encoders.weights import state_dict_sha256
from pcmci.kitchen import ACTIONS, CLIP_LABELS, action_clip
from pcmci.kitchen.actions import STATIONS
from pcmci.kitchen.pretraining import ActionClip

PACKAGE = Path(__file__).parents[1] / "pcmci" / "extract" / "encoders" / "kitchen"
MEAN, STD = 0.45, 0.225

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
INITIAL_WEIGHT = 0.08
"""Standard deviation of a fresh weight: about width ** -0.5, for the width is small."""

TOOLS = tuple(dict.fromkeys(action.tool for action in ACTIONS.values()))
TASKS = {"action": len(CLIP_LABELS), "tool": len(TOOLS), "station": len(STATIONS)}
"""What is asked of a clip. Tool and station, two thirds of an action's meaning, only help to learn
sooner; what is measured is the action."""


def targets(clips: list[ActionClip]) -> dict[str, torch.Tensor]:
    """[B] a task."""
    found = {
        "action": [clip.label for clip in clips],
        "tool": [TOOLS.index(ACTIONS[clip.action].tool) for clip in clips],
        "station": [STATIONS.index(clip.station) for clip in clips],
    }
    return {task: torch.tensor(values) for task, values in found.items()}


def pixels(clips: list[ActionClip]) -> torch.Tensor:
    """[B, F, 3, 96, 96] float32, normalised as the authors do."""
    shown = torch.from_numpy(np.stack([clip.frames for clip in clips]))
    return shown.permute(0, 1, 4, 2, 3).float().div(255).sub(MEAN).div(STD)


class Classifier(torch.nn.Module):
    """The encoder with a linear layer a task, on a frame's token: the mean over its patches."""

    def __init__(self) -> None:
        super().__init__()
        config = TimesformerConfig(**CONFIG, initializer_range=INITIAL_WEIGHT)
        self.encoder = TimesformerModel(config)
        self.heads = torch.nn.ModuleDict(
            {task: torch.nn.Linear(CONFIG["hidden_size"], size) for task, size in TASKS.items()}
        )

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Pixels [B, F, 3, S, S] to logits [B, F, classes] a task."""
        self.encoder.config.num_frames = x.shape[1]  # the blocks ask it
        patches = self.encoder(x).last_hidden_state[:, 1:]  # patch-major, time inner
        tokens = patches.unflatten(1, (-1, x.shape[1])).mean(1)
        return {task: head(tokens) for task, head in self.heads.items()}


def waves(places: int, width: int) -> torch.Tensor:
    """[places, width] sines and cosines of slow to quick waves: neighbours are alike."""
    pace = torch.exp(-torch.arange(width // 2) / (width // 2) * np.log(2.0 * places))
    angle = torch.arange(places)[:, None] * pace * np.pi / 2
    return torch.cat([angle.sin(), angle.cos()], 1)


@torch.no_grad()
def begin_well(encoder: TimesformerModel, shown: torch.Tensor) -> None:
    """Places begin as waves, patches as their whitened principal components (turned at random):
    a small transformer needs several times as long from the usual noise.

    shown: [B, F, 3, S, S] pixels that the components are taken from.
    """
    embeddings, width, patch = encoder.embeddings, CONFIG["hidden_size"], CONFIG["patch_size"]
    side = CONFIG["image_size"] // patch
    along = waves(side, width // 2)
    grid = torch.cat(
        [along[:, None].expand(side, side, -1), along[None].expand(side, side, -1)], -1
    )
    embeddings.position_embeddings[0, 1:] = grid.flatten(0, 1) / 2
    embeddings.time_embeddings[0] = waves(CONFIG["num_frames"], width) / 4
    patches = F.unfold(shown.flatten(0, 1), patch, stride=patch).mT.flatten(0, 1)
    mean = patches.mean(0)
    strength, components = torch.linalg.eigh(torch.cov((patches - mean).T))
    strength, components = strength[-width:], components[:, -width:]
    whitened = components / (strength + 0.05 * strength.mean()).sqrt()
    turned = torch.linalg.qr(torch.randn(width, width))[0] @ whitened.T / 2
    projection = embeddings.patch_embeddings.projection
    projection.weight.copy_(turned.view_as(projection.weight))
    projection.bias.copy_(-turned @ mean)


def loss_function(logits: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> torch.Tensor:
    """The clip's answer is the mean of its frames', and every frame is asked too."""
    total = torch.zeros(())
    for task, answers in logits.items():
        whole = F.cross_entropy(answers.mean(1), target[task])
        each = F.cross_entropy(
            answers.flatten(0, 1), target[task].repeat_interleave(answers.shape[1])
        )
        total = total + (whole + each) * (1.0 if task == "action" else 0.5)
    return total


@torch.no_grad()
def accuracy(model: Classifier, clips: list[ActionClip]) -> dict[str, float]:
    """Of the actions, of the clip as a whole and of a frame's token alone."""
    model.eval()
    whole, each = [], []
    for start in range(0, len(clips), 64):
        part = clips[start : start + 64]
        answers = model(pixels(part))["action"]
        label = targets(part)["action"]
        whole.append((answers.mean(1).argmax(1) == label).float())
        each.append((answers.argmax(2) == label[:, None]).float().mean(1))
    return {
        "clip": float(torch.cat(whole).mean()),
        "frame": float(torch.cat(each).mean()),
    }


def learn(
    model: Classifier,
    draw: Callable[[int], ActionClip],
    size: int,
    steps: int,
    first: int,
    held_out: list[ActionClip],
) -> None:
    """Train on `steps` batches of `size` clips, the `first`-th and those after it."""
    matrices = [p for p in model.encoder.encoder.parameters() if p.ndim == 2]
    taken = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in taken]
    optimiser = OneCycle(
        steps,
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.05),  # half the steps of AdamW
        torch.optim.AdamW(rest, lr=3e-3, weight_decay=0.05, betas=(0.9, 0.98)),
    )
    bar = tqdm(batches(draw, size, steps, first), unit="step")
    for step, clips in enumerate(bar, start=1):
        model.train()
        loss = loss_function(model(pixels(clips)), targets(clips))
        optimiser.step(loss)
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if step % 250 == 0:
            tqdm.write(f"step {step}: {accuracy(model, held_out)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-steps", type=int, default=600, help="of 128 single frames")
    parser.add_argument("--steps", type=int, default=1500, help="of 32 clips")
    parser.add_argument("--held-out", type=int, default=1000, help="clips that measure the quality")
    parser.add_argument("--out", type=Path, default=PACKAGE)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "timesformer.json").write_text(json.dumps(CONFIG, indent=1) + "\n")

    began = time.perf_counter()
    held_out = [action_clip(HELD_OUT + k) for k in range(arguments.held_out)]
    model = Classifier()
    begin_well(model.encoder, pixels([action_clip(HELD_OUT + 10**6 + k) for k in range(64)]))
    image = partial(action_clip, frames=1)
    learn(model, image, 128, arguments.image_steps, 0, [image(HELD_OUT + k) for k in range(400)])
    learn(model, action_clip, 32, arguments.steps, 10**8, held_out[:400])

    state = model.encoder.state_dict()
    state = {name: tensor.half().contiguous() for name, tensor in state.items()}
    save_file(state, arguments.out / "timesformer.safetensors")
    model.encoder.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    found = {
        "accuracy": accuracy(model, held_out),
        "classes": len(CLIP_LABELS),
        "held-out clips": len(held_out),
        "frames": 128 * arguments.image_steps,
        "clips": 32 * arguments.steps,
        "sha256": state_dict_sha256(state),
        "parameters": sum(p.numel() for p in model.encoder.parameters()),
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "threads": arguments.threads,
    }
    (arguments.out / "timesformer.quality.json").write_text(json.dumps(found, indent=1) + "\n")
    print(found)


if __name__ == "__main__":
    main()
