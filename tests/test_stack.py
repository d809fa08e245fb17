"""A stack of runs: each is what it is alone."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from synthetic import small_store

from pcmci.cache.store import open_store
from pcmci.device import autocast
from pcmci.heads.catalogue import configure
from pcmci.heads.config import ORDERS, order_name
from pcmci.heads.training.fit import DivergedError, build_model
from pcmci.heads.training.recipe import Recipe
from pcmci.heads.training.run import find_failure, find_run, make_runs
from pcmci.heads.training.stack import Stack

CPU = torch.device("cpu")
QUICK = {
    "epochs": 2, "batch_size": 16, "relations": 4, "decoder_heads": 4, "feedforward": 24,
    "transport_temperature": 0.5, "eval_every": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with open_store(small_store(tmp_path_factory.mktemp("s") / "small.h5", views=2)) as opened:
        yield opened


def recipe(order=(), labels=("activity", "steps"), **values) -> Recipe:
    return Recipe(*configure(order, labels, {**QUICK, **values}), "fp32", "cpu")


def logits(run) -> dict[str, np.ndarray]:
    return {name: part.logits for name, part in run.predictions.labels.items()}


def assert_alike(stacked, alone, **tolerance):
    for name, expected in logits(alone).items():
        np.testing.assert_allclose(logits(stacked)[name], expected, **tolerance)
    for name, facts in alone.heads.items():
        np.testing.assert_allclose(stacked.heads[name]["loss"], facts["loss"], rtol=1e-4)
        assert stacked.heads[name]["chosen epoch"] == facts["chosen epoch"]


@pytest.mark.parametrize("order", ORDERS, ids=order_name)
def test_stacked_runs_are_what_they_are_alone(store, tmp_path, order):
    recipes = [
        recipe(order, seed=0),
        recipe(order, seed=1, lr=3e-3, weight_decay=0.1, warmup=0.5),
        recipe(order, seed=1, clip=0.01, mixer_noise=0.5),
    ]
    together = make_runs(store, recipes, tmp_path / "together", CPU)
    for one, stacked in zip(recipes, together, strict=True):
        (alone,) = make_runs(store, [one], tmp_path / "alone", CPU)
        assert_alike(stacked, alone, rtol=1e-3, atol=1e-4)
        assert stacked.config["key"] == alone.config["key"]
        assert stacked.config["machine"]["stack"] == 3
    first, second, third = (logits(run)["steps"] for run in together)
    present = together[0].predictions.present
    assert not np.allclose(first[present], second[present], atol=1e-3)
    assert not np.allclose(second[present], third[present], atol=1e-3)


@pytest.mark.parametrize(
    ("order", "settings"),
    [
        ((), {"positions": "sinusoidal", "centre": 0.5}),
        (("ici", "ich"), {"positions": "learned", "swap": 0.5}),
    ],
    ids=lambda part: order_name(part) if isinstance(part, tuple) else "+".join(part),
)
def test_what_came_later_can_be_stacked(store, tmp_path, order, settings):
    recipes = [recipe(order, seed=s, **settings) for s in range(2)]
    together = make_runs(store, recipes, tmp_path / "together", CPU)
    (alone,) = make_runs(store, [recipes[1]], tmp_path / "alone", CPU)
    assert_alike(together[1], alone, rtol=1e-3, atol=1e-4)


def test_lambda_may_differ_where_the_plan_is_learned(store, tmp_path):
    order = ("ici", "ich")
    recipes = [recipe(order, transport_lambda=lam) for lam in (0.2, 5.0)]
    together = make_runs(store, recipes, tmp_path / "together", CPU)
    for one, stacked in zip(recipes, together, strict=True):
        (alone,) = make_runs(store, [one], tmp_path / "alone", CPU)
        assert_alike(stacked, alone, rtol=1e-3, atol=1e-4)
        for labels, facts in alone.heads.items():
            error = stacked.heads[labels]["transport marginal error"]
            assert error == pytest.approx(facts["transport marginal error"], rel=0.2)


def test_gradients_may_go_through_the_plan(store, tmp_path):
    order = ("ici", "ich")
    recipes = [recipe(order, seed=s, transport_gradient="autodiff") for s in range(2)]
    together = make_runs(store, recipes, tmp_path / "together", CPU)
    (alone,) = make_runs(store, [recipes[1]], tmp_path / "alone", CPU)
    assert_alike(together[1], alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("order", "change", "may"),
    [
        ((), {"seed": 3, "lr": 1.0, "weight_decay": 0.5, "warmup": 0.3, "clip": 9.0}, True),
        ((), {"mixer_noise": 0.4}, True),
        (("ich",), {"transport_lambda": 2.0}, False),
        (("ici", "ich"), {"transport_lambda": 2.0}, True),
        (("ici", "ich"), {"transport_temperature": 2.0}, False),
        ((), {"epochs": 5}, False),
        ((), {"batch_size": 5}, False),
        ((), {"dropout": 0.3}, False),
        ((), {"relations": 8}, False),
        ((), {"validation": 0.2}, False),
    ],
)
def test_what_may_differ_within_a_stack(order, change, may):
    assert (recipe(order).stack_key == recipe(order, **change).stack_key) == may


def test_runs_that_do_other_work_are_not_stacked(store, tmp_path):
    with pytest.raises(ValueError, match="cannot be stacked"):
        make_runs(store, [recipe(), recipe(epochs=5)], tmp_path, CPU)
    assert not list(tmp_path.iterdir())


def test_a_run_that_diverges_leaves_the_others_alone(store, tmp_path):
    recipes = [recipe(seed=0), recipe(seed=1, lr=1e30, clip=1e30), recipe(seed=2)]
    sound, broken, other = make_runs(store, recipes, tmp_path / "together", CPU)
    assert isinstance(broken, DivergedError)
    assert (broken.epoch, broken.step) == (1, 2)  # the first step's rate spoils the second's loss
    for one, stacked in ((recipes[0], sound), (recipes[2], other)):
        (alone,) = make_runs(store, [one], tmp_path / "alone", CPU)
        assert_alike(stacked, alone, rtol=1e-3, atol=1e-4)
    assert find_run(store, recipes[1], tmp_path / "together") is None
    kept = find_failure(store, recipes[1], tmp_path / "together")
    assert str(kept) == str(broken)
    record = next((tmp_path / "together").glob("*.failed.json"))
    assert json.loads(record.read_text())["step"] == 2
    assert not list((tmp_path / "together").glob(".*"))


def test_the_models_of_a_stack_are_parts_of_it(store):
    """What is trained is what is asked and saved."""
    text = store.text("activity")
    configs = [recipe(("ich", "ici", "ivc"), seed=s) for s in range(3)]
    models = [build_model(c.model, text, store.spec.video.width, c.train.seed) for c in configs]
    before = [{n: p.clone() for n, p in m.named_parameters()} for m in models]
    stack = Stack(models, CPU)
    rng = torch.Generator().manual_seed(0)
    vlm = torch.randn(3, 4, 6, 16, generator=rng)
    video = torch.randn(3, 4, 6, 24, generator=rng)
    weights = torch.rand(3, 4, 3, 6, generator=rng).softmax(-1)
    for s, model in enumerate(models):
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter, before[s][name], rtol=0, atol=0)
    out = stack.opinions(vlm, video, weights, {})
    for s, model in enumerate(models):
        torch.testing.assert_close(out[s], model(vlm[s], video[s], weights[s]))
    losses = out.square().mean((1, 2))
    stack.backward(losses)
    for s, model in enumerate(models):
        stacked = {name: p.grad.clone() for name, p in model.named_parameters()}
        model.zero_grad()
        model(vlm[s], video[s], weights[s]).square().mean().backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(stacked[name], parameter.grad, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        models[1].decoder.bias += 1
    changed = stack.opinions(vlm, video, weights, {})
    torch.testing.assert_close(changed[1], out[1] + 1)
    torch.testing.assert_close(changed[0], out[0], rtol=0, atol=0)


@pytest.mark.parametrize("order", [(), ("ich", "ici", "ivc")], ids=order_name)
def test_in_bf16_a_stack_is_as_near_to_fp32_as_a_run_alone(store, order):
    """vmap takes operations apart before autocast sees them: other roundings, no larger ones."""
    made = [recipe(order, seed=s) for s in range(3)]
    text, width = store.text("steps"), store.spec.video.width
    models = [build_model(r.model, text, width, r.train.seed) for r in made]
    rng = torch.Generator().manual_seed(0)
    vlm, video = (torch.randn(3, 32, 6, w, generator=rng) for w in (16, 24))
    weights = (
        torch.rand(3, 32, 5, 6, generator=rng).softmax(-1) if models[0].wants_weights else None
    )

    def alone() -> torch.Tensor:
        inputs = zip(vlm, video, weights if weights is not None else [None] * 3, strict=True)
        return torch.stack([m(*x) for m, x in zip(models, inputs, strict=True)]).float()

    with torch.no_grad():
        exact = alone()
        with autocast(CPU, "bf16"):
            rounded = alone()
            stacked = Stack(models, CPU).opinions(vlm, video, weights, {}).float()
    error, other = ((x - exact).square().mean().sqrt() for x in (rounded, stacked))
    assert other <= 1.5 * error


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_stack_on_cuda_is_what_its_runs_are_alone(store, tmp_path):
    device = torch.device("cuda")
    recipes = [
        dataclasses.replace(recipe(("ich", "ici", "ivc"), seed=s), device="cuda") for s in range(3)
    ]
    together = make_runs(store, recipes, tmp_path / "together", device)
    (alone,) = make_runs(store, [recipes[2]], tmp_path / "alone", device)
    assert_alike(together[2], alone, rtol=1e-2, atol=1e-3)
