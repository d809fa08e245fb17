"""S~ of the frozen embeddings: computed once a store, kept beside it, used by every run.

If no stage rewrites the text before ICH, its similarity, plan and weights do not depend on
anything that is learned. They are solved in float64 and kept in float32.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from pcmci.cache.store import Store
from pcmci.errors import PcmciError
from pcmci.heads.config import TransportConfig
from pcmci.heads.transport import alignment

BATCH = 32
PLAN_FORMAT = 1
DECISIVE = ("temperature", "lam", "refine", "tolerance", "max_iterations")
"""The settings that a frozen S~ depends on; `source` and `gradient` are for learned ones."""


@dataclass(frozen=True)
class FrozenWeights:
    """weights: S~ [n, views, N, L] float32, zeros where a video has no features.
    marginal_error: the worst relative one of any plan. reused: whether it was there already."""

    weights: np.ndarray
    marginal_error: float
    reused: bool


def frozen_weights(
    store: Store, labels: str, config: TransportConfig, device: torch.device, progress: bool = True
) -> FrozenWeights:
    """S~ of every video of a store against its `activity` or `steps` labels.

    Kept in `<store>.plans/`, keyed by the store's content and the settings that matter here, and
    checked by its sha256 when it is read again. Where the folder cannot be written, the weights
    are computed again each time. Raises PcmciError for plans that are not finite.
    """
    identity = {
        "format": PLAN_FORMAT,
        "store": store.content_digest,
        "labels": labels,
        "transport": {name: getattr(config, name) for name in DECISIVE},
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(f"{store.path}.plans")
    kept = _read(folder / key)
    if kept is not None:
        return kept
    weights, error = _solve(store, labels, config, device, progress)
    _write(folder / key, weights, {"marginal_error": error, **identity})
    return FrozenWeights(weights, error, reused=False)


def _solve(
    store: Store, labels: str, config: TransportConfig, device: torch.device, progress: bool
) -> tuple[np.ndarray, float]:
    text = torch.from_numpy(store.text(labels)).to(device)[None]
    views, length = store.spec.sampling.views, store.spec.vlm.tokens
    weights = np.zeros((len(store), views, text.shape[1], length), dtype=np.float32)
    worst = 0.0
    done = store.done_rows
    bar = tqdm(
        range(0, len(done), BATCH), desc=f"transport of {labels}", unit="batch",
        disable=None if progress else True, leave=False,
    )  # fmt: skip
    with torch.inference_mode():
        for start in bar:
            rows = done[start : start + BATCH]
            frames = torch.from_numpy(store.read("vlm", rows)).to(device)
            solved, error = alignment(text, frames.flatten(0, 1), config, exact=True)
            weights[rows] = solved.float().cpu().numpy().reshape(len(rows), *weights.shape[1:])
            worst = max(worst, float(error.max()))
            if not np.isfinite(weights[rows]).all():
                raise PcmciError(
                    f"transport of {labels} gives plans that are not finite at temperature "
                    f"{config.temperature} and lambda {config.lam}: use larger ones"
                )
    return weights, worst


def _read(stem: Path) -> FrozenWeights | None:
    try:
        record = json.loads(stem.with_suffix(".json").read_text())
        if record["sha256"] != _sha256(stem.with_suffix(".npy")):
            return None
        weights = np.load(stem.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or damaged: it is a cache, and is made again
    return FrozenWeights(weights, float(record["marginal_error"]), reused=True)


def _write(stem: Path, weights: np.ndarray, record: dict[str, object]) -> None:
    partial = stem.with_suffix(f".{os.getpid()}.partial")
    try:
        stem.parent.mkdir(exist_ok=True)
        with partial.open("wb") as file:
            np.save(file, weights)
        sha256 = _sha256(partial)
        partial.replace(stem.with_suffix(".npy"))
        # The record comes last: without it the array is not believed.
        partial.write_text(json.dumps({**record, "sha256": sha256}, indent=1))
        partial.replace(stem.with_suffix(".json"))
    except OSError:
        partial.unlink(missing_ok=True)  # a read-only store still trains


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
