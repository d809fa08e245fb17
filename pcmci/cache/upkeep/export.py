"""Features of a store as files for other programs, one a video."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from pcmci.cache.schema import FEATURES
from pcmci.cache.store import Store
from pcmci.errors import UsageError

FORMATS = ("npy", "npz", "h5")
LAYOUTS = ("TD", "DT")


def export(
    store: Store,
    folder: Path,
    array: str = FEATURES[1],
    form: str = "npy",
    layout: str = "TD",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """View 0 of `vlm` or `video`, float16 [L, D] (or [D, L] with layout DT), for every video that
    is done; returns how many.

    npy: `<id>.npy` each; npz: the same with an array `features`; h5: one `features.h5` with a
    dataset a video. Beside the folder `<folder>.text.npz`: the label prompts' embeddings.
    Raises UsageError for what cannot be meant, also where something is in the folder already;
    StoreError where a video is damaged.
    """
    for name, value, right in (
        ("array", array, FEATURES), ("format", form, FORMATS), ("layout", layout, LAYOUTS),
    ):  # fmt: skip
        if value not in right:
            raise UsageError(f"--{name} {value!r}: right would be {' or '.join(right)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already, and is not empty")
    folder.mkdir(parents=True, exist_ok=True)
    rows = store.done_rows.tolist()
    with contextlib.ExitStack() as opening:
        if form == "h5":
            together = opening.enter_context(h5py.File(folder / "features.h5", "w"))
        for count, row in enumerate(rows, 1):
            features = store.read(array, [row], view=0)[0]
            features = np.ascontiguousarray(features if layout == "TD" else features.T)
            name = store.ids[row]
            if form == "h5":
                together[name] = features
            elif form == "npz":
                np.savez(folder / f"{name}.npz", features=features)
            else:
                np.save(folder / f"{name}.npy", features)
            if progress:
                progress(count, len(rows))
    texts = {labels: store.text(labels) for labels in store.spec.label_sets}
    np.savez(folder.with_name(f"{folder.name}.text.npz"), **texts)  # type: ignore[arg-type]
    return len(rows)
