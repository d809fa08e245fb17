"""The transport plans of ICH: the solver in use against a loop of POT's `ot.sinkhorn`.

    python benchmarks/transport.py

32 videos at a time, as the frozen plans are solved (`pcmci.heads.training.frozen`): log S made by
the product's `log_similarity` in float64, temperature, lambda, tolerance and limit of iterations
those of `TransportConfig`. The loop gets the same costs as float64 numpy arrays and may stop at the
same relative error of the marginals: ours ends with exact columns and rows within tolerance / N,
POT's `sinkhorn` with exact rows and columns within `stopThr` = tolerance / L (both in the 2-norm,
both looked at every tenth iteration). Before anything is timed, all plans have to agree and to have
marginals within the tolerance; the worst errors stand in the remarks.

sinkhorn: POT's default, in the linear domain; it fails where exp(log S / lambda) leaves float64.
sinkhorn_log: in the log domain. Ours must not fail either way.

The last row trains twice on one store with ICH first and counts the solver's calls the second time.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import claims
import numpy as np
import ot
import torch
import torch.nn.functional as F
from made_up import made_up_store
from torch import Tensor

from pcmci.cache.schema import LabelSet, VideoTable
from pcmci.cache.store import open_store
from pcmci.heads.config import TransportConfig
from pcmci.heads.method import transport
from pcmci.heads.method.transport import log_similarity, marginal_error
from pcmci.heads.training.frozen import VIDEOS_A_SOLVE
from pcmci.heads.training.run import train_heads

LABELS = (48, 180, 778)
"""Of Breakfast's and COIN's size."""

FRAMES = 16
WIDTH = 512
CONFIG = TransportConfig()
AIM = "at most 0.40"


def main() -> None:
    options = claims.parser(__doc__).parse_args()
    repeats = 3 if options.quick else 9
    rows = []
    for n in LABELS[:2] if options.quick else LABELS:
        rows += measure(n, repeats)
    rows.append(solves_of_a_second_run())
    claims.publish(rows, options.json)


def measure(n: int, repeats: int) -> list[claims.Row]:
    """Two rows of problems with n labels."""
    log_s = problems(n, np.random.default_rng(n))
    costs = -log_s.numpy()
    case = f"{len(costs)} of {n}x{FRAMES}: ours / a loop of ot.sinkhorn"

    def ours() -> Tensor:
        return transport.transport_plan(
            log_s, CONFIG.lam, CONFIG.tolerance, CONFIG.max_iterations, "detach"
        )

    def theirs(method: str) -> np.ndarray:
        rows, columns = np.full(n, 1 / n), np.full(FRAMES, 1 / FRAMES)
        return np.stack(
            [
                ot.sinkhorn(
                    rows, columns, cost, reg=CONFIG.lam, method=method,
                    stopThr=CONFIG.tolerance / FRAMES, numItermax=CONFIG.max_iterations,
                )
                for cost in costs
            ]
        )  # fmt: skip

    spread = log_s.amax((1, 2)) - log_s.amin((1, 2))
    found = []
    for method, aim in (("sinkhorn", AIM), ("sinkhorn_log", "")):
        errors = check_same(ours(), torch.from_numpy(theirs(method)))
        pairs = claims.paired(ours, lambda method=method: theirs(method), repeats)
        note = (
            f"marginal errors {errors[0]:.0e} / {errors[1]:.0e}, plans differ by at most "
            f"{errors[2]:.0e} of their mean; log S spans {spread.median():.0f}"
        )
        shown = case if method == "sinkhorn" else f"{case}, method={method!r}"
        found.append(claims.ratio_row("transport", shown, pairs, aim=aim, note=note))
    return found


def check_same(ours: Tensor, theirs: Tensor) -> tuple[float, float, float]:
    """The worst relative marginal errors of both, and the largest difference of two entries over
    the mean entry. Raises SystemExit where there is nothing to compare."""
    errors = [float(marginal_error(plans).max()) for plans in (ours, theirs)]
    difference = float((ours - theirs).abs().max() / ours.mean())
    # not: `> bound`, which NaN passes
    if not (max(errors) <= CONFIG.tolerance and difference <= 100 * CONFIG.tolerance):
        raise SystemExit(
            f"marginal errors {errors[0]:.1e} and {errors[1]:.1e}, plans differ by "
            f"{difference:.1e}: nothing to compare"
        )
    return errors[0], errors[1], difference


def problems(n: int, rng: np.random.Generator) -> Tensor:
    """log S [32, n, 16] float64 of texts and frames that share something, as CLIP's do.

    Prompts resemble each other (all have one direction in common) and some more than others (ten
    to a verb). A video shows four of them one after the other, each frame one under noise.
    """

    def directions(*shape: int) -> Tensor:
        return F.normalize(torch.from_numpy(rng.standard_normal((*shape, WIDTH))), dim=-1)

    verbs = directions(-(-n // 10)).repeat_interleave(10, 0)[:n]
    text = F.normalize(1.5 * directions(1) + 0.8 * verbs + directions(n), dim=-1)
    shown = np.sort(rng.integers(0, n, (VIDEOS_A_SOLVE, 4)), 1).repeat(FRAMES // 4, 1)
    frames = 0.6 * text[torch.from_numpy(shown)] + directions(VIDEOS_A_SOLVE, FRAMES)
    return log_similarity(text[None], frames, CONFIG.temperature)


def solves_of_a_second_run() -> claims.Row:
    """How often the solver is called when a store is trained on for the second time."""
    counts = []
    with tempfile.TemporaryDirectory() as folder, open_store(small_store(Path(folder))) as store:
        for seed in (0, 1):
            with counted_solves() as calls:
                run = train_heads(
                    store, "ich", out=Path(folder) / "runs", device="cpu", epochs=2, seed=seed,
                    progress=False,
                )  # fmt: skip
            assert not run.reused
            counts.append(len(calls))
    if not counts[0]:
        raise SystemExit("the first run called no solver: the count says nothing about the second")
    note = f"{counts[0]} for the first run on {len(store)} videos, both label sets"
    case = "once a store where ICH comes first: solves of a second run"
    return claims.row("transport", case, [float(counts[1])], aim="at most 0", note=note)


@contextlib.contextmanager
def counted_solves() -> Iterator[list[int]]:
    """A list that gets an item, the number of problems, with every call of the solver."""
    calls: list[int] = []
    solve = transport.transport_plan

    def counting(log_s: Tensor, *rest: object) -> Tensor:
        calls.append(len(log_s))
        return solve(log_s, *rest)

    with mock.patch.object(transport, "transport_plan", counting):
        yield calls


def small_store(folder: Path) -> Path:
    """100 videos of four activities and six steps."""
    n, rng = 100, np.random.default_rng(0)
    names = tuple(f"video{i}" for i in range(n))
    splits = tuple("test" if i % 4 == 3 else "train" for i in range(n))
    steps = (rng.random((n, 6)) < 0.5).astype(np.uint8)
    table = VideoTable(names, splits, names, names, np.arange(n, dtype=np.int32) % 4, steps)
    words = {size: tuple(f"{size} {i}" for i in range(size)) for size in (4, steps.shape[1])}
    sets = [LabelSet(names, names, "a video of {}") for names in words.values()]
    return made_up_store(folder / "store.zarr", "made-up", *sets, table, width=32, video_width=48)


if __name__ == "__main__":
    main()
