"""The stores of a sweep: whether they can be compared, their names, and what is said of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pcmci.cache.replaced import FAIL
from pcmci.cache.schema import Status, StoreSpec
from pcmci.cache.store import Store
from pcmci.errors import UsageError


def store_names(stores: Sequence[Store]) -> list[str]:
    """Of each what its spec has and others have not: `x3d-m`, `x3d-m 32 frames`; "" of a single
    one.

    Raises UsageError where they are not over the same videos and label sets, where two are the
    same, or where nothing that has a name differs.
    """
    for other in stores[1:]:
        _check_same_videos(stores[0], other)
    facts = [_facts(store.spec) for store in stores]
    differing = [what for what in facts[0] if len({one[what] for one in facts}) > 1]
    names = [" ".join(one[what] for what in differing) for one in facts]
    if len(stores) > 1 and len(set(names)) < len(names):
        twice = [s for s, name in zip(stores, names, strict=True) if names.count(name) > 1]
        raise UsageError(
            f"{twice[0].path} and {twice[1].path} differ in neither encoders nor frames: name one"
        )
    return names


def _check_same_videos(one: Store, other: Store) -> None:
    differing: list[str] = []
    if one.spec.dataset != other.spec.dataset:
        differing.append(f"data set {one.spec.dataset}, {other.spec.dataset}")
    if one.spec.videos_sha256 != other.spec.videos_sha256:
        differing.append(_videos(set(one.ids), set(other.ids)))
    for labels in ("activity", "steps"):
        mine, theirs = getattr(one.spec, labels), getattr(other.spec, labels)
        if (mine and mine.names) != (theirs and theirs.names):
            differing.append(f"{labels}: {len(mine or ())} and {len(theirs or ())} labels")
    if differing:
        raise UsageError(f"{one.path} and {other.path} cannot be compared: {'; '.join(differing)}")


def _videos(mine: set[str], theirs: set[str]) -> str:
    more, fewer = sorted(theirs - mine), sorted(mine - theirs)
    if not more and not fewer:
        return "the same videos with other splits or labels"
    named = ", ".join((more + fewer)[:3])
    return f"the second has {len(more)} videos more and {len(fewer)} fewer ({named})"


def _facts(spec: StoreSpec) -> dict[str, Any]:
    """What tells stores apart, in the order in which it is named."""
    return {
        "video encoder": spec.video.name,
        "vlm": spec.vlm.name,
        "frames": f"{spec.sampling.frames} frames",
        "views": f"{spec.sampling.views} views",
        "windows": f"{spec.video.windows} windows",
        "entities": f"{sum(len(spec.labels(name).entities) for name in spec.label_sets)} entities",
        "precision": spec.precision,
        "video weights": spec.video.weights,
        "vlm weights": spec.vlm.weights,
    }


def store_facts(store: Store) -> dict[str, Any]:
    """What a page says of a store: where its features come from, and of how many videos. Without
    `replaced` for one that takes no damaged videos."""
    spec, counts, splits = store.spec, store.counts, dict.fromkeys(store.splits)
    done = [store.splits[row] for row in store.done_rows.tolist()]
    facts = {
        "fingerprint": store.fingerprint,
        "content digest": store.content_digest,
        "counts": {s.name.lower(): counts[s] for s in Status if counts[s]},
        "coverage": {split: [done.count(split), store.splits.count(split)] for split in splits},
        "vlm": spec.vlm,
        "video encoder": spec.video,
        "frames": spec.sampling.frames,
        "libraries": spec.libraries,
    }
    if spec.planted:
        facts["planted"] = spec.planted
    if spec.damaged != FAIL:
        damaged = [store.splits[row] for row in np.flatnonzero(store.replaced).tolist()]
        facts["replaced"] = {split: damaged.count(split) for split in splits}
    return facts
