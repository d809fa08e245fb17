"""Training: the same seed the same bits, what is learned, and which weights stay."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pcmci.errors import PcmciError
from pcmci.heads.config import ORDERS, STAGES, ModelConfig, TrainConfig, TransportConfig, order_name
from pcmci.heads.head import loss_function
from pcmci.heads.method.decoder import Decoder
from pcmci.heads.method.model import PCMCI
from pcmci.heads.training import fit as training
from pcmci.heads.training.features import Batch
from pcmci.heads.training.fit import (
    DivergedError,
    History,
    build_model,
    fit,
    learning_rate_share,
    make_optimiser,
    predict_logits,
)

VIDEOS, N, L, LV, D, DV = 26, 4, 3, 5, 16, 20
ROWS = np.arange(20)
"""The rows that train; the other six are held out."""

TINY = ModelConfig(
    transport=TransportConfig(temperature=0.5),
    relations=4,
    decoder_heads=4,
    feedforward=24,
)
QUICK = TrainConfig(epochs=3, batch_size=8, eval_every=1)


class MemoryFeatures:
    """What `Features` promises, from arrays; it remembers what it gave."""

    kind = "memory"

    def __init__(self, vlm: np.ndarray, video: np.ndarray, device: str = "cpu") -> None:
        self.vlm, self.video = (torch.from_numpy(x).float().to(device) for x in (vlm, video))
        self.given: list[list[int]] = []

    def batches(
        self, rows: np.ndarray, batch_size: int, rng: np.random.Generator | None = None
    ) -> Iterator[Batch]:
        order = rows if rng is None else rng.permutation(rows)
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            self.given.append(part.tolist())
            yield Batch(part, self.vlm[part], self.video[part], None)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Separable by far: every label has a direction of its own in both encoders' features."""

    text: np.ndarray
    features: MemoryFeatures
    activity: Tensor
    steps: Tensor

    def targets(self, labels: str) -> Tensor:
        return self.activity if labels == "activity" else self.steps


def make_problem(device: str = "cpu", frames: int = L) -> Problem:
    rng = np.random.default_rng(0)
    activity = np.arange(VIDEOS) % N
    steps = np.zeros((VIDEOS, N), dtype=np.float32)
    steps[np.arange(VIDEOS), activity] = 1
    steps[np.arange(VIDEOS), (activity + 1) % N] = 1
    looks = rng.normal(size=(N, DV))
    text = rng.normal(size=(N, D)).astype(np.float32)
    video = (steps @ looks)[:, None] + 0.1 * rng.normal(size=(VIDEOS, LV, DV))
    vlm = (steps @ text)[:, None] + 0.1 * rng.normal(size=(VIDEOS, frames, D))
    return Problem(
        text,
        MemoryFeatures(vlm, video, device),
        torch.from_numpy(activity).to(device),
        torch.from_numpy(steps).to(device),
    )


@pytest.fixture
def problem() -> Problem:
    return make_problem()


def train(
    problem: Problem,
    order: tuple[str, ...] = STAGES,
    config: TrainConfig = QUICK,
    labels: str = "steps",
    model_config: ModelConfig = TINY,
    **options: object,
) -> tuple[PCMCI, History]:
    model_config = dataclasses.replace(model_config, order=order)
    model = build_model(model_config, problem.text, DV, config.seed)
    targets = problem.targets(labels)
    history = fit(model, problem.features, ROWS, targets, config, **options)  # type: ignore[arg-type]
    return model, history


def same_bits(one: PCMCI, other: PCMCI) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


# Seeds.


@pytest.mark.parametrize("order", [(), ("ivc", "ici", "ich")], ids=order_name)
def test_the_same_seed_gives_the_same_bits(problem: Problem, order: tuple[str, ...]) -> None:
    first, history = train(problem, order)
    torch.manual_seed(77)
    np.random.seed(77)
    again, history_again = train(problem, order)
    assert same_bits(first, again)
    assert history == history_again
    other, _ = train(problem, order, dataclasses.replace(QUICK, seed=1))
    assert not same_bits(first, other)


def test_a_model_is_built_from_its_seed_alone(problem: Problem) -> None:
    first = build_model(TINY, problem.text, DV, seed=3)
    torch.manual_seed(77)
    assert same_bits(first, build_model(TINY, problem.text, DV, seed=3))
    assert not same_bits(first, build_model(TINY, problem.text, DV, seed=4))


def test_the_global_random_numbers_are_left_alone(problem: Problem) -> None:
    torch_before, (_, numpy_before, *_) = torch.get_rng_state(), np.random.get_state()
    train(problem)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()


def test_all_orders_of_stages_see_the_same_videos_and_dropout(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks: list[Tensor] = []
    draw = Decoder.draw_dropout

    def remember(self: Decoder, batch: int, generator: torch.Generator) -> Tensor | None:
        mask = draw(self, batch, generator)
        assert mask is not None
        masks.append(mask)
        return mask

    monkeypatch.setattr(Decoder, "draw_dropout", remember)

    def seen(order: tuple[str, ...], seed: int) -> tuple[list[list[int]], Tensor]:
        problem.features.given.clear()
        masks.clear()
        train(problem, order, dataclasses.replace(QUICK, seed=seed))
        return list(problem.features.given), torch.cat(masks, dim=1)

    batches, dropout = seen((), seed=0)
    for order in (("ich",), ("ivc", "ici", "ich")):
        others = seen(order, seed=0)
        assert others[0] == batches
        assert torch.equal(others[1], dropout)
    another = seen((), seed=1)
    assert another[0] != batches
    assert not torch.equal(another[1], dropout)


def test_an_epoch_is_every_training_video_once_in_a_new_order(problem: Problem) -> None:
    train(problem)
    batches = problem.features.given
    assert [len(batch) for batch in batches] == 3 * [8, 8, 4]
    epochs = [[row for batch in batches[i : i + 3] for row in batch] for i in (0, 3, 6)]
    assert all(sorted(epoch) == ROWS.tolist() for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


# Learning.


@pytest.mark.parametrize("labels", ["activity", "steps"])
@pytest.mark.parametrize("order", [(), ("ich",), STAGES, ("ivc", "ici", "ich")], ids=order_name)
def test_a_separable_problem_is_learned(
    problem: Problem, order: tuple[str, ...], labels: str
) -> None:
    """Far below chance, which is log 4 for one label of four and log 2 for two of four; the
    videos held out are all right."""
    config = TrainConfig(epochs=20, batch_size=8, lr=5e-3)
    model, history = train(problem, order, config, labels)
    chance = math.log(N) if labels == "activity" else math.log(2)
    assert history.loss[-1] < chance / 3
    held_out = np.arange(20, VIDEOS)
    logits = torch.from_numpy(predict_logits(model, problem.features, held_out, 8))
    if labels == "activity":
        assert torch.equal(logits.argmax(1), problem.activity[held_out])
    else:
        assert torch.equal(logits > 0, problem.steps[held_out] == 1)


@pytest.mark.parametrize("order", ORDERS, ids=order_name)
def test_training_changes_every_weight_and_nothing_frozen(
    problem: Problem, order: tuple[str, ...]
) -> None:
    config = dataclasses.replace(QUICK, weight_decay=0.0)
    before = build_model(dataclasses.replace(TINY, order=order), problem.text, DV, seed=0)
    after, _ = train(problem, order, config)
    trained = dict(after.named_parameters())
    for name, value in before.named_parameters():
        assert not torch.equal(value, trained[name]), name
    assert torch.equal(after.text, torch.from_numpy(problem.text))


def test_the_loss_of_an_epoch_is_the_mean_over_videos(problem: Problem) -> None:
    """Batches of 8, 8 and 4 videos count by their size."""
    config = dataclasses.replace(QUICK, epochs=1, lr=1e-30, weight_decay=0.0)
    still = dataclasses.replace(TINY, dropout=0.0)
    model, history = train(problem, STAGES, config, "activity", still)
    logits = torch.from_numpy(predict_logits(model, problem.features, ROWS, 20))
    expected = loss_function(logits, problem.activity[ROWS]).item()
    assert history.loss == [pytest.approx(expected, rel=1e-5)]


def test_the_losses_are_their_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, N, generator=generator, dtype=torch.float64)
    one = torch.tensor([0, 3, 1, 1, 2])
    several = (torch.rand(5, N, generator=generator) < 0.5).double()
    p, q = logits.exp() / logits.exp().sum(1, keepdim=True), 1 / (1 + (-logits).exp())
    cross_entropy = -sum(p[b, one[b]].log() for b in range(5)) / 5
    binary = [
        -(q[b, n].log() if several[b, n] else (1 - q[b, n]).log())
        for b in range(5)
        for n in range(N)
    ]
    torch.testing.assert_close(loss_function(logits, one), cross_entropy)
    torch.testing.assert_close(loss_function(logits, several), sum(binary) / len(binary))


def test_the_gradient_is_clipped(problem: Problem) -> None:
    """Clipped to less than Adam's epsilon, a gradient moves nothing."""
    before = build_model(dataclasses.replace(TINY, order=()), problem.text, DV, seed=0)
    config = dataclasses.replace(QUICK, weight_decay=0.0)
    for clip, moved in ((1e-16, False), (1.0, True)):
        after, _ = train(problem, (), dataclasses.replace(config, clip=clip))
        largest = max(
            (a - b).abs().max().item()
            for a, b in zip(after.parameters(), before.parameters(), strict=True)
        )
        assert (largest > 1e-6) == moved


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)]
)
def test_the_optimiser_is_the_one_asked_for(name: str, kind: type) -> None:
    model = torch.nn.Linear(2, 3)
    made = make_optimiser(model, TrainConfig(optimiser=name, lr=0.25, weight_decay=0.125))
    assert type(made) is kind
    (group,) = made.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.125)
    assert group["params"] == list(model.parameters())


# The learning rate.


@settings(deadline=None)
@given(steps=st.integers(2, 400), warmup=st.floats(0, 0.95))
def test_the_rate_rises_to_its_peak_and_falls_to_nothing(steps: int, warmup: float) -> None:
    shares = [learning_rate_share(step, steps, warmup) for step in range(steps)]
    rising = max(1, round(warmup * steps))
    assert all(0 < share <= 1 for share in shares)
    assert shares[rising - 1] == 1
    np.testing.assert_allclose(np.diff(shares[:rising]), 1 / rising)  # a straight line
    assert shares[rising - 1 :] == sorted(shares[rising - 1 :], reverse=True)
    if rising < steps:
        assert learning_rate_share(steps, steps, warmup) == pytest.approx(0, abs=1e-12)


def test_the_fall_is_half_a_cosine() -> None:
    """Of 110 steps 10 rise: half of the peak is left half-way down the others."""
    shares = {step: learning_rate_share(step, 110, 1 / 11) for step in (35, 60, 85)}
    assert shares[60] == pytest.approx(1 / 2)
    assert shares[35] == pytest.approx((1 + math.sqrt(1 / 2)) / 2)
    assert shares[35] + shares[85] == pytest.approx(1)


def test_training_follows_the_schedule(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.optim.Optimizer] = []

    def remember(*arguments: object) -> torch.optim.Optimizer:
        made.append(make_optimiser(*arguments))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(training, "make_optimiser", remember)
    rates = []
    config = dataclasses.replace(QUICK, epochs=5, warmup=0.4, lr=0.01)
    train(problem, (), config, on_epoch=lambda *_: rates.append(made[0].param_groups[0]["lr"]))
    # Three batches an epoch: after epoch e, the rate is that of step 3 e.
    expected = [0.01 * learning_rate_share(3 * epoch, 15, 0.4) for epoch in range(1, 6)]
    assert rates == pytest.approx(expected)


# Looks, and the epoch that is chosen.


def scripted(
    problem: Problem, scores: list[dict[str, float]], config: TrainConfig
) -> tuple[PCMCI, History, list[dict[str, Tensor]]]:
    """A run whose looks score as written, and the weights at every look."""
    model = build_model(dataclasses.replace(TINY, order=()), problem.text, DV, seed=0)
    seen: list[dict[str, Tensor]] = []

    def look(epoch: int) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return scores[len(seen) - 1]

    history = fit(model, problem.features, ROWS, problem.steps, config, look=look)
    return model, history, seen


def has(model: PCMCI, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_validation_chooses_the_epoch_and_its_weights_stay(problem: Problem) -> None:
    scores = [{"val": v, "test": t} for v, t in ((0.2, 0.9), (0.7, 0.1), (0.7, 0.8), (0.3, 1.0))]
    config = dataclasses.replace(QUICK, epochs=4)
    model, history, seen = scripted(problem, scores, config)
    assert history.chosen == 2  # of two as good, the earlier
    assert has(model, seen[1])
    assert not has(model, seen[2])
    assert not has(model, seen[3])
    assert history.looks == dict(enumerate(scores, start=1))
    assert history.best("val") == (2, 0.7)
    assert history.best("test") == (4, 1.0)


def test_the_test_split_never_chooses(problem: Problem) -> None:
    scores = [{"test": 1.0}, {"test": 0.5}, {"test": 0.1}]
    model, history, seen = scripted(problem, scores, QUICK)
    assert history.chosen == 3
    assert has(model, seen[2])
    assert history.best("val") is None
    assert history.best("test") == (1, 1.0)


def test_looks_are_taken_every_so_often_and_at_the_end(problem: Problem) -> None:
    config = dataclasses.replace(QUICK, epochs=7, eval_every=3)
    _, history, _ = scripted(problem, [{"val": 0.5}] * 3, config)
    assert list(history.looks) == [3, 6, 7]
    assert history.chosen == 3


def test_without_looks_the_last_epoch_stays(problem: Problem) -> None:
    told = []
    _, history = train(problem, on_epoch=lambda epoch, loss: told.append((epoch, loss)))
    assert history.chosen == 3
    assert history.looks == {}
    assert told == list(enumerate(history.loss, start=1))


def test_looking_changes_nothing(problem: Problem) -> None:
    blind, _ = train(problem)
    model = build_model(dataclasses.replace(TINY, order=STAGES), problem.text, DV, seed=0)

    def look(epoch: int) -> dict[str, float]:
        predict_logits(model, problem.features, np.arange(20, VIDEOS), 4)
        return {"test": 0.0}

    fit(model, problem.features, ROWS, problem.steps, QUICK, look=look)
    assert same_bits(model, blind)


# What goes wrong.


def test_features_that_are_no_numbers_stop_the_run(problem: Problem) -> None:
    problem.features.video[7, 2] = float("nan")
    with pytest.raises(DivergedError, match="the loss is not finite in epoch 1") as caught:
        train(problem)
    assert isinstance(caught.value, PcmciError)
    assert caught.value.epoch == 1


def test_the_epoch_that_diverged_is_named(problem: Problem) -> None:
    def spoil(epoch: int, loss: float) -> None:
        assert math.isfinite(loss)
        if epoch == 2:
            problem.features.video.fill_(float("inf"))

    with pytest.raises(DivergedError, match="in epoch 3"):
        train(problem, on_epoch=spoil)


def test_predictions_that_are_no_numbers_are_refused(problem: Problem) -> None:
    """The last step may spoil the weights after the last loss was seen to be finite. A NaN ranks
    somewhere, and argmax calls it the best."""
    model = build_model(dataclasses.replace(TINY, order=()), problem.text, DV, seed=0)
    with torch.no_grad():
        model.decoder.bias[1] = float("nan")
    with pytest.raises(PcmciError, match="training diverged: 6 of 6 videos have logits that"):
        predict_logits(model, problem.features, np.arange(20, VIDEOS), 4)


# Predictions.


def test_predictions_come_in_the_order_asked_for(problem: Problem) -> None:
    model, _ = train(problem)
    rows = np.array([25, 3, 11, 4, 0])
    logits = predict_logits(model, problem.features, rows, batch_size=2)
    assert (logits.shape, logits.dtype) == ((5, N), np.float32)
    with torch.inference_mode():
        at_once = model(problem.features.vlm[rows], problem.features.video[rows])
    np.testing.assert_allclose(logits, at_once, rtol=1e-3, atol=1e-4)
    backwards = predict_logits(model, problem.features, np.flip(rows).copy(), batch_size=5)
    np.testing.assert_allclose(backwards[::-1], logits, rtol=1e-3, atol=1e-4)


def test_predicting_uses_no_dropout(problem: Problem) -> None:
    wild = dataclasses.replace(TINY, dropout=0.9, order=())
    model = build_model(wild, problem.text, DV, seed=0).train()
    first, second = (predict_logits(model, problem.features, ROWS, 8) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not model.training


def test_training_ends_ready_to_predict(problem: Problem) -> None:
    model, _ = train(problem)
    assert not model.training


def test_bf16_trains_close_to_fp32(problem: Problem) -> None:
    _, exact = train(problem)
    model, mixed = train(problem, precision="bf16")
    assert mixed.loss == pytest.approx(exact.loss, rel=0.05)
    assert mixed.loss != exact.loss
    assert all(p.dtype == torch.float32 for p in model.parameters())
    logits = predict_logits(model, problem.features, ROWS, 8, precision="bf16")
    assert logits.dtype == np.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("order", [(), STAGES, ("ivc", "ici", "ich")], ids=order_name)
def test_two_steps_on_cuda_under_bf16(order: tuple[str, ...]) -> None:
    problem = make_problem("cuda")
    before = torch.cuda.get_rng_state()
    config = dataclasses.replace(QUICK, epochs=1, batch_size=10)
    model, history = train(problem, order, config, precision="bf16")
    assert len(problem.features.given) == 2
    assert model.text.is_cuda
    assert torch.equal(torch.cuda.get_rng_state(), before)
    _, on_cpu = train(make_problem(), order, config)
    assert history.loss == pytest.approx(on_cpu.loss, rel=0.1)
    logits = predict_logits(model, problem.features, ROWS, 8, precision="bf16")
    assert logits.shape == (len(ROWS), N)
    assert np.isfinite(logits).all()
