"""What a trained head makes of videos on the way to its answer, for a probe of what is still in it.

`V` and `V^P`, the encoders' tokens, their means over time; what each stage hands on, `text after
ich` (T'), `text after ici` (T*), `video after ivc` (V*); and `z`, what the decoder's units read.
`pcmci.heads.scoring.leakage` says how well a confounder is known from each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pcmci.cache.store import Store
from pcmci.errors import UsageError
from pcmci.heads.head import Head
from pcmci.heads.method.decoder import Decoder
from pcmci.heads.method.streams import Streams

VIDEOS_A_PASS = 32
MOST_NUMBERS = 2**17
"""A video, of one stream; of a longer one the mean over its labels is kept."""

STREAMS = {"ich": "text", "ici": "text", "ivc": "video"}
"""Stage -> the stream that it rewrites."""


def representations(model: Head, store: Store, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> [m, …] float32 of the videos of these rows; a stream that is the same for all videos
    (the text before any stage has looked at one) is there as it is, m times.

    model: of a run on this store, `Run.models`, on the CPU. Raises UsageError for a video without
    features.
    """
    done = set(store.done_rows.tolist())
    if lost := [store.ids[row] for row in rows.tolist() if row not in done]:
        raise UsageError(f"{len(lost)} videos have no features: {', '.join(lost[:3])}")
    parts: dict[str, list[np.ndarray]] = {}
    heard: dict[str, Tensor] = {}
    with ExitStack() as hooked, torch.inference_mode():
        stages = getattr(model, "stages", None)
        for name, stage in stages.items() if isinstance(stages, nn.ModuleDict) else ():
            hooked.enter_context(_hook(stage, f"{STREAMS[name]} after {name}", name, heard))
        decoder = getattr(model, "decoder", None)
        if isinstance(decoder, Decoder):
            hooked.enter_context(_hook(decoder.norm_feedforward, "z", None, heard))
        for start in range(0, len(rows), VIDEOS_A_PASS):
            some = rows[start : start + VIDEOS_A_PASS]
            vlm, video = (
                torch.from_numpy(store.read(array, some, view=0)).float()
                for array in ("vlm", "video")
            )
            heard.clear()
            model(vlm, video)
            seen = {"V": video.mean(1), "V^P": vlm.mean(1), **heard}
            for name, tensor in seen.items():
                parts.setdefault(name, []).append(_kept(tensor, len(some)))
    return {name: np.concatenate(found) for name, found in parts.items()}


@contextmanager
def _hook(
    module: nn.Module, name: str, stage: str | None, heard: dict[str, Tensor]
) -> Iterator[None]:
    """Meanwhile what a module returns is heard under a name."""

    def hear(_: nn.Module, __: Any, out: Any) -> None:
        if isinstance(out, Streams) and stage:
            out = getattr(out, STREAMS[stage])
        heard[name] = out

    handle = module.register_forward_hook(hear)
    try:
        yield
    finally:
        handle.remove()


def _kept(tensor: Tensor, videos: int) -> np.ndarray:
    tensor = tensor.expand(videos, *tensor.shape[1:])
    if tensor[0].numel() > MOST_NUMBERS:
        tensor = tensor.mean(1)
    return tensor.float().numpy()
