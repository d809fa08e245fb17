"""Which training videos a video looks like to a head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from pcmci.cache.schema import FEATURES, NO_VLM
from pcmci.cache.store import Store
from pcmci.heads.explaining.walk import embedded, walk
from pcmci.heads.head import Head
from pcmci.heads.method.model import PCMCI
from pcmci.heads.training.features import Batch, open_features
from pcmci.heads.training.frozen import frozen_weights

BY_Z = "Z of the decoder, all labels one after the other"
BY_MEANS = "the means over time of V and of V^P, each at length 1"

VIDEOS_A_PASS = 32


def compared_by(head: Head) -> str:
    """What `embedding` gives of videos for this head, in words."""
    return BY_Z if isinstance(head, PCMCI) else BY_MEANS


def embedding(head: Head, vlm: Tensor, video: Tensor, weights: Tensor | None = None) -> Tensor:
    """[B, E] of length 1, whose products are cosines: of Z where the head is the paper's, else of
    the mean features. vlm: [B, L, D], or empty where there is none. video: [B, Lv, Dv]. weights:
    see `pcmci.heads.explaining.walk.walk`."""
    if isinstance(head, PCMCI):
        return F.normalize(embedded(head, walk(head, vlm, video, weights)).flatten(1), dim=-1)
    # where there is no VLM, a store reads as one column of zeros
    there = [tokens for tokens in (video, vlm) if tokens.dim() == 3 and tokens.shape[-1] > 1]
    means = [F.normalize(tokens.mean(1), dim=-1) for tokens in there]
    return F.normalize(torch.cat(means, dim=-1), dim=-1)


def cosines(
    head: Head,
    store: Store,
    rows: np.ndarray,
    asked: Tensor,
    *,
    memory: int | None = None,
    spare: Path | None = None,
    progress: bool = True,
) -> np.ndarray:
    """[m, q] float32: of stored videos with those whose `embedding` is asked [q, E].

    rows: [m] of the store, videos with features. memory: bytes for features. spare: where plans are
    kept if not beside the store.
    """
    device = head.text.device
    weights = None
    if isinstance(head, PCMCI) and (transport := head.config.frozen_transport) is not None:
        kept = frozen_weights(store, head.labels, transport, device, progress, spare)
        weights = kept.weights
    wanted = [name for name in FEATURES if name != "vlm" or store.spec.vlm.name != NO_VLM]
    features = open_features(store, rows, weights, device, memory, wanted=wanted)
    bar = tqdm(
        desc=f"training videos, {head.labels}", total=len(rows), unit="video",
        disable=None if progress else True, leave=False,
    )  # fmt: skip
    found: list[np.ndarray] = []
    with torch.inference_mode(), bar:
        for batch in features.batches(rows, VIDEOS_A_PASS):
            found.append(_products(head, batch, asked))
            bar.update(len(batch.rows))
    return np.concatenate(found) if found else np.zeros((0, len(asked)), np.float32)


def _products(head: Head, batch: Batch, asked: Tensor) -> np.ndarray:
    products = embedding(head, batch.vlm, batch.video, batch.weights) @ asked.T
    return products.float().cpu().numpy()


def nearest(found: np.ndarray, rows: np.ndarray, own: int | None, count: int) -> Sequence[int]:
    """Places of the `count` with the largest cosines [m], the largest first, without the video
    itself. rows: [m] of the store. own: the row of the video itself, None where it has none."""
    order = np.argsort(-found, kind="stable")
    return [int(place) for place in order if rows[place] != own][:count]
