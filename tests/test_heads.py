"""Every head does what the rest of the house asks of one, whatever it is inside."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synthetic import made_up_store, names, small_store, small_table

from pcmci.cache.store import open_store
from pcmci.errors import UsageError
from pcmci.heads.ablation.ablate import ablate
from pcmci.heads.ablation.grid import parse_heads
from pcmci.heads.catalogue import DEFAULT, HEADS, configure, owners
from pcmci.heads.head import loss_function
from pcmci.heads.scoring.scores import softmax
from pcmci.heads.training.fit import build_model
from pcmci.heads.training.recipe import Recipe
from pcmci.heads.training.run import load_run, make_runs, train_heads
from pcmci.report.ablation import write_report

CPU = torch.device("cpu")
QUICK = {"epochs": 2, "batch_size": 16, "eval_every": 1}
SMALL = {
    "relations": 4, "decoder_heads": 4, "feedforward": 24, "hidden": 8, "bank": 3, "queries": 4,
}  # fmt: skip
"""Of the heads that have such."""
N, D, DV, L, B = 5, 16, 24, 6, 7
TRAINED = [name for name in HEADS if name != "zero-shot"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with open_store(small_store(tmp_path_factory.mktemp("s") / "small.h5", views=2)) as opened:
        yield opened


def small(*heads: str) -> dict:
    """The settings that make heads small."""
    return {name: value for name, value in SMALL.items() if set(heads) & set(owners(name))}


def recipe(head: str, **values) -> Recipe:
    order = ("ich",) if head == DEFAULT else ()
    labels = ("activity", "steps")
    return Recipe(
        *configure(order, labels, {**QUICK, **small(head), **values}, head), "fp32", "cpu"
    )


def build(head: str, labels: str = "activity", seed: int = 0, **values):
    rng = np.random.default_rng(0)
    text = rng.standard_normal((N, D), dtype=np.float32)
    return build_model(recipe(head, **values).model, text, DV, seed, labels)


def batch(head, seed: int = 0):
    """vlm, video and weights, as `head` wants them."""
    rng = torch.Generator().manual_seed(seed)
    vlm, video = (torch.randn(B, L, width, generator=rng) for width in (D, DV))
    weights = None
    if head.config.frozen_transport if hasattr(head, "config") else False:
        weights = torch.rand(B, N, L, generator=rng).softmax(-1)
    return vlm, video, weights


@pytest.mark.parametrize("name", HEADS)
def test_logits_are_one_a_label_and_follow_the_videos(name):
    head = build(name).eval()
    vlm, video, weights = batch(head)
    with torch.no_grad():
        logits = head(vlm, video, weights)
        turned = head(*(None if x is None else x.flip(0) for x in (vlm, video, weights)))
    assert logits.shape == (B, N)
    torch.testing.assert_close(turned.flip(0), logits)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_looks_at_what_it_wants_alone(name):
    head = build(name).eval()
    features = dict(zip(("vlm", "video"), batch(head)[:2], strict=True))
    nothing = {n: x if n in head.wants else torch.empty(B, 0) for n, x in features.items()}
    weights = batch(head)[2]
    with torch.no_grad():
        torch.testing.assert_close(
            head(**nothing, weights=weights), head(**features, weights=weights)
        )


@pytest.mark.parametrize("name", TRAINED)
def test_the_same_seed_gives_the_same_weights_and_another_others(name):
    first, again, other = build(name), build(name), build(name, seed=1)
    for (key, one), two in zip(
        first.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), key
    pairs = zip(first.parameters(), other.parameters(), strict=True)
    assert any(not torch.equal(one, two) for one, two in pairs)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("labels", ["activity", "steps"])
def test_every_weight_learns(name, labels):
    head = build(name, labels).train()
    with torch.no_grad():  # what begins closed lets nothing through yet
        for key, parameter in head.named_parameters():
            if key.endswith("gate"):
                parameter.fill_(0.5)
    vlm, video, weights = batch(head)
    target = torch.arange(B) % N
    target = target if labels == "activity" else F.one_hot(target, N).float()
    draws = head.draw(B, torch.Generator().manual_seed(0))
    head.loss(head.opinions(vlm, video, weights, draws), target).backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_drawn_comes_from_its_generator_alone(name):
    head = build(name, **({"dropout": 0.5} if name == "linear" else {})).train()
    drawn = [head.draw(B, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert drawn[0]
    for key, value in drawn[0].items():
        assert torch.equal(value, drawn[1][key])
        assert not torch.equal(value, drawn[2][key])
    vlm, video, weights = batch(head)
    with torch.no_grad():
        first, second = (head(vlm, video, weights, draws) for draws in drawn[1:])
        torch.testing.assert_close(head(vlm, video, weights, drawn[0]), first)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("name", TRAINED)
def test_stacked_runs_are_what_they_are_alone(store, tmp_path, name):
    recipes = [recipe(name, seed=0), recipe(name, seed=1, lr=3e-3)]
    together = make_runs(store, recipes, tmp_path / "together", CPU)
    for one, stacked in zip(recipes, together, strict=True):
        (alone,) = make_runs(store, [one], tmp_path / "alone", CPU)
        for labels, part in alone.predictions.labels.items():
            found = stacked.predictions.labels[labels].logits
            np.testing.assert_allclose(found, part.logits, rtol=1e-3, atol=1e-4)
        assert stacked.path.name == alone.path.name


@pytest.mark.parametrize("name", HEADS)
def test_a_run_is_named_read_back_and_predicts_as_it_was_scored(store, tmp_path, name):
    options = {**QUICK, **small(name), "out": tmp_path, "progress": False}
    order = ("ich",) if name == DEFAULT else None
    run = train_heads(store, order, head=name, **options)
    assert ("ich" if name == DEFAULT else name) in run.path.name.split("_")
    again = train_heads(store, order, head=name, **options)
    assert again.reused
    assert again.path == run.path
    scored = run.predictions
    rows = np.flatnonzero(np.isin(store.ids, scored.ids))
    features = (store.read(array, rows, view=0) for array in ("vlm", "video"))
    found = load_run(run.path).predict(*features)["activity"]
    expected = softmax(scored.labels["activity"].logits)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_a_streamed_head_learns_too(store, tmp_path, name):
    (run,) = make_runs(store, [recipe(name)], tmp_path, CPU, memory=1)
    assert {facts["features"] for facts in run.heads.values()} == {"streamed"}


def test_zero_shot_trains_nothing_and_says_so(store, tmp_path):
    run = train_heads(store, head="zero-shot", out=tmp_path, progress=False)
    for facts in run.heads.values():
        assert facts["trained parameters"] == 0
        assert facts["chosen by"] == "nothing to train"
        assert facts["loss"] == []
    part = run.predictions.labels["activity"]
    rows = np.flatnonzero(np.isin(store.ids, run.predictions.ids))
    frames = store.read("vlm", rows, view=0).astype(np.float32)
    frames /= np.linalg.norm(frames, axis=-1, keepdims=True)
    text = store.text("activity")
    text = text / np.linalg.norm(text, axis=-1, keepdims=True)
    np.testing.assert_allclose(part.logits, (frames @ text.T).mean(1) / 0.05, rtol=1e-3, atol=1e-4)
    steps, text = run.predictions.labels["steps"], store.text("steps")
    text = text / np.linalg.norm(text, axis=-1, keepdims=True)
    np.testing.assert_allclose(steps.logits, (frames @ text.T).max(1) / 0.05, rtol=1e-3, atol=1e-4)


def test_losses_are_the_common_ones():
    logits = torch.randn(B, N)
    target = torch.arange(B) % N
    head = build("linear")
    assert torch.equal(head.loss(logits, target), F.cross_entropy(logits, target))
    several = F.one_hot(target, N).float()
    assert torch.equal(
        loss_function(logits, several), F.binary_cross_entropy_with_logits(logits, several)
    )


# Sweeps.


@pytest.mark.parametrize(
    ("text", "heads", "without"),
    [
        ("all", tuple(HEADS), False),
        ("pcmci,none", ("pcmci",), True),
        (" MLP , linear", ("mlp", "linear"), False),
    ],
)
def test_heads_of_a_sweep(text, heads, without):
    assert parse_heads(text) == (heads, without)


@pytest.mark.parametrize(
    ("text", "says"), [("mpl", "did you mean 'mlp'"), ("mlp,mlp", "twice"), ("", "there are")]
)
def test_what_are_no_heads(text, says):
    with pytest.raises(UsageError, match=f"--heads.*{says}"):
        parse_heads(text)


@pytest.fixture(scope="module")
def swept(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("swept")
    return ablate(
        store, "ich", 2, heads="pcmci,none,mlp,zero-shot", reference="mlp", out=out / "runs",
        results=out / "ablations", resamples=20, workers=1, progress=False, **QUICK,
        **small(DEFAULT, "mlp"),
    )  # fmt: skip


def test_rows_are_heads_and_orders(swept):
    assert [(r["head"], r["order"]) for r in swept.rows[::2]] == [
        ("pcmci", "none"), ("pcmci", "ich"), ("mlp", ""), ("zero-shot", ""),
    ]  # fmt: skip
    assert {r["variant"] for r in swept.summary if r["reference"]} == {"mlp"}
    by_name = {r["variant"]: r for r in swept.summary if r["score"] == "Acc"}
    assert by_name["zero-shot"]["trained parameters"] == 0
    assert by_name["mlp"]["trained parameters"] > 0
    assert json.dumps(swept.summary, allow_nan=False)


def test_the_page_says_head_and_order(swept):
    text = write_report(swept.path).read_text()
    for words in (">head<", ">mlp<", ">zero-shot<", ">pcmci<"):
        assert words in text


def test_a_setting_reaches_the_heads_that_have_it_and_is_refused_where_none_does(store, tmp_path):
    options = {"out": tmp_path, "workers": 1, "progress": False, **QUICK}
    with pytest.raises(UsageError, match="hidden is a setting of mlp and not of linear"):
        ablate(store, "ich", 1, heads="linear", hidden=4, **options)
    found = ablate(
        store, "none", 1, heads="linear,mlp", grid={"hidden": (4, 8)}, resamples=0,
        results=tmp_path, **options,
    )  # fmt: skip
    assert [r["variant"] for r in found.rows] == ["linear", "mlp hidden=4", "mlp hidden=8"]


# Several stores.


@pytest.fixture
def two_stores(tmp_path):
    paths = [
        small_store(tmp_path / f"{name}.zarr", encoder=name, seed=seed)
        for seed, name in enumerate(("x3d-m", "vit-base"))
    ]
    with open_store(paths[0]) as one, open_store(paths[1]) as two:
        yield one, two


def test_stores_are_rows_named_by_what_differs(two_stores, tmp_path):
    options = {
        "out": tmp_path / "runs", "results": tmp_path, "workers": 1, "progress": False,
        **QUICK, **small(DEFAULT),
    }  # fmt: skip
    found = ablate(two_stores, "none", 1, resamples=20, **options)
    assert [r["variant"] for r in found.rows] == ["none @ x3d-m", "none @ vit-base"]
    assert {r["store"] for r in found.rows} == {str(store.path) for store in two_stores}
    assert len({r["run"] for r in found.rows}) == 2
    alone = ablate(two_stores[1], "none", 1, resamples=0, **options)
    assert alone.trained == 0  # runs belong to their own store
    second = [r for r in found.summary if r["variant"] == "none @ vit-base" and not r["reference"]]
    assert second
    assert all(r["difference"] is not None for r in second if r["seeds"])
    page = write_report(found.path).read_text()
    assert ">store<" in page
    for store in two_stores:  # where it came from: each, not the first alone
        name = store.spec.video.name
        assert f"{name}: {name}, weights" in page
        assert f"{name}: {store.path} (fingerprint {store.fingerprint[:12]}" in page
    (lone,) = {
        line for line in write_report(alone.path).read_text().splitlines() if "weights" in line
    }
    assert "vit-base: vit-base" not in lone


def test_stores_that_cannot_be_compared_say_why(two_stores, tmp_path):
    other = small_store(tmp_path / "other.zarr", encoder="x3d-m")
    with open_store(other) as same, pytest.raises(UsageError, match="differ in neither"):
        ablate((two_stores[0], same), "none", 1, out=tmp_path)
    fewer = made_up_store(
        tmp_path / "fewer.zarr", "small", names("activity", 3), names("step", 5),
        small_table(n=56), frames=6, width=16, video_width=24, encoder="vit-base",
    )  # fmt: skip
    says = r"cannot be compared: the second has 0 videos more and 4 fewer \(v56, v57, v58\)"
    with open_store(fewer) as less, pytest.raises(UsageError, match=says):
        ablate((two_stores[0], less), "none", 1, out=tmp_path)
