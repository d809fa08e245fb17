"""Training a part of the head: the rest stays at its start."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from synthetic import small_store
from test_training import DV, QUICK, TINY, Problem, make_problem, train

from pcmci.cache.store import open_store
from pcmci.errors import UsageError
from pcmci.heads.ablation.grid import models_of, parse_grid
from pcmci.heads.ablation.sweep import plan_sweep
from pcmci.heads.catalogue import configure
from pcmci.heads.config import STAGES, ModelConfig, order_name
from pcmci.heads.settings import recorded
from pcmci.heads.training.fit import build_model
from pcmci.heads.training.recipe import Recipe
from pcmci.heads.training.run import make_runs, train_heads

ICH, ICI, IVC = STAGES
PARTS = {
    "text": ("text_in", "frames_in", "stages.ich", "stages.ici"),
    "visual": ("video_in", "stages.ivc"),
    "classifier": ("decoder",),
}
QUICK_RUN = {"epochs": 2, "relations": 4, "decoder_heads": 4, "feedforward": 24, "batch_size": 16}


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem()


@pytest.mark.parametrize(
    "tune", ["text,classifier", "classifier", "visual", "text,visual", "visual,classifier", "text"]
)
@pytest.mark.parametrize("order", [STAGES, (ICI, ICH), (IVC,)], ids=order_name)
def test_what_is_not_tuned_stays_at_its_start(
    problem: Problem, order: tuple[str, ...], tune: str
) -> None:
    config = dataclasses.replace(TINY, order=order, tune=tune)
    start = dict(build_model(config, problem.text, DV, QUICK.seed).named_parameters())
    model, _ = train(problem, order, model_config=config)
    tuned = tuple(f"{name}." for part in tune.split(",") for name in PARTS[part])
    moved = {n for n, value in model.named_parameters() if not torch.equal(value, start[n])}
    assert moved == {name for name in start if name.startswith(tuned)}
    assert model.trained_parameters() == sum(start[name].numel() for name in moved)


def test_the_start_is_that_of_the_whole_head(problem: Problem) -> None:
    part, whole = (
        build_model(dataclasses.replace(TINY, tune=tune), problem.text, DV, 3)
        for tune in ("classifier", "all")
    )
    theirs = whole.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in part.state_dict().items())


def test_frames_that_only_the_decoder_sees_are_visual(problem: Problem) -> None:
    config = dataclasses.replace(TINY, order=(), tokens="both", tune="visual")
    model = build_model(config, problem.text, DV, 0)
    trained = {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"video_in", "frames_in"}


def test_a_part_with_nothing_to_train_is_refused(problem: Problem) -> None:
    config = dataclasses.replace(TINY, order=(IVC,), norm=False, tune="text,classifier")
    with pytest.raises(UsageError, match="tune text,classifier: order ivc has nothing of text"):
        build_model(config, problem.text, DV, 0)


def test_runs_made_before_keep_their_keys() -> None:
    assert "tune" not in recorded(ModelConfig())
    assert recorded(ModelConfig(tune="classifier"))["tune"] == "classifier"


def test_a_stack_of_tuned_runs_is_its_runs_alone_and_is_read_back(tmp_path) -> None:
    made = [
        Recipe(
            *configure(STAGES, ("activity",), {**QUICK_RUN, "tune": "text,classifier", "seed": s}),
            "fp32", "cpu",
        )
        for s in range(2)
    ]  # fmt: skip
    with open_store(small_store(tmp_path / "small.h5")) as store:
        together = make_runs(store, made, tmp_path / "together", torch.device("cpu"))
        (alone,) = make_runs(store, made[1:], tmp_path / "alone", torch.device("cpu"))
        whole = train_heads(
            store, STAGES, labels="activity", out=tmp_path / "alone", progress=False, **QUICK_RUN
        )
        encoders = store.spec.vlm.parameters + store.spec.video.parameters
    logits = [run.predictions.labels["activity"].logits for run in (together[1], alone)]
    np.testing.assert_allclose(*logits, rtol=1e-3, atol=1e-4)
    facts, of_whole = alone.heads["activity"], whole.heads["activity"]
    assert 0 < facts["trained parameters"] < of_whole["trained parameters"]
    head = of_whole["trained parameters"]
    assert facts["trained share"] == facts["trained parameters"] / (head + encoders)
    assert of_whole["trained share"] == head / (head + encoders)
    assert alone.models()["activity"].trained_parameters() == facts["trained parameters"]


def test_tuning_is_an_axis_of_a_sweep() -> None:
    grid = parse_grid(["tune=all,text/classifier"])
    sweep = plan_sweep(
        models_of(("pcmci",), ((), STAGES)), (0,), grid, ("activity",), {},
        reference=None, precision="fp32", device="cpu", has_validation=False,
    )  # fmt: skip
    assert [variant.name for variant in sweep.variants] == [
        "none tune=all", "none tune=text/classifier",
        "ich,ici,ivc tune=all", "ich,ici,ivc tune=text/classifier",
    ]  # fmt: skip
