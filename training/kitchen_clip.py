"""Train the kitchen world's tiny CLIP, by contrast, on frames and captions of its pretraining.

    python training/kitchen_clip.py              # the CLIP `kitchen`
    python training/kitchen_clip.py --h 0        # the CLIP `kitchen:h0`

What it hallucinates it learned here: in the pretraining videos the companions come with the
activities (H), and partners are spoken of alike (I). Nothing else puts it there. Writes
`clip.json` (open_clip's configuration format), `clip.bpe.gz` (its vocabulary), `clip.safetensors`
and `clip.quality.json` into the package; with another H than the world's own, the weights and the
measurements under a name that says it, `clip-h0.safetensors`.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import os
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from endless import HELD_OUT, OneCycle, batches
from safetensors.torch import save_file
from tqdm import tqdm

from pcmci.extract.encoders.weights import state_dict_sha256
from pcmci.kitchen import ACTIONS, ACTIVITIES, Knobs, captioned_frames
from pcmci.kitchen.actions import readable
from pcmci.kitchen.grammar import ACTIVITY_TEXTS
from pcmci.kitchen.pretraining import CAPTIONS, CaptionedFrames
from pcmci.kitchen.world import ACTIVITY_TEMPLATE, STEP_TEMPLATE

PACKAGE = Path(__file__).parents[1] / "pcmci" / "extract" / "encoders" / "kitchen"
MEAN = STD = (0.5, 0.5, 0.5)
FRAMES_A_VIDEO = 4
WARMEST = 50.0
"""The logit scale's upper bound."""

MODEL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 96, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
    "text_cfg": {"context_length": 24, "width": 64, "heads": 4, "layers": 2},
}


def write_vocabulary(path: Path) -> int:
    """Of open_clip's own merges those that the world's captions use, in their order.

    Returns the size of the vocabulary: bytes, bytes that end a word, merges, two special tokens.
    """
    full = open_clip.SimpleTokenizer()
    texts = [*ACTIVITY_TEXTS.values()] + [a.text for a in ACTIONS.values()]
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


def captioned(number: int, knobs: Knobs) -> CaptionedFrames:
    """The frames of one pretraining video in which H and I are as strong as the knobs say."""
    return captioned_frames(number, FRAMES_A_VIDEO, knobs=knobs)


def file_name(h: float) -> str:
    """Of the weights without their ending: `clip` for the world's own H, `clip-h0.45` for 0.45."""
    return "clip" if h == Knobs().h else f"clip-h{h:g}"


def pixels(videos: list[CaptionedFrames]) -> torch.Tensor:
    """[B, 3, 96, 96] float32, as `pcmci.extract.encoders.normalise.Normalise` has them."""
    frames = torch.from_numpy(np.concatenate([video.frames for video in videos]))
    return frames.permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.5)


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
def accuracy(model, tokenizer, videos: list[CaptionedFrames]) -> dict[str, float]:
    """Zero-shot: the share of frames whose best text is the true one, of the activities and,
    where something is done, of the steps."""
    model.eval()
    image = torch.cat(
        [model.encode_image(pixels(videos[k : k + 64])) for k in range(0, len(videos), 64)]
    )
    activities = [video.activity for video in videos for _ in video.frames]
    actions = [action for video in videos for action in video.actions]
    prompts = {
        "activity": (
            [ACTIVITY_TEMPLATE.format(text) for text in ACTIVITY_TEXTS.values()],
            [list(ACTIVITIES).index(name) for name in activities],
        ),
        "step": (
            [STEP_TEMPLATE.format(readable(name)) for name in ACTIONS],
            [-1 if name is None else list(ACTIONS).index(name) for name in actions],
        ),
    }
    found = {}
    for name, (texts, truth) in prompts.items():
        text = F.normalize(model.encode_text(tokenizer(texts)), dim=-1)
        known = torch.tensor(truth) >= 0
        best = (image @ text.T).argmax(1)
        found[name] = float((best == torch.tensor(truth))[known].float().mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--h", type=float, default=Knobs().h, help="strength of H, 0 to 1")
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--batch", type=int, default=32, help="videos a step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--held-out", type=int, default=500, help="videos that measure the quality")
    parser.add_argument("--out", type=Path, default=PACKAGE)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    arguments.out.mkdir(parents=True, exist_ok=True)

    began = time.perf_counter()
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
    knobs, name = Knobs(h=arguments.h), file_name(arguments.h)
    draw = functools.partial(captioned, knobs=knobs)
    numbers = range(HELD_OUT, HELD_OUT + arguments.held_out)
    held_out = [draw(number) for number in numbers]

    optimiser = OneCycle(
        arguments.steps,
        torch.optim.AdamW(
            model.parameters(), lr=arguments.lr, weight_decay=0.05, betas=(0.9, 0.98)
        ),
    )
    bar = tqdm(batches(draw, arguments.batch, arguments.steps), unit="step")
    for step, videos in enumerate(bar, start=1):
        model.train()
        captions = [caption for video in videos for caption in video.captions]
        different = sorted(set(captions))
        said = torch.tensor([different.index(caption) for caption in captions])
        image = model.encode_image(pixels(videos))
        text = model.encode_text(tokenizer(different))
        loss = contrast(image, text, said, model.logit_scale)
        optimiser.step(loss)
        model.logit_scale.data.clamp_(max=np.log(WARMEST))
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if step % 250 == 0:
            tqdm.write(f"step {step}: {accuracy(model, tokenizer, held_out[:200])}")
    state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, arguments.out / f"{name}.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    found = {
        "zero-shot accuracy of a frame": {
            "as in pretraining": accuracy(model, tokenizer, held_out),
            "no confounder": accuracy(
                model, tokenizer, [captioned(number, Knobs(0, 0, 0)) for number in numbers]
            ),
        },
        "knobs of the pretraining": {"h": knobs.h, "i": knobs.i},
        "held-out frames": FRAMES_A_VIDEO * len(held_out),
        "steps": arguments.steps,
        "frames a step": FRAMES_A_VIDEO * arguments.batch,
        "sha256": state_dict_sha256(state),
        "parameters": sum(p.numel() for p in model.parameters()),
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "threads": arguments.threads,
    }
    (arguments.out / f"{name}.quality.json").write_text(json.dumps(found, indent=1) + "\n")
    print(found)


if __name__ == "__main__":
    main()
