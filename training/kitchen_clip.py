"""Train the kitchen world's tiny CLIP, by contrast, on frames and captions of its pretraining.

    python training/kitchen_clip.py            # --minutes of training, 15 by default

It has been run for a few dozen steps only; no weights ship yet, and its quality is not known.

What it hallucinates it learned here: in the pretraining videos the companions come with the
activities (H), and partners are spoken of alike (I). Nothing else puts it there. Writes
`clip.json` (open_clip's configuration format), `clip.bpe.gz` (its vocabulary), `clip.safetensors`
and `clip.quality.json` into the package.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tqdm import tqdm

from pcmci.kitchen import ACTIONS, ACTIVITIES, captioned_frames
from pcmci.kitchen.actions import readable
from pcmci.kitchen.pretraining import CAPTIONS
from pcmci.kitchen.world import ACTIVITY_TEMPLATE, STEP_TEMPLATE

PACKAGE = Path(__file__).parents[1] / "pcmci" / "extract" / "encoders" / "kitchen"
MEAN = STD = (0.5, 0.5, 0.5)
HELD_OUT = 10_000_000
"""Pretraining videos from this number on are never trained on: they measure the quality."""

MODEL = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 96, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
    "text_cfg": {"context_length": 24, "width": 64, "heads": 4, "layers": 2},
}


def write_vocabulary(path: Path) -> int:
    """Of open_clip's own merges those that the world's captions use, in their order.

    Returns the size of the vocabulary: bytes, bytes that end a word, merges, two special tokens.
    """
    full = open_clip.SimpleTokenizer()
    texts = [readable(name) for name in ACTIVITIES] + [a.text for a in ACTIONS.values()]
    words = {word for text in [*texts, *CAPTIONS] for word in text.replace("{", " ").split()}
    pieces: set[str] = set()
    for word in words:
        pieces |= {full.decoder[token] for token in full.encode(word)}
    # A piece is made by merges that are made by merges: keep all that lead to one.
    ranks = sorted(full.bpe_ranks, key=full.bpe_ranks.__getitem__)
    made = {"".join(pair): pair for pair in reversed(ranks)}
    needed: set[tuple[str, str]] = set()
    todo = list(pieces)
    while todo:
        if (pair := made.get(todo.pop())) and pair not in needed:
            needed.add(pair)
            todo += pair
    merges = [" ".join(pair) for pair in ranks if pair in needed]
    content = "\n".join(["#version: 0.2", *merges]).encode()
    path.write_bytes(gzip.compress(content, mtime=0))
    return 2 * 256 + len(merges) + 2


def draw(number: int) -> tuple[np.ndarray, tuple[str, ...], str, tuple[str | None, ...]]:
    video = captioned_frames(number)
    return video.frames, video.captions, video.activity, video.actions


def dataset(numbers: range) -> tuple[np.ndarray, list[str], list[str], list[str | None]]:
    """Frames [n, 96, 96, 3] uint8, a caption, the true activity and the true action of each."""
    frames, captions, activities, actions = [], [], [], []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        drawn = pool.map(draw, numbers, chunksize=16)
        for shown, said, activity, done in tqdm(drawn, total=len(numbers), unit="video"):
            frames.append(shown)
            captions += said
            activities += [activity] * len(said)
            actions += done
    return np.concatenate(frames), captions, activities, actions


def pixels(frames: np.ndarray) -> torch.Tensor:
    """As `pcmci.extract.encoders.preprocess.Normalise` does, channels last in memory."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.5)


def contrast(image: torch.Tensor, text: torch.Tensor, said: torch.Tensor, scale: torch.Tensor):
    """InfoNCE in both directions, where a caption may have several frames.

    image: [B, D]. text: [U, D], the different captions of the batch. said: [B] which.
    """
    logits = scale.exp() * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    to_text = F.cross_entropy(logits, said)
    own = F.one_hot(said, len(text)).bool()
    of_text = logits.T.log_softmax(-1).masked_fill(~own.T, -torch.inf).logsumexp(-1)
    return (to_text - of_text.mean()) / 2


@torch.no_grad()
def accuracy(model, tokenizer, frames, truth, texts) -> float:
    """Zero-shot: the share of frames whose best text is the true one."""
    model.eval()
    text = F.normalize(model.encode_text(tokenizer(texts)), dim=-1)
    right = 0
    for start in range(0, len(frames), 256):
        image = model.encode_image(pixels(frames[start : start + 256]))
        best = (image @ text.T).argmax(1).numpy()
        right += int((best == truth[start : start + 256]).sum())
    return right / len(frames)


def quality(model, tokenizer, held_out) -> dict[str, float]:
    frames, _, activities, actions = held_out
    names, steps = list(ACTIVITIES), list(ACTIONS)
    of_activity = np.array([names.index(a) for a in activities])
    doing = np.array([a is not None for a in actions])
    of_step = np.array([steps.index(a) for a in actions if a is not None])
    prompts = [ACTIVITY_TEMPLATE.format(readable(n)) for n in names]
    step_prompts = [STEP_TEMPLATE.format(a.text) for a in ACTIONS.values()]
    return {
        "zero-shot activity": accuracy(model, tokenizer, frames, of_activity, prompts),
        "zero-shot step": accuracy(model, tokenizer, frames[doing], of_step, step_prompts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=15, help="of training, drawing apart")
    parser.add_argument("--out", type=Path, default=PACKAGE)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    arguments.out.mkdir(parents=True, exist_ok=True)

    size = write_vocabulary(arguments.out / "clip.bpe.gz")
    text_config = {
        **MODEL["text_cfg"],
        "vocab_size": size,
        "tokenizer_kwargs": {"bpe_path": "clip.bpe.gz"},
    }
    config = {
        "model_cfg": {**MODEL, "text_cfg": text_config},
        "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bilinear"},
    }
    (arguments.out / "clip.json").write_text(json.dumps(config, indent=1) + "\n")
    tokenizer = open_clip.SimpleTokenizer(
        str(arguments.out / "clip.bpe.gz"), context_length=MODEL["text_cfg"]["context_length"]
    )
    model = open_clip.CLIP(**{**MODEL, "text_cfg": {**MODEL["text_cfg"], "vocab_size": size}})
    model = model.to(memory_format=torch.channels_last)  # a third faster on a CPU
    frames, captions, _, _ = dataset(range(arguments.videos))
    held_out = dataset(range(HELD_OUT, HELD_OUT + 200))
    different = sorted(set(captions))
    tokens = tokenizer(different)
    place = {caption: index for index, caption in enumerate(different)}
    said = np.array([place[caption] for caption in captions])

    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    rng = np.random.default_rng(0)
    began, step, budget = time.perf_counter(), 0, 60 * arguments.minutes
    bar = tqdm(total=budget, unit="s", desc="training", bar_format="{l_bar}{bar}|{postfix}")
    while (passed := time.perf_counter() - began) < budget:
        share = passed / budget
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1, 20 * share) * 0.5 * (1 + np.cos(np.pi * share))
        rows = np.sort(rng.choice(len(frames), 256, replace=False))
        model.train()
        here, which = np.unique(said[rows], return_inverse=True)
        # Small shifts: the person does not stand where the last one stood.
        dx, dy = rng.integers(-4, 5, 2)
        image = model.encode_image(torch.roll(pixels(frames[rows]), (int(dy), int(dx)), (2, 3)))
        text = model.encode_text(tokens[here])
        loss = contrast(image, text, torch.from_numpy(which), model.logit_scale)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        model.logit_scale.data.clamp_(max=np.log(50))
        step += 1
        bar.n = passed
        if step % 20 == 0:
            bar.set_postfix_str(f"step {step}, loss {loss.item():.3f}")
        if step % 400 == 0:
            tqdm.write(f"{passed:.0f} s {quality(model, tokenizer, held_out)}")
    state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, arguments.out / "clip.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    found = {**quality(model, tokenizer, held_out), "steps": step, "frames": len(frames)}
    (arguments.out / "clip.quality.json").write_text(json.dumps(found, indent=1) + "\n")
    print(found)


if __name__ == "__main__":
    main()
