"""The head `experts`: each its own loss, one pass for all, and what they come to together."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import small_store
from torch import Tensor

from pcmci.cache.store import open_store
from pcmci.errors import PcmciError, UsageError
from pcmci.heads.catalogue import configure
from pcmci.heads.comparators.config import ExpertsConfig, parse_experts
from pcmci.heads.comparators.experts import Experts, choose_temperatures, mean, product
from pcmci.heads.config import TransportConfig
from pcmci.heads.head import loss_function
from pcmci.heads.method.decoder import Decoder
from pcmci.heads.method.model import PCMCI
from pcmci.heads.method.transport import alignment
from pcmci.heads.scoring.disagreement import disagreement
from pcmci.heads.scoring.predictions import Predictions
from pcmci.heads.scoring.scores import softmax
from pcmci.heads.training.recipe import Recipe
from pcmci.heads.training.run import load_run, make_runs, train_heads

CPU = torch.device("cpu")
B, N, L, LV, D, DV = 4, 5, 6, 6, 16, 20
TINY = ExpertsConfig(
    transport=TransportConfig(temperature=0.5),
    relations=4,
    decoder_heads=4,
    feedforward=24,
    dropout=0.0,
)
QUICK = {
    "head": "experts", "epochs": 2, "batch_size": 16, "relations": 4, "decoder_heads": 4,
    "feedforward": 24, "transport_temperature": 0.5, "eval_every": 1, "progress": False,
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


def make(labels: str = "activity", **changes: Any) -> Experts:
    head = Experts(dataclasses.replace(TINY, **changes), draw(N, D), DV).double()
    for parameter in head.parameters():  # nothing hides behind a 0 or a 1
        parameter.data += 0.05 * torch.randn_like(parameter)
    head.labels = labels
    return head


def features(length: int = L, tokens: int = LV) -> tuple[Tensor, Tensor]:
    return draw(B, length, D), draw(B, tokens, DV)


# Names.


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("v", ("v",)),
        ("v,vc,p,pc,ich", ("v", "vc", "p", "pc", "ich")),
        ("ich+ici, V", ("ich+ici", "v")),
        ("v/p/ich+ici+ivc", ("v", "p", "ich+ici+ivc")),
    ],
)
def test_experts_are_views_and_stages_in_their_order(text, names):
    assert parse_experts(text) == names
    assert make(experts_of=text).voices == names


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("v,q", "'q' is no expert; an expert is any of v, vc, p, pc, or stages"),
        ("", "'' is no expert"),
        ("v,,p", "'' is no expert"),
        ("ich+v", "'ich.v' is no expert"),
        ("ich+ich", "'ich.ich' is no expert"),
        ("v,p,v", "an expert is repeated"),
        ("none", "'none' is no expert"),
    ],
)
def test_what_is_no_expert_is_refused(text, says):
    with pytest.raises(UsageError, match=says) as caught:
        ExpertsConfig(experts_of=text)
    assert "\n" not in str(caught.value)


# One pass.


EXPERTS = "v,vc,p,pc,ich,ici+ich,ich+ici+ivc"


@pytest.mark.parametrize("experts", ["shared", "apart"])
@pytest.mark.parametrize("tokens", [LV, LV + 3], ids=["as many tokens", "more tokens"])
def test_an_expert_is_what_it_is_without_the_others(experts, tokens):
    """Whoever goes through the decoder with it, in whichever pass."""
    head = make(experts=experts, experts_of=EXPERTS)
    vlm, video = features(tokens=tokens)
    together = head.opinions(vlm, video, None, None)
    assert together.shape == (B, 7, N)
    state = head.state_dict()
    for e, name in enumerate(head.voices):
        alone = Experts(dataclasses.replace(head.config, experts_of=name), head.text, DV).double()
        reader = e if experts == "apart" else 0
        own = {"text": state["text"]}
        for module, place in (("experts", e), ("decoders", reader), ("text_in", reader)):
            start = f"{module}.{place}."
            own |= {
                f"{module}.0.{key.removeprefix(start)}": value
                for key, value in state.items()
                if key.startswith(start)
            }
        alone.load_state_dict(own)
        torch.testing.assert_close(alone.opinions(vlm, video, None, None)[:, 0], together[:, e])


def test_experts_of_one_text_and_length_share_a_pass(monkeypatch):
    head, passes = make(), []
    decode = Decoder.forward

    def count(self: Decoder, text: Tensor, tokens: Tensor, dropout: Tensor | None = None) -> Tensor:
        passes.append(len(tokens) // B)
        return decode(self, text, tokens, dropout)

    monkeypatch.setattr(Decoder, "forward", count)
    head(*features())
    assert sorted(passes) == [1, 4]


def test_the_fifth_expert_is_the_papers_first_stage():
    """Without positions and with the weights of the head `pcmci`, it is that head."""
    head = make(experts_of="ich", positions="none")
    paper = PCMCI(head.config.paper(("ich",)), head.text, DV).double()
    names = {
        "text_in.0": "text_in", "decoders.0": "decoder", "experts.0.project": "video_in",
        "experts.0.frames_in": "frames_in", "experts.0.stages": "stages",
    }  # fmt: skip
    state = {"text": head.text}
    for key, value in head.state_dict().items():
        for ours, theirs in names.items():
            if key.startswith(f"{ours}."):
                state[key.replace(ours, theirs, 1)] = value
    paper.load_state_dict(state)
    vlm, video = features()
    weights, _ = alignment(head.text[None], vlm, head.config.transport, exact=True)
    for given in (None, weights):
        torch.testing.assert_close(
            head.opinions(vlm, video, given, None)[:, 0], paper(vlm, video, given)
        )


# A loss each.


@pytest.mark.parametrize("labels", ["activity", "steps"])
@pytest.mark.parametrize("experts", ["shared", "apart"])
def test_no_expert_learns_from_anothers_loss(experts, labels):
    head = make(labels, experts=experts, experts_of=EXPERTS)
    target = torch.arange(B) if labels == "activity" else torch.rand(B, N).double().round()
    opinions = head.opinions(*features(), None, None)
    each = torch.stack([loss_function(z, target) for z in opinions.unbind(1)])
    torch.testing.assert_close(head.loss(opinions, target), each.mean())
    for e in range(len(head.voices)):
        head.zero_grad()
        each[e].backward(retain_graph=True)
        for name, parameter in head.named_parameters():
            module, place, *_ = name.split(".")
            own = int(place) == e or (module in ("decoders", "text_in") and experts == "shared")
            moved = parameter.grad is not None and bool((parameter.grad != 0).any())
            assert moved == own, name


def test_an_experts_say_in_the_answer_changes_nothing_that_it_learns():
    target = torch.arange(B)
    found = []
    for combine in ("product", "mean", "temperatures"):
        torch.manual_seed(1)
        head = make(combine=combine)
        head.loss(head.opinions(*features(), None, None), target).backward()
        found.append([p.grad.clone() for p in head.parameters()])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


# The answer.


def test_the_answer_is_the_product_of_what_the_experts_say_apart():
    z = draw(B, 3, N)
    p = z.softmax(-1).prod(1)
    torch.testing.assert_close(product(z, one_label=True).softmax(-1), p / p.sum(-1, keepdim=True))
    odds = (z.sigmoid() / (1 - z.sigmoid())).log().mean(1)
    torch.testing.assert_close(product(z, one_label=False), odds)


def test_or_it_is_the_mean_of_their_probabilities():
    z = draw(B, 3, N)
    torch.testing.assert_close(mean(z, one_label=True).exp(), z.softmax(-1).mean(1))
    torch.testing.assert_close(mean(z, one_label=False).sigmoid(), z.sigmoid().mean(1))


@pytest.mark.parametrize("combine", [product, mean])
@pytest.mark.parametrize("one_label", [True, False])
def test_one_expert_alone_is_the_answer(combine, one_label):
    z = draw(B, 1, N)
    said = combine(z, one_label=one_label)
    if one_label:
        torch.testing.assert_close(said.softmax(-1), z[:, 0].softmax(-1))
    else:
        torch.testing.assert_close(said, z[:, 0])


@pytest.mark.parametrize("labels", ["activity", "steps"])
@pytest.mark.parametrize("combine", ["product", "mean", "temperatures"])
def test_a_forward_pass_combines_what_the_experts_say(combine, labels):
    head = make(labels, combine=combine)
    vlm, video = features()
    opinions = head.opinions(vlm, video, None, None)
    if combine == "temperatures":
        head.temperature.copy_(torch.rand(5) + 0.5)
        opinions = opinions / head.temperature[:, None]
    expected = {"mean": mean}.get(combine, product)(opinions, one_label=labels == "activity")
    torch.testing.assert_close(head(vlm, video), expected)


@pytest.mark.parametrize("one_label", [True, False])
def test_temperatures_are_the_best_there_are(one_label):
    """No step away from them makes the validation videos likelier; an expert that knows nothing
    is heard less than one that knows."""
    truth = torch.arange(60) % N if one_label else (torch.rand(60, N) < 0.4).float()
    certain = 2.0 * (torch.eye(N)[truth] if one_label else 2 * truth - 1)
    said = torch.stack([certain + torch.randn(60, N), 2 * torch.randn(60, N)], dim=1)
    chosen = choose_temperatures(said, truth)

    def cost(t: Tensor) -> float:
        labels = 1 if one_label else N
        loss = loss_function(product(said / t[:, None], one_label=one_label), truth) * labels
        return float(loss + t.log().square().sum() / 120)

    assert chosen[0] < chosen[1]
    for e in range(2):
        for factor in (0.9, 1.1):
            other = chosen.clone()
            other[e] *= factor
            assert cost(other) > cost(chosen)


def test_temperatures_stay_finite_where_every_video_is_right():
    truth = torch.arange(20) % N
    said = (50 * torch.eye(N)[truth])[:, None].repeat(1, 2, 1)
    chosen = choose_temperatures(said, truth)
    assert chosen.isfinite().all()
    torch.testing.assert_close(chosen, torch.ones(2), rtol=0.05, atol=0)


# What is drawn.


def test_a_swap_leaves_the_experts_of_what_changes_alone():
    head = make(swap=1.0)
    vlm, video = features()
    plain = head.opinions(vlm, video, None, None)
    changed = head.opinions(vlm, video, None, head.draw(B, torch.Generator()))
    for e, name in enumerate(head.voices):
        same = torch.allclose(plain[:, e], changed[:, e], atol=1e-9)
        assert same == (name in ("vc", "pc")), name


def test_without_a_position_no_expert_sees_the_order_of_frames():
    vlm, video = features()
    shuffled = vlm[:, torch.randperm(L)], video[:, [3, 1, 0, 5, 2, 4]]
    for positions, same in (("none", True), ("sinusoidal", False), ("learned", False)):
        head = make(positions=positions)
        before, after = (head.opinions(*x, None, None) for x in ((vlm, video), shuffled))
        for e in range(5):
            assert torch.allclose(before[:, e], after[:, e], atol=1e-6) == same


# Runs.


def recipe(seed: int, **values: Any) -> Recipe:
    kept = {name: x for name, x in (QUICK | values).items() if name not in ("head", "progress")}
    labels = ("activity", "steps")
    return Recipe(*configure((), labels, {**kept, "seed": seed}, "experts"), "fp32", "cpu")


@pytest.mark.parametrize(
    "values",
    [
        {"swap": 0.5},
        {"experts": "apart", "experts_of": "v,pc,ici+ich", "positions": "learned"},
        {"combine": "temperatures", "validation": 0.3},
    ],
    ids=lambda values: "+".join(values),
)
def test_stacked_runs_are_what_they_are_alone(store, tmp_path, values):
    recipes = [recipe(seed, **values) for seed in range(2)]
    together = make_runs(store, recipes, tmp_path / "together", CPU)
    (alone,) = make_runs(store, [recipes[1]], tmp_path / "alone", CPU)
    for name, part in alone.predictions.labels.items():
        other = together[1].predictions.labels[name]
        np.testing.assert_allclose(other.said, part.said, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(other.logits, part.logits, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    return train_heads(store, out=tmp_path_factory.mktemp("runs"), **QUICK)


def test_a_run_keeps_what_each_expert_said(run, store):
    part = run.predictions.labels["activity"]
    assert part.voices == ("v", "vc", "p", "pc", "ich")
    assert part.said.shape == (len(run.predictions.ids), 5, 3)
    there = run.predictions.present
    combined = np.log(softmax(part.said[there])).sum(1)
    np.testing.assert_allclose(part.logits[there], combined, rtol=1e-4, atol=1e-4)
    found = disagreement(part.said, one_label=True)
    np.testing.assert_allclose(part.disagreement, found)
    steps = run.predictions.labels["steps"]
    np.testing.assert_allclose(steps.logits[there], steps.said[there].mean(1), rtol=1e-4, atol=1e-5)


def test_its_metrics_say_what_each_is_worth_and_where_they_disagree(run):
    for labels, headline in (("activity", "Acc"), ("steps", "mAP")):
        report = run.heads[labels]["voices"]["test"]
        assert report["score"] == headline
        assert list(report["voices"]) == ["v", "vc", "p", "pc", "ich"]
        assert 0 < report["disagreement"] < 1
        seen = [point["disagreement"] for point in report["curve"]]
        assert seen == sorted(seen)
        assert sum(point["videos"] for point in report["curve"]) == 20
    curve = run.heads["activity"]["voices"]["test"]["curve"]
    whole = sum(point["videos"] * point["score"] for point in curve) / 20
    assert whole == pytest.approx(run.metrics["test"]["Acc"])


def test_a_run_that_is_loaded_says_the_same_of_new_videos(run, store):
    rows = np.flatnonzero(np.array(store.splits) == "test")
    vlm, video = (store.read(name, rows)[:, 0] for name in ("vlm", "video"))
    for labels, answer in load_run(run.path).ask(vlm, video).items():
        part = run.predictions.labels[labels]
        assert answer.voices == part.voices
        np.testing.assert_allclose(answer.disagreement, part.disagreement, rtol=1e-2, atol=1e-4)
        if labels == "activity":
            np.testing.assert_allclose(answer.said.sum(-1), 1)
        np.testing.assert_allclose(
            answer.probabilities, load_run(run.path).predict(vlm, video)[labels]
        )


def test_predictions_from_before_there_were_voices_are_read(run, tmp_path):
    with np.load(run.path / "predictions.npz") as file:
        old = {
            key: value
            for key, value in file.items()
            if key.split("/")[-1] not in ("voices", "said", "disagreement")
        }
    np.savez(tmp_path / "old.npz", **old)
    read = Predictions.load(tmp_path / "old.npz")
    part = read.labels["steps"]
    assert part.voices == ()
    np.testing.assert_array_equal(part.logits, run.predictions.labels["steps"].logits)
    read.save(tmp_path / "again.npz")
    assert set(np.load(tmp_path / "again.npz")) == set(old)


def test_temperatures_are_chosen_on_validation_and_nowhere_else(store, tmp_path):
    with pytest.raises(UsageError, match=r"no.* with features and activity; --validation 0.2"):
        train_heads(store, out=tmp_path, combine="temperatures", **QUICK)
    run = train_heads(store, out=tmp_path, combine="temperatures", validation=0.3, **QUICK)
    val = run.predictions.splits == "val"
    for labels, part in run.predictions.labels.items():
        target = torch.from_numpy(part.target[val])
        target = target.long() if labels == "activity" else target.float()
        chosen = choose_temperatures(torch.from_numpy(part.said[val]), target)
        kept = list(run.heads[labels]["temperatures"].values())
        np.testing.assert_allclose(kept, chosen, rtol=1e-3)
        model = run.models()[labels]
        np.testing.assert_allclose(model.temperature, chosen, rtol=1e-3)


def test_a_run_streams_as_any_heads_does(store, tmp_path):
    resident = train_heads(store, out=tmp_path / "a", **QUICK | {"epochs": 1})
    streamed = train_heads(store, out=tmp_path / "b", memory=1, **QUICK | {"epochs": 1})
    assert streamed.heads["steps"]["features"] == "streamed"
    assert streamed.predictions.labels["steps"].said.shape == (
        resident.predictions.labels["steps"].said.shape
    )
    assert np.isfinite(streamed.predictions.labels["steps"].logits).all()


def test_widths_that_do_not_fit_are_refused(store, tmp_path):
    with pytest.raises(PcmciError, match="decoder-heads 5 does not divide the width 16"):
        train_heads(store, out=tmp_path, **QUICK | {"decoder_heads": 5})


def test_a_run_says_whose_it_is(run):
    assert run.described == "head experts"
    assert json.loads((run.path / "config.json").read_text())["head"] == "experts"
