"""What a trained head makes of videos on the way to its answer, for a probe of what is still in it.

`V` and `V^P`, the encoders' tokens, their means over time; of the head `pcmci` what each stage
hands on, `text after ich` (T'), `text after ici` (T*), `video after ivc` (V*), and `z`, what the
decoder's units read. `pcmci.heads.scoring.leakage` says how well a confounder is known from each.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pcmci.cache.store import Store
from pcmci.errors import UsageError
from pcmci.heads.explaining.walk import embedded, walk
from pcmci.heads.head import Head
from pcmci.heads.method.model import PCMCI

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
    with torch.inference_mode():
        for start in range(0, len(rows), VIDEOS_A_PASS):
            some = rows[start : start + VIDEOS_A_PASS]
            vlm, video = (
                torch.from_numpy(store.read(array, some, view=0)).float()
                for array in ("vlm", "video")
            )
            seen = {"V": video.mean(1), "V^P": vlm.mean(1), **_on_the_way(model, vlm, video)}
            for name, tensor in seen.items():
                parts.setdefault(name, []).append(_kept(tensor, len(some)))
    return {name: np.concatenate(found) for name, found in parts.items()}


def _on_the_way(model: Head, vlm: Tensor, video: Tensor) -> dict[str, Tensor]:
    if not isinstance(model, PCMCI):
        return {}
    taken = walk(model, vlm, video)
    after = zip(taken.stages, taken.streams[1:], strict=True)
    found = {f"{STREAMS[name]} after {name}": getattr(it, STREAMS[name]) for name, it in after}
    return {**found, "z": embedded(model, taken)}


def _kept(tensor: Tensor, videos: int) -> np.ndarray:
    tensor = tensor.expand(videos, *tensor.shape[1:])
    if tensor[0].numel() > MOST_NUMBERS:
        tensor = tensor.mean(1)
    return tensor.float().numpy()
