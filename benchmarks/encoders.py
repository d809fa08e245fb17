"""Claim: the frozen encoders are as fast as this machine multiplies matrices.

    python benchmarks/encoders.py            # full size: under a minute on two cores
    python benchmarks/encoders.py --quick    # two layers of 64 pixels: the ratios mean less

Our TimeSformer takes less time than transformers' with the same weights, our X3D than
pytorchvideo's, and CLIP and TimeSformer come close to the GFLOP/s of a large float32 matrix
product. X3D does not: it has few channels, and convolves most of them by themselves. The scan of a
layer of VideoMamba-M takes less time in blocks than step by step. Every round times all of them in
turn, so that a busy moment hits all.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Spinning threads are many times slower than one where another program uses a core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import claims
import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import TimesformerConfig, TimesformerModel

from pcmci.device import keep_freed_memory
from pcmci.extract.encoders import load_video_encoder, load_vlm
from pcmci.extract.encoders.scan import blocked_scan
from pcmci.extract.encoders.videomamba_config import CONFIGS, STATE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of torch, about torch.jit
    from pytorchvideo.models.x3d import create_x3d

CLIP, OURS, THEIRS, MATRIX = "CLIP", "TimeSformer", "transformers' TimeSformer", "matrix product"
SCAN, LOOP = "blocked scan", "loop"
X3D, THEIR_X3D = "X3D", "pytorchvideo's X3D"


def clip_flop(config: dict[str, Any]) -> float:
    """Floating point operations a frame of a vision transformer of open_clip."""
    vision = config["vision_cfg"]
    width, patch = vision["width"], vision["patch_size"]
    patches = (vision["image_size"] // patch) ** 2
    tokens = patches + 1
    block = 24 * tokens * width**2 + 4 * tokens**2 * width
    ends = 2 * patches * 3 * patch**2 * width + 2 * width * config["embed_dim"]
    return vision["layers"] * block + ends


def timesformer_flop(config: TimesformerConfig, folded: bool) -> float:
    """Floating point operations a clip; `folded` is without the layer that ours multiplied away."""
    width, frames = config.hidden_size, config.num_frames
    patches = (config.image_size // config.patch_size) ** 2
    tokens = patches + 1
    in_time = frames * patches * ((8 if folded else 10) * width**2 + 4 * frames * width)
    in_space = frames * tokens * (8 * width**2 + 4 * tokens * width)
    mlp = frames * tokens * 4 * width * config.intermediate_size
    embed = frames * patches * 2 * 3 * config.patch_size**2 * width
    return config.num_hidden_layers * (in_time + in_space + mlp) + embed


def loop(
    u: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor
) -> torch.Tensor:
    """What `blocked_scan` does, a step after the other as the paper writes it."""
    h = u.new_zeros(*u.shape[:2], *A.shape[1:])  # [G, N, D, S]
    y = []
    for t in range(u.shape[2]):
        step = dt[:, :, t, :, None]
        h = torch.exp(step * A[:, None]) * h + step * B[:, :, t, None] * u[:, :, t, :, None]
        y.append((h @ C[:, :, t, :, None])[..., 0])
    return torch.stack(y, dim=2)


def scans(args: argparse.Namespace) -> dict[str, tuple[float, Callable[[], Any]]]:
    """Both directions of one layer of VideoMamba-M, for the same clips as TimeSformer's."""
    config = CONFIGS["videomamba-m"]
    length = 1 + args.frames * (args.image_size // config.patch_size) ** 2
    token = (2, args.clips, length)
    u, b, c = (torch.randn(*token, size) for size in (config.channels, STATE, STATE))
    rates = -torch.arange(1.0, STATE + 1).expand(2, config.channels, -1)
    inputs = (u, torch.rand(*token, config.channels) / 10, rates, b, c)
    difference = (blocked_scan(*inputs) - loop(*inputs)).abs().max()
    if difference > 1e-3:
        raise SystemExit(f"the scans differ by {difference:.1e}: nothing to compare")
    flop = 6 * u.numel() * STATE
    return {
        SCAN: (flop, lambda: blocked_scan(*inputs)),
        LOOP: (flop, lambda: loop(*inputs)),
    }


def x3d_contenders(args: argparse.Namespace, folder: Path) -> dict[str, tuple[float, Callable]]:
    """Both X3D, of the sizes of X3D-M but for the frames'; ours begins with uint8 pixels."""
    frames, size = 16, args.image_size
    sizes = {"input_clip_length": frames, "input_crop_size": size, "depth_factor": 2.2}
    theirs = create_x3d(**sizes, head_activation=None).eval()
    torch.save(theirs.state_dict(), folder / "x3d.pth")
    config = {"model_type": "x3d", "short_side": size, **sizes}
    (folder / "x3d.json").write_text(json.dumps(config))
    ours = load_video_encoder(
        str(folder / "x3d.json"), str(folder / "x3d.pth"), device="cpu", frames=frames
    )
    clip = torch.randint(0, 256, (1, frames, size, size, 3), dtype=torch.uint8)
    pixels = ((clip.permute(0, 4, 1, 2, 3) / 255 - 0.45) / 0.225).contiguous()
    head = theirs.blocks[5].pool
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            theirs(pixels)
        x = pixels
        for block in theirs.blocks[:5]:
            x = block(x)
        x = head.pre_act(head.pre_norm(head.pre_conv(x))).mean((3, 4), keepdim=True)
        expected = head.post_act(head.post_conv(x))[..., 0, 0].mT
        difference = (ours.encode(clip) - expected).abs().max() / expected.max()
    if difference > 1e-3:
        raise SystemExit(f"the X3D differ by {difference:.1e}: nothing to compare")
    flop = counter.get_total_flops()
    return {X3D: (flop, lambda: ours.encode(clip)), THEIR_X3D: (flop, lambda: theirs(pixels))}


def contenders(
    args: argparse.Namespace, folder: Path
) -> dict[str, tuple[float, Callable[[], Any]]]:
    """By name, the operations of a call and the call."""
    clip = open_clip.get_model_config(args.clip)
    clip["vision_cfg"] |= {"layers": args.layers, "image_size": args.image_size}
    clip["text_cfg"]["layers"] = 1
    (folder / "clip.json").write_text(json.dumps(clip))
    vlm = load_vlm(str(folder / "clip.json"), "random:0", device="cpu", frames=1)
    images = torch.randint(
        0, 256, (args.batch, 1, args.image_size, args.image_size, 3), dtype=torch.uint8
    )

    config = TimesformerConfig(
        image_size=args.image_size, num_frames=args.frames, num_hidden_layers=args.layers
    )
    theirs = TimesformerModel(config).eval()
    save_file(theirs.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    ours = load_video_encoder(
        str(folder / "config.json"), str(folder), device="cpu", frames=args.frames
    )
    clips = images.new_empty((args.clips, args.frames, args.image_size, args.image_size, 3))
    clips.random_(256)
    pixels = (clips.permute(0, 1, 4, 2, 3) / 255 - 0.45) / 0.225
    difference = ours.all_tokens(clips)[:, 0, 0] - theirs(pixel_values=pixels)[0][:, 0]
    if difference.abs().max() > 1e-3:
        raise SystemExit(f"the models differ by {difference.abs().max():.1e}: nothing to compare")

    square = torch.randn(args.matrix, args.matrix)
    return {
        MATRIX: (2 * args.matrix**3, lambda: square @ square),
        CLIP: (args.batch * clip_flop(clip), lambda: vlm.encode(images)),
        OURS: (
            args.clips * timesformer_flop(config, folded=True),
            lambda: ours.encode(clips),
        ),
        THEIRS: (
            args.clips * timesformer_flop(config, folded=False),
            lambda: theirs(pixel_values=pixels),
        ),
        **scans(args),
        **x3d_contenders(args, folder),
    }


@torch.inference_mode()
def measure(
    calls: dict[str, tuple[float, Callable[[], Any]]], rounds: int, clock: Callable[[], float]
) -> dict[str, np.ndarray]:
    """[rounds] seconds of every call, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        # There and back: what a call leaves in the caches serves both neighbours.
        for name in list(calls)[:: 1 if number % 2 else -1]:
            start = clock()
            calls[name][1]()
            if number:
                seconds[name].append(clock() - start)
    return {name: np.array(taken) for name, taken in seconds.items()}


def main() -> None:
    parser = claims.parser(__doc__)
    parser.add_argument("--clip", default="ViT-B-16-quickgelu", help="a ViT of open_clip")
    parser.add_argument("--batch", type=int, default=8, help="frames a pass of the CLIP")
    parser.add_argument("--clips", type=int, default=1, help="clips a pass of TimeSformer")
    parser.add_argument("--frames", type=int, default=8, help="frames a clip")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--matrix", type=int, default=3072, help="side of the matrix product")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--cpu-time", action="store_true", help="count CPU seconds: for a busy machine, one thread"
    )
    args = parser.parse_args()
    if args.quick:
        args.image_size, args.layers, args.matrix, args.rounds = 64, 2, 1024, 3
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as the pipeline does; all have it here

    with tempfile.TemporaryDirectory() as folder:
        calls = contenders(args, Path(folder))
    clock = time.process_time if args.cpu_time else time.perf_counter
    seconds = measure(calls, args.rounds, clock)
    speeds = {name: flop / seconds[name] / 1e9 for name, (flop, _) in calls.items()}

    rows = []
    for ours, theirs, aim in ((OURS, THEIRS, "at most 0.93"), (X3D, THEIR_X3D, "at most 0.60")):
        pairs = np.stack([seconds[ours], seconds[theirs]], axis=1)
        case = f"time of our {ours} / {theirs}"
        rows.append(claims.ratio_row("encoders", case, pairs, aim=aim))
    pairs = np.stack([seconds[SCAN], seconds[LOOP]], axis=1)
    case = f"time of VideoMamba's {SCAN} / of a {LOOP}"
    rows.append(claims.ratio_row("encoders", case, pairs, aim="at most 0.60"))
    for name in (CLIP, OURS, THEIRS, X3D):
        flop, taken = calls[name][0] / 1e9, claims.shown_seconds(np.median(seconds[name]))
        rows.append(
            claims.row(
                "encoders",
                f"GFLOP/s of {name} / of a {MATRIX}",
                speeds[name] / speeds[MATRIX],
                aim="at least 0.85" if name in (CLIP, OURS) else "",
                note=f"{flop:.1f} GFLOP in {taken}: {np.median(speeds[name]):.0f} GFLOP/s",
            )
        )
    side = f"{args.matrix} x {args.matrix} float32, {args.threads} threads"
    rows.append(claims.row("encoders", f"{MATRIX}, {side}", speeds[MATRIX], unit="GFLOP/s"))
    claims.publish(rows, args.json)


if __name__ == "__main__":
    main()
