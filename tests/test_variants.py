"""The stages as the formulas have them: each variant against the invariant that proves it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import small_store
from torch import Tensor

from pcmci.cache.store import open_store
from pcmci.errors import PcmciError
from pcmci.heads.catalogue import configure
from pcmci.heads.config import ModelConfig, TransportConfig
from pcmci.heads.head import loss_function
from pcmci.heads.method.ich import proxy
from pcmci.heads.method.ivc import conditional_transform
from pcmci.heads.method.mediator import Mediator
from pcmci.heads.method.model import PCMCI
from pcmci.heads.method.precedence import frozen_precedence, precedence
from pcmci.heads.method.swap import draw_others
from pcmci.heads.method.transport import alignment, log_similarity, transport_plan
from pcmci.heads.scoring.purity import purity
from pcmci.heads.training.frozen import frozen_weights
from pcmci.heads.training.recipe import Recipe
from pcmci.heads.training.run import load_run, make_runs, train_heads

CPU = torch.device("cpu")
B, N, L, LV, D, DV = 4, 5, 6, 6, 16, 20
SOFT = TransportConfig(temperature=0.5)
TINY = ModelConfig(transport=SOFT, relations=4, decoder_heads=4, feedforward=24, dropout=0.0)
QUICK = {
    "epochs": 2, "batch_size": 16, "relations": 4, "decoder_heads": 4, "feedforward": 24,
    "transport_temperature": 0.5, "eval_every": 1, "progress": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with open_store(small_store(tmp_path_factory.mktemp("s") / "small.h5", views=2)) as opened:
        yield opened


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def make(order: tuple[str, ...], labels: str = "activity", **changes: Any) -> PCMCI:
    model = PCMCI(dataclasses.replace(TINY, order=order, **changes), draw(N, D), DV).double()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.labels = labels
    return model


def recipe(order: tuple[str, ...], seed: int = 0, **values: Any) -> Recipe:
    kept = {name: x for name, x in (QUICK | values).items() if name != "progress"}
    return Recipe(*configure(order, ("activity", "steps"), {**kept, "seed": seed}), "fp32", "cpu")


# ICH: the transport and its control.


def weights_of(text: Tensor, frames: Tensor, **changes: Any) -> Tensor:
    config = dataclasses.replace(SOFT, **changes)
    return alignment(text, frames, config, exact=True)[0]


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_by_contrast_what_stands_in_every_frame_passes_with_a_gain_of_one_minus_gamma(gamma):
    text, frames, persistent = draw(1, N, D), draw(B, L, D), draw(B, 1, D)
    weights = weights_of(text, frames, refine="contrast", gamma=gamma)
    torch.testing.assert_close(weights.sum(-1), torch.full((B, N), 1 - gamma).double())
    passed = proxy(weights, frames + persistent) - proxy(weights, frames)
    torch.testing.assert_close(passed, ((1 - gamma) * persistent).expand_as(passed))
    if gamma == 0:
        torch.testing.assert_close(weights, weights_of(text, frames))


@pytest.mark.parametrize("refine", ["product", "plan", "similarity", "uniform"])
def test_by_every_other_weighting_it_passes_whole(refine):
    text, frames, persistent = draw(1, N, D), draw(B, L, D), draw(B, 1, D)
    weights = weights_of(text, frames, refine=refine)
    passed = proxy(weights, frames + persistent) - proxy(weights, frames)
    torch.testing.assert_close(passed, persistent.expand_as(passed))


def test_at_lambda_1_the_plan_is_a_halved_temperature_and_one_weight_a_frame():
    """So `similarity` at half the temperature is the control of the transport: what the plan adds
    to it is the same for all labels."""
    text, frames = draw(1, N, D), draw(B, L, D)
    with_plan = weights_of(text, frames, tolerance=1e-12)
    control = weights_of(text, frames, refine="similarity", temperature=SOFT.temperature / 2)
    ratio = (with_plan / control).log()
    a_frame = ratio - ratio.mean(2, keepdim=True)  # rows are normalised each for itself
    torch.testing.assert_close(a_frame, a_frame[:, :1].expand_as(a_frame), rtol=0, atol=1e-8)
    assert a_frame.abs().max() > 0.01  # and it does add something
    log_s = log_similarity(text, frames, SOFT.temperature)
    plan = transport_plan(log_s, 1.0, 1e-12, 10_000)
    v = plan.log() - log_s
    v = v - v.mean(2, keepdim=True)
    torch.testing.assert_close((2 * log_s + v).softmax(-1), with_plan)


def test_elsewhere_than_at_lambda_1_it_is_another_temperature():
    text, frames = draw(1, N, D), draw(B, L, D)
    with_plan = weights_of(text, frames, lam=3.0)
    control = weights_of(text, frames, refine="similarity", temperature=SOFT.temperature / 2)
    ratio = (with_plan / control).log()
    a_frame = ratio - ratio.mean(2, keepdim=True)
    assert not torch.allclose(a_frame, a_frame[:, :1].expand_as(a_frame), atol=1e-3)


def test_kept_weights_are_of_their_gamma(store):
    """And those from before there was one are found again."""
    found = [
        frozen_weights(
            store, "activity", dataclasses.replace(SOFT, refine=r, gamma=g), CPU, progress=False
        ).weights
        for r, g in (("contrast", 1.0), ("contrast", 0.5), ("product", 0.5), ("product", 1.0))
    ]
    there = store.done_rows
    whole, half, product, other = (x[there].astype(np.float64) for x in found)
    frames = product.shape[-1]
    np.testing.assert_allclose(whole, product - 1 / frames, atol=1e-6)
    np.testing.assert_allclose(half, product - 0.5 / frames, atol=1e-6)
    np.testing.assert_array_equal(product, other)


# IVC: the front door by its formula.


@pytest.fixture
def front_door() -> PCMCI:
    model = make(("ivc",), front_door="cross", front_door_videos=3)
    model.keep(draw(3, L, D), draw(3, LV, DV))
    return model


def test_v_prime_is_of_other_videos_and_not_of_this_one(front_door):
    """Of its own video all passes through the mediator: where that sees nothing, every video has
    the same answer."""
    vlm, video = draw(B, L, D), draw(B, LV, DV)
    before = front_door(vlm, video)
    with torch.no_grad():
        front_door.mediator.detect.weight.zero_()  # it sees nothing of a video
    blind = front_door(vlm, video)
    torch.testing.assert_close(blind, blind[:1].expand_as(blind))
    assert not torch.allclose(before, before[:1].expand_as(before), atol=1e-4)


def test_v_prime_is_the_mean_over_the_kept_videos(front_door):
    vlm, video = draw(B, L, D), draw(B, LV, DV)
    ivc = front_door.stages["ivc"]
    tokens, kept = front_door.video_in(video), front_door.video_in(front_door.bank)
    mediator, _ = front_door.mediator(tokens, one_label=True)
    each = [
        conditional_transform(mediator, ivc.relations(one[None]), ivc.w_q, ivc.w_k) for one in kept
    ]
    v_star = ivc.norm(ivc.mixer(mediator, torch.stack(each).mean(0)))
    text = front_door.text_in(front_door.text)[None]
    torch.testing.assert_close(front_door(vlm, video), front_door.decoder(text, v_star))


def test_in_training_they_are_those_that_were_drawn_from_the_batch(front_door):
    vlm, video = draw(B, L, D), draw(B, LV, DV)
    which = draw_others(B, 3, torch.Generator().manual_seed(0))
    drawn = front_door.opinions(vlm, video, None, {"others": which})[:, 0]
    for b in range(B):
        front_door.bank = video[which[b]]
        torch.testing.assert_close(front_door(vlm, video)[b], drawn[b])


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_others_are_never_oneself_but_where_one_is_alone(batch):
    which = draw_others(batch, 50, torch.Generator().manual_seed(0))
    assert which.shape == (batch, 50)
    assert ((which >= 0) & (which < batch)).all()
    assert (which == torch.arange(batch)[:, None]).any() == (batch == 1)
    assert len(which[0].unique()) == max(1, batch - 1)


def test_with_no_other_video_the_mediator_is_all_there_is():
    model = make(("ivc",), front_door="cross", front_door_videos=0)
    assert model.keeps == 0
    assert not any("relations" in name or ".w_" in name for name, _ in model.named_parameters())
    vlm, video = draw(B, L, D), draw(B, LV, DV)
    ivc = model.stages["ivc"]
    mediator, _ = model.mediator(model.video_in(video), one_label=True)
    v_star = ivc.norm(ivc.mixer(mediator, torch.zeros_like(mediator)))
    text = model.text_in(model.text)[None]
    torch.testing.assert_close(model(vlm, video), model.decoder(text, v_star))


@pytest.mark.parametrize("labels", ["activity", "steps"])
def test_the_posteriors_learn_from_the_mediators_own_loss_alone(labels):
    model = make(("ivc",), labels, front_door="cross", front_door_videos=2)
    target = torch.arange(B) if labels == "activity" else torch.rand(B, N).double().round()
    draws = model.draw(B, torch.Generator())
    opinions = model.opinions(draw(B, L, D), draw(B, LV, DV), None, draws)
    answer, alone = (loss_function(x, target) for x in opinions.unbind(1))
    torch.testing.assert_close(model.loss(opinions, target), answer + alone)
    detect, others = model.mediator.detect.weight, model.stages["ivc"].w_q
    for loss, stranger in ((answer, detect), (alone, others)):
        (gradient,) = torch.autograd.grad(loss, stranger, retain_graph=True)
        assert (gradient == 0).all()
    model.loss(opinions, target).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


def test_a_mediator_lies_between_absent_and_present():
    mediator = Mediator(D, N).double()
    certain = 1000 * torch.eye(N, dtype=torch.float64)[0]
    with torch.no_grad():
        mediator.detect.weight.zero_()
        mediator.detect.bias.copy_(2 * certain - 1000)
    m, alone = mediator(draw(B, LV, D), one_label=False)
    expected = torch.cat([mediator.present[:1], mediator.absent[1:]])
    torch.testing.assert_close(m, expected.expand_as(m))
    assert (alone.argmax(1) == 0).all()


@pytest.mark.parametrize("videos", [0, 3])
def test_a_run_keeps_its_videos_and_says_how_good_the_mediator_is(store, tmp_path, videos):
    run = train_heads(
        store, "ivc", out=tmp_path, front_door="cross", front_door_videos=videos, **QUICK
    )
    for labels, part in run.predictions.labels.items():
        assert part.voices == ("mediator",)
        assert np.isnan(part.disagreement).all()
        report = run.heads[labels]["voices"]["test"]
        assert 0 <= report["voices"]["mediator"] <= 1
        assert "curve" not in report
        assert 0 <= run.heads[labels]["purity"]["test"] <= 1
    if videos:
        kept = load_run(run.path).models()["activity"].bank.numpy()
        train = store.read("video", np.flatnonzero(np.array(store.splits) == "train"))[:, 0]
        for one in kept:
            assert (train.astype(np.float32) == one).all((1, 2)).sum() == 1
    rows = np.flatnonzero(np.array(store.splits) == "test")
    vlm, video = (store.read(name, rows)[:, 0] for name in ("vlm", "video"))
    said = load_run(run.path).ask(vlm, video)["steps"].said
    expected = 1 / (1 + np.exp(-run.predictions.labels["steps"].said.astype(np.float64)))
    np.testing.assert_allclose(said, expected, rtol=1e-4, atol=1e-5)


def test_more_videos_than_there_are_cannot_be_kept(store, tmp_path):
    with pytest.raises(PcmciError, match="1000 training videos are to be kept, and activity has"):
        train_heads(store, "ivc", out=tmp_path, front_door="cross", front_door_videos=1000, **QUICK)


# A mediator's purity.


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_mediator_that_says_the_labels_and_no_more_is_pure(rng):
    labels = np.eye(4)[rng.integers(0, 4, 400)]
    persistent = labels @ rng.normal(size=(4, 12)) + rng.normal(size=(400, 12))
    assert purity(labels, persistent, labels) == pytest.approx(1, abs=0.02)
    assert purity(rng.random((400, 3)), persistent, labels) == pytest.approx(1, abs=0.02)


def test_one_that_gives_the_looks_away_is_not(rng):
    labels = np.eye(4)[rng.integers(0, 4, 400)]
    looks = rng.normal(size=(400, 3))
    persistent = looks @ rng.normal(size=(3, 12)) + labels @ rng.normal(size=(4, 12))
    assert purity(looks, persistent, labels) == pytest.approx(0, abs=0.05)
    some = purity(np.hstack([labels, looks[:, :1]]), persistent, labels)
    assert 0.1 < some < 0.9


def test_of_too_few_videos_or_of_alike_ones_it_is_not_known(rng):
    assert purity(rng.random((9, 2)), rng.random((9, 3)), np.ones((9, 1))) is None
    assert purity(rng.random((20, 2)), np.ones((20, 3)), np.ones((20, 1))) is None


# ICI: the order of labels.


def test_the_order_of_labels_is_what_pairs_of_frames_say():
    posterior = draw(B, L, N).softmax(-1)
    expected = torch.zeros(B, N, N, dtype=torch.float64)
    pairs = [(a, b) for a in range(L) for b in range(a + 1, L)]
    for a, b in pairs:
        outer = posterior[:, a, :, None] * posterior[:, b, None, :]
        expected += (outer - outer.mT) / len(pairs)
    torch.testing.assert_close(precedence(posterior), expected)


def test_it_is_antisymmetric_and_turns_round_with_the_video():
    posterior = draw(B, L, N).softmax(-1)
    a = precedence(posterior)
    torch.testing.assert_close(a, -a.mT)
    torch.testing.assert_close(precedence(posterior.flip(1)), -a)
    assert (precedence(posterior[:, :1]) == 0).all()
    one_after_the_other = torch.eye(N, dtype=torch.float64)[None, [0, 0, 2]]
    assert precedence(one_after_the_other)[0, 0, 2] == pytest.approx(2 / 3)


def test_without_it_ici_is_the_same_for_all_videos_and_with_it_each_has_its_own():
    vlm, video = draw(B, L, D), draw(1, LV, DV).expand(B, -1, -1)
    plain, biased = make(("ici",)), make(("ici",), order_bias=True)
    same = plain(vlm, video)
    torch.testing.assert_close(same, same[:1].expand_as(same))
    assert not torch.allclose(biased(vlm, video)[0], biased(vlm, video)[1], atol=1e-4)
    with torch.no_grad():
        biased.stages["ici"].beta.zero_()
    plain.load_state_dict(biased.state_dict(), strict=False)
    torch.testing.assert_close(biased(vlm, video), plain(vlm, video))


def test_a_bias_is_added_to_the_scores_of_every_basis():
    model = make(("ici",), order_bias=True)
    relations, x = model.stages["ici"].relations, draw(1, N, D)
    a = frozen_precedence(model.text.float(), torch.randn(B, L, D), 0.5).double()
    bias = draw(TINY.relations, 1, 1) * a[:, None]
    found = relations(x, bias)
    query, key, value = (x @ w.T for w in relations.qkv.weight.chunk(3))
    part = D // TINY.relations
    each = []
    for k in range(TINY.relations):
        cut = (..., slice(k * part, (k + 1) * part))
        scores = query[cut] @ key[cut].mT / part**0.5 + bias[:, k]
        each.append(scores.softmax(-1) @ value[cut])
    torch.testing.assert_close(found, torch.cat(each, dim=-1) @ relations.out.weight.T)


def test_a_bias_sees_the_order_of_frames():
    model = make(("ici",), order_bias=True)
    vlm, video = draw(B, L, D), draw(B, LV, DV)
    assert not torch.allclose(model(vlm, video), model(vlm.flip(1), video), atol=1e-4)


# Off they are not there, and on they can be stacked.


@pytest.mark.parametrize(
    ("order", "values"),
    [
        (("ich",), {"transport_refine": "contrast", "transport_gamma": 0.5}),
        (("ici", "ich"), {"transport_refine": "contrast"}),
        (("ivc",), {"front_door": "cross", "front_door_videos": 3}),
        (("ich", "ivc"), {"front_door": "cross", "front_door_videos": 0}),
        (("ici", "ivc"), {"order_bias": True, "front_door": "cross", "swap": 0.5, "dropout": 0.0}),
    ],
    ids=lambda part: "+".join(part),
)
def test_stacked_runs_are_what_they_are_alone(store, tmp_path, order, values):
    recipes = [recipe(order, seed, **values) for seed in range(2)]
    together = make_runs(store, recipes, tmp_path / "together", CPU)
    (alone,) = make_runs(store, [recipes[1]], tmp_path / "alone", CPU)
    for name, part in alone.predictions.labels.items():
        other = together[1].predictions.labels[name]
        np.testing.assert_allclose(other.logits, part.logits, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(other.said, part.said, rtol=1e-3, atol=1e-4)


def test_what_is_off_has_no_weights_and_no_draws():
    model = make(("ich", "ici", "ivc"))
    names = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    for part in ("mediator", "bank", "beta", "positions"):
        assert not any(part in name for name in names)
    assert model.draw(B, torch.Generator()) == {}
    assert (model.voices, model.keeps, model.settles) == ((), 0, False)
