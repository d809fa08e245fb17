"""S~ of the frozen embeddings: computed once a store, kept beside it, used by every run.

If no stage rewrites the text before ICH, its similarity, plan and weights do not depend on
anything that is learned. They are solved in float64 and kept in float32.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from pcmci.cache.nearby import nearby
from pcmci.cache.store import Store
from pcmci.errors import PcmciError
from pcmci.heads.config import TransportConfig
from pcmci.heads.method.transport import alignment
from pcmci.heads.training.held import held
from pcmci.heads.training.plans import PARTIAL, file_sha256, plan_identity, plan_key

VIDEOS_A_SOLVE = 32


@dataclass(frozen=True)
class FrozenWeights:
    """weights: S~ [n, views, N, L] float32, zeros where a video has no features.
    marginal_error: the worst relative one of any plan."""

    weights: np.ndarray
    marginal_error: float


def frozen_weights(
    store: Store,
    labels: str,
    config: TransportConfig,
    device: torch.device,
    progress: bool = True,
    spare: Path | None = None,
) -> FrozenWeights:
    """S~ of every video of a store against its `activity` or `steps` labels.

    Kept in `<store>.plans/`, keyed by the store's content and the settings that matter here, and
    checked by its sha256 when it is read again; in the folder `spare` where that one cannot be
    written. Of a URL: in `spare`, else near this machine (`nearby`). Where nothing can be written,
    the weights are computed again each time. Raises PcmciError for plans that are not finite.
    """
    identity = plan_identity(store.content_digest, labels, config)
    key = plan_key(identity)
    folders = [nearby(store.path, ".plans"), *([spare] if spare else [])]
    if not isinstance(store.path, Path):
        folders.reverse()  # what is near this machine is near no other one
    for folder in folders:
        kept = _read(folder / key)
        if kept is not None:
            return kept
    shape = (
        len(store),
        store.spec.sampling.views,
        len(store.spec.labels(labels)),
        store.spec.vlm.tokens,
    )
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (
                tempfile.TemporaryDirectory(dir=folder, suffix=PARTIAL) as partial,
                held(Path(partial)),
            ):
                array = Path(partial) / "weights.npy"
                on_disk = np.lib.format.open_memmap(array, "w+", np.float32, shape)
                with array.open(
                    "r+b"
                ) as file:  # on a full disk a mapping is a signal, not an error
                    os.posix_fallocate(file.fileno(), 0, array.stat().st_size)
                error = _solve(store, labels, config, device, progress, on_disk)
                on_disk.flush()
                _keep(folder / key, array, {"marginal_error": error, **identity})
            kept = _read(folder / key)
        except OSError:
            continue
        if kept is not None:
            return kept
    # On a read-only disk, or on a full one, it still trains: with the weights in memory.
    weights = np.zeros(shape, np.float32)
    error = _solve(store, labels, config, device, progress, weights)
    return FrozenWeights(weights, error)


def _solve(
    store: Store,
    labels: str,
    config: TransportConfig,
    device: torch.device,
    progress: bool,
    weights: np.ndarray,
) -> float:
    """Fill `weights` in; returns the worst marginal error."""
    text = torch.from_numpy(store.text(labels)).to(device)[None]
    worst = 0.0
    done = store.done_rows
    bar = tqdm(
        range(0, len(done), VIDEOS_A_SOLVE), desc=f"transport of {labels}", unit="batch",
        disable=None if progress else True, leave=False,
    )  # fmt: skip
    with torch.inference_mode():
        for start in bar:
            rows = done[start : start + VIDEOS_A_SOLVE]
            frames = torch.from_numpy(store.read("vlm", rows)).to(device)
            solved, error = alignment(text, frames.flatten(0, 1), config, exact=True)
            if not torch.isfinite(solved).all():
                raise PcmciError(
                    f"transport of {labels} gives plans that are not finite at temperature "
                    f"{config.temperature} and lambda {config.lam}: use larger ones"
                )
            weights[rows] = solved.float().cpu().numpy().reshape(len(rows), *weights.shape[1:])
            worst = max(worst, float(error.max()))
    return worst


def _read(stem: Path) -> FrozenWeights | None:
    try:
        record = json.loads(stem.with_suffix(".json").read_text())
        if record["sha256"] != file_sha256(stem.with_suffix(".npy")):
            return None
        weights = np.load(stem.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or damaged: it is a cache, and is made again
    return FrozenWeights(weights, float(record["marginal_error"]))


def _keep(stem: Path, array: Path, record: dict[str, object]) -> None:
    """Move the array to its place, then its record: without that the array is not believed."""
    written = array.with_name("record.json")
    written.write_text(json.dumps({**record, "sha256": file_sha256(array)}, indent=1))
    array.replace(stem.with_suffix(".npy"))
    written.replace(stem.with_suffix(".json"))
