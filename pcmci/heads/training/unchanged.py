"""Which twins of a store are after all the same as their videos.

A broken link changes a variable only where it had held; elsewhere the twin is the video again, and
says nothing of an effect. Whether it is, is read from the features, for no store says what a video
drew: those of the same film are alike to the last bit or nearly (encoded in another batch, the last
bits may differ), those of films that differ in one small thing are not nearly so (the kitchen's: by
14 % of their length at least, the smallest thing in a small film).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pcmci.cache.schema import FEATURES
from pcmci.cache.store import Store
from pcmci.heads.scoring.twins import find_twins

NEARLY = 1e-3
"""Of the length of a video's features: below it, rounding."""

VIDEOS_A_READ = 64


@lru_cache(maxsize=8)
def unchanged_twins(store: Store) -> frozenset[str]:
    """The ids of twins whose features, of both encoders, are those of their videos.

    What was planted is there or not, to the last bit, however little it is. Reads the features of
    all twins and their videos once, in portions. Twins without features are not among them.
    """
    done = set(store.done_rows.tolist())
    found = set()
    nearly = 0 if store.spec.planted else NEARLY
    for twins in find_twins(store.ids, store.splits).values():
        pairs = [
            pair
            for pair in zip(twins.rows.tolist(), twins.twin_rows.tolist(), strict=True)
            if done.issuperset(pair)
        ]
        for start in range(0, len(pairs), VIDEOS_A_READ):
            videos, others = zip(*pairs[start : start + VIDEOS_A_READ], strict=True)
            alike = np.ones(len(videos), bool)
            for array in FEATURES:
                one, other = (_flat(store, array, rows) for rows in (videos, others))
                alike &= np.linalg.norm(one - other, axis=1) <= nearly * np.linalg.norm(one, axis=1)
            found |= {store.ids[row] for row, same in zip(others, alike, strict=True) if same}
    return frozenset(found)


def _flat(store: Store, array: str, rows: tuple[int, ...]) -> np.ndarray:
    """[m, D] of view 0."""
    return store.read(array, np.array(rows), view=0).reshape(len(rows), -1).astype(np.float32)
