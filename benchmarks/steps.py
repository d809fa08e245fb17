"""A training step of the heads: its time, and how near its arithmetic comes to a matrix product's.

    python benchmarks/steps.py

A step is one of `pcmci.heads.training.fit.fit`, from asking for one batch to asking for the next:
dropout masks, forward, backward, clipping, fused AdamW, the learning rate. Batches of
`TrainConfig`'s size, 16 frames, features and weights of width 512 and 768 that lie in memory
already; label sets of Breakfast's and COIN's size; no stage, each alone, and all three.

The share is (floating point operations of a step / its time) / the same of a 2,048 x 2,048 float32
matrix product, which is timed between the steps, every second or so, with as many threads.
Operations are those of the matrix products alone, attention's among them (counted once, though
its backward pass computes the scores anew); everything else a step does counts as time only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import claims
import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pcmci.device import choose_device
from pcmci.heads.catalogue import configure
from pcmci.heads.config import STAGES, order_name
from pcmci.heads.head import loss_function
from pcmci.heads.method.model import PCMCI
from pcmci.heads.training.features import Batch
from pcmci.heads.training.fit import build_model, fit

FRAMES, WIDTH, VIDEO_WIDTH = 16, 512, 768

SCALES = (
    ("Breakfast", "activity", 10),
    ("Breakfast", "steps", 48),
    ("COIN", "activity", 180),
    ("COIN", "steps", 778),
)
ORDERS = ((), *((stage,) for stage in STAGES), STAGES)

AIM, AIM_FROM = "at least 0.50", 180
"""The aim holds for so many labels or more: the matrices of fewer are too small for a peak."""

STEPS, SECONDS = (5, 60), 4.0
"""Of each case so many steps are timed, at least and at most, and within that for about so long."""

PRODUCT, PRODUCTS = 2048, 4
PRODUCT_EVERY = 1.0


def main() -> None:
    options = claims.parser(__doc__).parse_args()
    device = choose_device("cpu")
    rows = []
    for name, labels, n in SCALES[:2] if options.quick else SCALES:
        for order in ORDERS:
            case = Case(order, labels, n, device)
            seconds, peaks = case.measure(SECONDS / 4 if options.quick else SECONDS)
            note = (
                f"{claims.shown_seconds(float(np.median(seconds)))} a step of "
                f"{case.config.batch_size} videos, {case.flop / 1e9:.3g} GFLOP"
            )
            shown = f"{name} {labels}, {n} labels, {order_name(order)}: share of peak"
            aim = AIM if n >= AIM_FROM else ""
            rows.append(
                claims.row("head training", shown, case.flop / seconds / peaks, aim=aim, note=note)
            )
    claims.publish(rows, options.json)


class Case:
    """One model on one label set. flop: floating point operations of a step."""

    def __init__(self, order: tuple[str, ...], labels: str, n: int, device: torch.device) -> None:
        model_config, self.config = configure(order, (labels,), {"epochs": 1})
        text = np.random.default_rng(n).standard_normal((n, WIDTH), dtype=np.float32)
        self.model = build_model(model_config, text, VIDEO_WIDTH, seed=0).to(device)
        self.batch = made_up_batch(self.model, self.config.batch_size, device)
        size = self.config.batch_size
        self.targets = (
            torch.zeros(size, dtype=torch.int64, device=device)
            if labels == "activity"
            else torch.zeros(size, n, device=device)
        )
        self.flop = step_flop(self.model, self.batch, self.targets)

    def measure(self, about: float) -> tuple[np.ndarray, np.ndarray]:
        """[steps] seconds of each, and the matrix product's operations a second beside it.

        about: seconds that all steps together may take, were they at half of the peak.
        """
        expected = 2 * self.flop / product_flops(self.batch.vlm.device)
        steps = int(np.clip(round(about / expected), *STEPS))
        features = _Timed(self.batch)
        # One more, which does not count: it makes the optimiser's state.
        fit(self.model, features, np.tile(self.batch.rows, 1 + steps), self.targets, self.config)
        return np.array(features.seconds[1:]), np.array(features.peaks[1:])


class _Timed:
    """Features that are always the same batch, and time what is done between two of them.

    seconds: of each step. peaks: operations a second of the matrix product last timed before it.
    """

    kind = "made up"

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.seconds: list[float] = []
        self.peaks: list[float] = []

    def batches(
        self, rows: np.ndarray, batch_size: int, rng: np.random.Generator | None = None
    ) -> Iterator[Batch]:
        peak, known = 0.0, -np.inf
        for _ in range(0, len(rows), batch_size):
            if time.perf_counter() - known > PRODUCT_EVERY:
                peak = product_flops(self.batch.vlm.device)
                known = time.perf_counter()
            began = self._now()
            yield self.batch
            self.seconds.append(self._now() - began)
            self.peaks.append(peak)

    def _now(self) -> float:
        if self.batch.vlm.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


def made_up_batch(model: PCMCI, size: int, device: torch.device) -> Batch:
    """`size` videos of random features, with the weights of ICH where the model wants them."""
    generator = torch.Generator().manual_seed(0)
    vlm = torch.randn(size, FRAMES, WIDTH, generator=generator)
    video = torch.randn(size, FRAMES, VIDEO_WIDTH, generator=generator)
    weights = None
    if model.wants_weights:
        logits = torch.randn(size, len(model.text), FRAMES, generator=generator)
        weights = logits.softmax(-1).to(device)
    return Batch(np.arange(size), vlm.to(device), video.to(device), weights)


def step_flop(model: PCMCI, batch: Batch, targets: Tensor) -> float:
    """Floating point operations of the matrix products of a step."""
    # The fused attention of a CPU is no product to the counter; the plain one is made of them.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss_function(model(batch.vlm, batch.video, batch.weights), targets).backward()
    model.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def product_flops(device: torch.device) -> float:
    """Floating point operations a second of a large float32 matrix product, the median of some."""
    one, other = torch.randn(2, PRODUCT, PRODUCT, device=device)

    def product() -> Tensor:
        found = one @ other
        if found.is_cuda:
            torch.cuda.synchronize()
        return found

    product()
    seconds = [claims.seconds(product) for _ in range(PRODUCTS)]
    return 2 * PRODUCT**3 / float(np.median(seconds))


if __name__ == "__main__":
    main()
