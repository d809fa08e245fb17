"""An epoch of training with features streamed from their store, against the same in memory.

    python benchmarks/streaming.py

Half of COIN's videos with features of COIN's size (16 frames, 512 and 768 wide), three of four to
train on; streamed with a tenth of what the features take. There are ten activities, as in
Breakfast: with COIN's 180 a step takes many times as long for the same reading, and the streaming
could not be seen. The page cache is warm, and loading what is held in memory is not counted.

Before anything is timed, an epoch of streamed batches has to have each video once, with the very
numbers that are held in memory: the expected gradient is then the same.

"batches alone" is the epoch without its training: what is left of the ratio where training takes
no time.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import claims
import numpy as np
import torch
from made_up import made_up_store

from pcmci.cache.schema import LabelSet, VideoTable
from pcmci.cache.store import Store, open_store
from pcmci.heads.catalogue import configure
from pcmci.heads.config import STAGES, ich_is_frozen, order_name
from pcmci.heads.training.features import (
    Features,
    ResidentFeatures,
    StreamedFeatures,
    open_features,
)
from pcmci.heads.training.fit import build_model, fit
from pcmci.heads.training.frozen import frozen_weights

VIDEOS, ACTIVITIES = 5_914, 10
TRAINED = 0.76
"""The share of COIN's videos that train."""

MEMORY = 0.1
"""Of what the features of the training videos take."""

AIM = "at most 1.15"
CPU = torch.device("cpu")


def main() -> None:
    options = claims.parser(__doc__).parse_args()
    videos = 640 if options.quick else VIDEOS
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = stack.enter_context(open_store(large_store(folder / "store.zarr", videos)))
        rows = []
        for order, repeats in (((), 5), (STAGES, 3)):
            rows += measure(store, order, 1 if options.quick else repeats)
    claims.publish(rows, options.json)


def large_store(path: Path, videos: int) -> Path:
    """A store of made-up features; which videos train is drawn."""
    rng = np.random.default_rng(0)
    ids = tuple(f"video{i}" for i in range(videos))
    names = tuple(f"activity {i}" for i in range(ACTIVITIES))
    table = VideoTable(
        ids=ids,
        splits=tuple("train" if train else "test" for train in rng.random(videos) < TRAINED),
        sessions=ids,
        groups=ids,
        activity=rng.integers(ACTIVITIES, size=videos).astype(np.int32),
        steps=np.zeros((videos, 0), np.uint8),
    )
    return made_up_store(path, "made-up", LabelSet(names, names, "{}"), None, table)


def measure(store: Store, order: tuple[str, ...], repeats: int) -> list[claims.Row]:
    """Two rows of one order of stages."""
    model_config, config = configure(order, ("activity",), {"epochs": 1})
    train = store.rows("train", done=True)
    weights = None
    if "ich" in order and ich_is_frozen(model_config):
        weights = frozen_weights(store, "activity", model_config.transport, CPU).weights
    size = feature_bytes(store, weights) * len(train)
    memory = int(MEMORY * size)
    streamed = open_features(store, train, weights, CPU, memory)
    resident = open_features(store, train, weights, CPU, 2 * size)
    assert isinstance(streamed, StreamedFeatures)
    assert isinstance(resident, ResidentFeatures)
    check_once(streamed, resident, train, config.batch_size)
    targets = torch.from_numpy(store.activity).to(torch.int64)

    def epoch(features: Features) -> None:
        text, width = store.text("activity"), store.spec.video.width
        fit(build_model(model_config, text, width, config.seed), features, train, targets, config)

    def batches(features: Features) -> None:
        for _ in features.batches(train, config.batch_size, np.random.default_rng(0)):
            pass

    note = f"{len(train)} videos, {memory / 1e6:.0f} of {size / 1e6:.0f} MB"
    rows = []
    for what, call, aim, count in (
        ("an epoch", epoch, AIM, repeats),
        ("batches alone", batches, "", 2 * repeats),
    ):
        ways = (partial(call, features) for features in (streamed, resident))
        case = f"{order_name(order)}, {what}: streamed / in memory"
        pairs = claims.paired(*ways, count)
        rows.append(claims.ratio_row("streaming", case, pairs, aim=aim, note=note))
    return rows


def feature_bytes(store: Store, weights: np.ndarray | None) -> int:
    """Of one video."""
    spec = store.spec
    numbers = sum(encoder.tokens * encoder.width for encoder in (spec.vlm, spec.video))
    return 2 * spec.sampling.views * numbers + (0 if weights is None else weights[0].nbytes)


def check_once(streamed: Features, resident: Features, rows: np.ndarray, batch_size: int) -> None:
    """Raises SystemExit unless an epoch is every video once, with its own numbers."""
    seen: list[np.ndarray] = []
    for batch in streamed.batches(rows, batch_size, np.random.default_rng(0)):
        seen.append(batch.rows)
        same = next(iter(resident.batches(batch.rows, len(batch.rows))))
        for name in ("vlm", "video", "weights"):
            ours, theirs = getattr(batch, name), getattr(same, name)
            if ours is not None and not torch.equal(ours, theirs):
                raise SystemExit(f"streamed {name} of videos {batch.rows} is not theirs")
    if not np.array_equal(np.sort(np.concatenate(seen)), np.sort(rows)):
        raise SystemExit("an epoch of streamed batches is not every video once")


if __name__ == "__main__":
    main()
