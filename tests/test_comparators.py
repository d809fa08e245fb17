"""Heads to compare with: what each can see, what each learns, and that a stack changes nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import small_store
from torch import Tensor

from pcmci.cache.store import open_store
from pcmci.device import autocast
from pcmci.errors import UsageError
from pcmci.heads.ablation.ablate import ablate
from pcmci.heads.catalogue import HEADS, configure, shown_name
from pcmci.heads.comparators.config import UPDATES
from pcmci.heads.comparators.frames import frame_by_frame
from pcmci.heads.comparators.modulator import Modulator
from pcmci.heads.comparators.state_space import DiagonalS4, convolve, kernel
from pcmci.heads.comparators.timeception import SCALES, Layer, shuffle
from pcmci.heads.head import Draws, Head
from pcmci.heads.method.attention import attention
from pcmci.heads.training.fit import build_model, fit, predict_logits
from pcmci.heads.training.run import load_run, train_heads
from pcmci.heads.training.stack import Stack

CPU = torch.device("cpu")
B, N, L, LV, D, DV = 5, 4, 7, 5, 16, 24
REMEMBERING = {"bank": 3, "queries": 3, "decoder_heads": 4, "feedforward": 24}
SMALL: dict[str, dict[str, Any]] = {
    "temporal": {"decoder_heads": 4, "feedforward": 24},
    "timeception": {"groups": 4, "layers": 2},
    "vis4mer": {"states": 8, "levels": 2},
    "memory-bank": REMEMBERING,
    "two-stream": REMEMBERING,
}
"""Settings small enough for a test, of every head that is after a published one."""

PARAMETERS = {
    "temporal": 4.6,
    "timeception": 2.2,
    "vis4mer": 3.6,
    "memory-bank": 4.7,
    "two-stream": 8.5,
}
"""Millions, for Breakfast's activities with ViT-B/16 and TimeSformer: within a fifth."""


def test_every_head_after_a_published_one_is_tried_here() -> None:
    assert set(SMALL) >= {name for name, entry in HEADS.items() if entry.after}


def build(head: str, seed: int = 0, **values: Any) -> Head:
    config, _ = configure((), (), {**SMALL[head], **values}, head)
    text = np.random.default_rng(1).normal(size=(N, D)).astype(np.float32)
    return build_model(config, text, DV, seed)


def features(*leading: int, frames: int = L, tokens: int = LV) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(*leading, frames, D, generator=generator),
        torch.randn(*leading, tokens, DV, generator=generator),
    )


def drawn(model: Head, seed: int = 0) -> Draws:
    return model.draw(B, torch.Generator().manual_seed(seed))


def variants() -> list[Any]:
    """Every head, and the settings of it that make another forward pass."""
    found: list[tuple[str, dict[str, Any]]] = [(head, {}) for head in SMALL]
    found += [("temporal", {"positions": "learned"}), ("timeception", {"scales": "dilations"})]
    found += [("memory-bank", {"update": update}) for update in UPDATES[1:]]
    found += [("memory-bank", {"detach": False, "blocks": 3})]
    found += [("two-stream", {"short": "fifo", "long": "fifo"})]
    found += [("two-stream", {"short": "weighted", "modulate": False})]
    found += [("two-stream", {"meet": False, "detach": False})]
    return [
        pytest.param(head, values, id=" ".join([head, *map(str, values.values())]))
        for head, values in found
    ]


each = pytest.mark.parametrize(("head", "values"), variants())


# Stacks.


@each
def test_a_stack_is_its_models_one_by_one(head: str, values: dict[str, Any]) -> None:
    """Logits, gradients and what a head keeps of a step, in training and its dropout."""
    models = [build(head, seed, **values) for seed in range(3)]
    alone = copy.deepcopy(models)
    vlm, video = features(3, B)
    draws = [drawn(model, seed) for seed, model in enumerate(models)]
    stack = Stack(models, CPU)
    together = {name: torch.stack([one[name] for one in draws]) for name in draws[0]}
    out = stack.opinions(vlm, video, None, together)
    stack.backward(out.square().mean((1, 2)))
    for run, (model, stacked) in enumerate(zip(alone, models, strict=True)):
        logits = model.train()(vlm[run], video[run], None, draws[run])
        torch.testing.assert_close(out[run], logits, rtol=1e-5, atol=1e-6)
        logits.square().mean().backward()
        for (name, mine), theirs in zip(
            model.named_parameters(), stacked.parameters(), strict=True
        ):
            torch.testing.assert_close(theirs.grad, mine.grad, rtol=1e-4, atol=1e-6, msg=name)
        for mine, theirs in zip(model.buffers(), stacked.buffers(), strict=True):
            torch.testing.assert_close(theirs, mine)
    assert not torch.allclose(out[0], out[1], atol=1e-2)


@pytest.mark.parametrize("head", SMALL)
def test_it_runs_in_bf16(head: str) -> None:
    model = build(head).eval()
    with torch.no_grad():
        exact = model(*features(B))
        with autocast(CPU, "bf16"):
            rounded = model(*features(B)).float()
    assert (rounded - exact).abs().mean() < 0.1 * exact.std()


# Random numbers.


@each
def test_all_its_randomness_is_drawn(head: str, values: dict[str, Any]) -> None:
    model = build(head, **values).train()
    before = torch.get_rng_state()
    one, same, other, none = (
        model(*features(B), None, draws)
        for draws in (drawn(model), drawn(model), drawn(model, 1), None)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, same)
    assert not torch.allclose(one, other, atol=1e-4)
    assert not torch.allclose(one, none, atol=1e-4)


@pytest.mark.parametrize("head", SMALL)
def test_without_dropout_nothing_is_drawn(head: str) -> None:
    assert drawn(build(head, dropout=0.0)) == {}


# What a head can see.


@each
def test_the_order_of_frames_matters(head: str, values: dict[str, Any]) -> None:
    model = build(head, **values).eval()
    for name, parameter in model.named_parameters():
        if name == "positions.table":  # learned positions, before any is
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    vlm, video = features(B, tokens=L)
    back = model(vlm.flip(1), video.flip(1))
    assert not torch.allclose(model(vlm, video), back, atol=1e-3)


@each
def test_videos_do_not_see_each_other(head: str, values: dict[str, Any]) -> None:
    model = build(head, **values).eval()
    vlm, video = features(B)
    together = model(vlm, video)
    for place in range(B):
        part = slice(place, place + 1)
        torch.testing.assert_close(model(vlm[part], video[part]), together[part])


@pytest.mark.parametrize("tokens", [1, LV, L, 2 * L, 10])
@pytest.mark.parametrize("head", SMALL)
def test_the_encoders_may_have_other_numbers_of_tokens(head: str, tokens: int) -> None:
    assert build(head).eval()(*features(B, tokens=tokens)).shape == (B, N)


@pytest.mark.parametrize("frames", [1, 2, 3, 16])
@pytest.mark.parametrize("head", SMALL)
def test_videos_may_be_of_any_length(head: str, frames: int) -> None:
    assert build(head).eval()(*features(B, frames=frames)).isfinite().all()


# Learning.


@each
def test_gradients_reach_whatever_is_trained(head: str, values: dict[str, Any]) -> None:
    model = build(head, **values).train()
    with torch.no_grad():  # a gate that begins at 0 closes the way to what is behind it
        for name, parameter in model.named_parameters():
            if name.endswith("gate"):
                parameter.fill_(0.5)
    model(*features(B), None, drawn(model)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("head", SMALL)
def test_its_size_is_of_the_order_of_the_papers_head(head: str) -> None:
    config, _ = configure((), (), {}, head)
    with torch.device("meta"):
        model = build_model(config, np.zeros((10, 512), np.float32), 768, 0)
    assert model.trained_parameters() / 1e6 == pytest.approx(PARAMETERS[head], rel=0.2)


@pytest.mark.parametrize("labels", ["activity", "steps"])
@pytest.mark.parametrize("head", SMALL)
def test_a_separable_problem_is_learned(
    problem: Any, head: str, labels: str, settings: Callable[..., Any]
) -> None:
    config, train = settings(head)
    model = build_model(config, problem.text, problem.features.video.shape[-1], 0, labels)
    history = fit(model, problem.features, np.arange(20), problem.targets(labels), train)
    chance = math.log(problem.text.shape[0]) if labels == "activity" else math.log(2)
    assert history.loss[-1] < chance / 3
    held_out = np.arange(20, 26)
    logits = torch.from_numpy(predict_logits(model, problem.features, held_out, 8))
    if labels == "activity":
        assert torch.equal(logits.argmax(1), problem.activity[held_out])
    else:
        assert torch.equal(logits > 0, problem.steps[held_out] == 1)


@pytest.fixture
def problem() -> Any:
    from test_training import make_problem

    return make_problem(frames=4)


@pytest.fixture
def settings() -> Callable[..., Any]:
    def of(head: str) -> Any:
        values = {"epochs": 30, "batch_size": 10, "lr": 5e-3, "eval_every": 30}
        values |= {"inner": 16, "bank": 2} if is_remembering(head) else {}
        return configure((), ("activity",), {**SMALL[head], **values}, head)

    return of


# Runs.


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with open_store(small_store(tmp_path_factory.mktemp("s") / "small.h5")) as opened:
        yield opened


@pytest.mark.parametrize("head", SMALL)
def test_a_run_is_read_back(head: str, store: Any, tmp_path: Any, pcmci: Any) -> None:
    flags = {name.replace("_", "-"): value for name, value in SMALL[head].items()}
    asked = [part for name, value in flags.items() for part in (f"--{name}", value)]
    answer = pcmci(
        "train-heads", "--head", head, "--features", store.path, "--out", tmp_path,
        "--labels", "activity", "--epochs", 1, "--json", *asked,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    run = load_run(answer.json["run"])
    model = run.models()["activity"]
    facts = run.heads["activity"]
    assert facts["trained parameters"] == model.trained_parameters() > 0
    assert torch.equal(model.text, torch.from_numpy(store.text("activity")))
    rows = np.flatnonzero(np.array(store.splits) == "test")
    vlm, video = (store.read(name, rows, view=0).astype(np.float32) for name in ("vlm", "video"))
    logits = model(torch.from_numpy(vlm), torch.from_numpy(video)).detach().numpy()
    np.testing.assert_allclose(
        run.predictions.labels["activity"].logits, logits, rtol=1e-4, atol=1e-5
    )
    assert run.described == f"head {shown_name(head)}"
    if HEADS[head].after:
        assert "(after " in run.described


def test_heads_are_listed_under_names_that_say_whose_idea_they_are(pcmci: Any) -> None:
    listed = pcmci("heads").out
    for name, entry in HEADS.items():
        line = next(line for line in listed.splitlines() if line.startswith(f"{name} "))
        assert line.endswith(f"(after {entry.after}; head only)") == bool(entry.after)
    assert pcmci("heads", "--json").json["memory-bank"]["shown"] == (
        "memory bank (after MA-LMM; head only)"
    )


# Transformers over time.


def test_without_positions_one_layer_does_not_see_order() -> None:
    model = build("temporal", positions="none").eval()
    vlm, video = features(B, tokens=L)
    shuffled = torch.randperm(L, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(vlm[:, shuffled], video[:, shuffled]), model(vlm, video))


# Convolutions over time.


@pytest.mark.parametrize(("width", "groups"), [(16, 4), (32, 8), (512, 8), (1024, 8)])
@pytest.mark.parametrize("scales", SCALES)
def test_a_layer_halves_the_frames_and_widens(width: int, groups: int, scales: str) -> None:
    layer = Layer(width, groups, scales).eval()
    assert layer.width_out == pytest.approx(1.25 * width, abs=5 * groups)
    assert layer.width_out % groups == 0
    for frames, half in ((1, 1), (2, 1), (5, 3), (16, 8)):
        assert layer(torch.zeros(2, width, frames)).shape == (2, layer.width_out, half)


def test_its_widths_are_the_papers() -> None:
    """1,024 channels of I3D become 2,480 in four layers, as in the original."""
    width = 1024
    for _ in range(4):
        width = Layer(width, 8, "kernels").width_out
    assert width == 2480


def test_a_shuffle_is_a_permutation_that_mixes_the_groups() -> None:
    groups, each, frames = 4, 5, 3
    x = torch.arange(groups * each * frames).reshape(1, -1, frames)
    shuffled = shuffle(x, groups)
    assert sorted(shuffled.flatten().tolist()) == x.flatten().tolist()
    assert torch.equal(shuffle(shuffled, each), x)
    came_from = shuffled[0, :, 0].div(each * frames, rounding_mode="floor")
    assert came_from.tolist() == list(range(groups)) * each


@pytest.mark.parametrize("scales", SCALES)
def test_a_layer_sees_as_far_as_its_scales(scales: str) -> None:
    """Of 32 frames the 16th changes those within 3, and of these pairs become one."""
    layer = Layer(16, 4, scales).eval()
    x = torch.randn(1, 16, 32, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[..., 16] = x[..., 16].flip(-1)
    with torch.no_grad():
        changed = (layer(x) != layer(other)).any(1)[0].nonzero().flatten()
    assert changed.min() >= 13 // 2
    assert changed.max() <= 19 // 2
    assert len(changed) > 1


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(UsageError, match="groups 3 does not divide the 32 channels"):
        build("timeception", groups=3)


def test_too_few_frames_for_so_many_layers_are_refused(store: Any, tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="layers 4 leave the last one of a video's 6 frames"):
        train_heads(store, head="timeception", out=tmp_path, layers=4, progress=False)
    assert not list(tmp_path.iterdir())


# State spaces.


def state_space() -> tuple[DiagonalS4, Tensor]:
    layer = DiagonalS4(6, 8).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator).double()
    return layer, torch.randn(2, 6, 13, generator=generator, dtype=torch.float64)


def test_the_convolution_is_the_recurrence() -> None:
    """x_l = exp(Delta A) x_{l-1} + (exp(Delta A) - 1) / A u_l and y_l = 2 Re C x_l, by a loop."""
    layer, u = state_space()
    step, decay = layer.log_step.exp(), layer.log_decay.exp()
    y = convolve(u, kernel(step, decay, layer.frequency, layer.output, 13))
    a = torch.complex(-decay, layer.frequency)
    turn = (a * step[:, None]).exp()
    state = torch.zeros(2, 6, 4, dtype=torch.complex128)
    for place in range(13):
        state = turn * state + (turn - 1) / a * u[..., place, None]
        expected = 2 * (torch.view_as_complex(layer.output) * state).sum(-1).real
        torch.testing.assert_close(y[..., place], expected)


def test_a_convolution_by_fft_does_not_wrap_around() -> None:
    u, k = (torch.randn(n, 6, 13).double() for n in (2, 1))
    naive = torch.zeros_like(u)
    for at in range(13):
        for before in range(at + 1):
            naive[..., at] += k[0, :, at - before] * u[..., before]
    torch.testing.assert_close(convolve(u, k[0]), naive)


def test_a_state_space_looks_back_only() -> None:
    layer = DiagonalS4(6, 8)
    x = torch.randn(2, 13, 6, generator=torch.Generator().manual_seed(0))
    later = x.clone()
    later[:, 7:] = 0
    torch.testing.assert_close(layer(x)[:, :7], layer(later)[:, :7], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(layer(x)[:, 7:], layer(later)[:, 7:], atol=1e-2)


# Memories.


def is_remembering(head: str) -> bool:
    return "bank" in SMALL[head]


remembering = pytest.mark.parametrize("head", [head for head in SMALL if is_remembering(head)])


@remembering
def test_a_memory_of_all_frames_is_refused(head: str, store: Any, tmp_path: Any) -> None:
    for bank in (5, 6, 10):
        refusal = f"bank {bank} keeps all of a video's 6 frames, which is no memory: at most 4"
        with pytest.raises(UsageError, match=refusal):
            train_heads(store, head=head, out=tmp_path, bank=bank, progress=False)
    config, _ = configure((), (), {"bank": 4}, head)
    config.check_frames(6)
    assert not list(tmp_path.iterdir())


@remembering
def test_a_sweep_refuses_it_before_anything_is_trained(
    head: str, store: Any, tmp_path: Any
) -> None:
    folders = {"out": tmp_path / "runs", "results": tmp_path / "tables"}
    with pytest.raises(UsageError, match="bank 5 keeps all of a video's 6 frames"):
        ablate(store, "none", 1, heads=f"pcmci,{head}", grid={"bank": (4, 5)}, **folders)
    assert not list(tmp_path.iterdir())


@remembering
def test_one_block_is_refused(head: str) -> None:
    with pytest.raises(UsageError, match="blocks 1 must be 2 or more: in the first, queries have"):
        configure((), (), {"blocks": 1}, head)


@remembering
def test_a_width_that_attention_does_not_divide_is_refused(head: str) -> None:
    with pytest.raises(UsageError, match="decoder-heads 4 does not divide the inner width 6"):
        build(head, inner=6)


@pytest.mark.parametrize("update", UPDATES)
def test_what_is_forgotten_does_not_matter(update: str) -> None:
    """First in, first out with M = 2 has no trace of the first of seven frames: of frames it holds
    two, of queries two that held two; the others have a trace of everything."""
    model = build("memory-bank", update=update, bank=2).eval()
    vlm, video = features(B, tokens=L)
    other = vlm.clone()
    other[:, 0] = vlm[:, 0].flip(-1)
    same = torch.allclose(model(vlm, video), model(other, video), atol=1e-6)
    assert same == (update == "fifo")


def test_without_a_full_memory_all_updates_but_the_mean_are_one() -> None:
    vlm, video = features(B, frames=4)
    logits = {u: build("memory-bank", update=u).eval()(vlm, video) for u in UPDATES}
    assert torch.equal(logits["weighted"], logits["merge"])
    assert torch.equal(logits["weighted"], logits["fifo"])
    assert not torch.allclose(logits["weighted"], logits["mean"], atol=1e-3)


@pytest.mark.parametrize("blocks", [2, 3])
def test_the_first_blocks_past_would_change_nothing(blocks: int) -> None:
    """Copies of the learned queries, which attention weighs as if they were there once."""
    model: Any = build("memory-bank", blocks=blocks).eval()
    queries = model.queries.queries[None]
    copies = queries.repeat(1, 4, 1)
    among = model.queries.among[0]
    torch.testing.assert_close(among(queries, copies), among(queries, queries))


def test_a_detached_memory_changes_the_gradient_alone() -> None:
    heads: Any = [build("memory-bank", detach=detach).train() for detach in (True, False)]
    detached, attached = heads
    one, other = detached(*features(B)), attached(*features(B))
    torch.testing.assert_close(one, other)
    for logits in (one, other):
        logits.square().mean().backward()
    gradients = [next(model.queries.look.parameters()).grad for model in (detached, attached)]
    assert not torch.allclose(*gradients, rtol=1e-2)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("head", ["memory-bank", "two-stream"])
def test_keys_and_values_that_are_kept_are_those_of_the_entries(head: str, update: str) -> None:
    """Where gradients flow everywhere they are computed anew from the entries of a memory."""
    updates = {"update": update} if head == "memory-bank" else {"long": update, "short": update}
    model = build(head, bank=3, detach=False, **updates).eval()
    vlm, video = features(B, tokens=L)
    anew = model(vlm, video)
    with torch.no_grad():
        kept = model(vlm, video)
    torch.testing.assert_close(kept, anew)


def test_the_texts_come_in_by_the_gate_alone() -> None:
    """At its start, 0, the modulator knows nothing of them."""
    vlm, video = features(B)
    model: Any = build("two-stream").eval()
    frames = model.positions(frame_by_frame(vlm, video))
    text = model.text_in(model.text)
    others = text.flip(0) * 2
    assert torch.equal(model.walk(frames, text), model.walk(frames, others))
    with torch.no_grad():
        for modulator in model.modulators:
            modulator.gate.fill_(0.5)
    assert not torch.allclose(model.walk(frames, text), model.walk(frames, others), atol=1e-3)


def test_the_order_of_labels_is_none_to_the_modulator() -> None:
    modulator = Modulator(8, D)
    torch.nn.init.constant_(modulator.gate, 0.5)
    frames, text = torch.randn(B, L, 8), torch.randn(N, D)
    torch.testing.assert_close(modulator(frames, text), modulator(frames, text.flip(0)))


def test_the_published_modulator_would_be_void_with_one_token_a_frame() -> None:
    """Attention to one key is that key's value, whatever asks: the reason for the reversed one."""
    frame, width = torch.randn(B, 1, 8), 8
    value = torch.nn.Linear(width, width)
    for text in (torch.randn(1, N, width), torch.randn(1, N, width)):
        asked = attention(text.expand(B, -1, -1), frame, value(frame), 2)
        torch.testing.assert_close(asked, value(frame).expand(-1, N, -1))


def test_where_the_streams_do_not_meet_both_are_read() -> None:
    vlm, video = features(B)
    for meet, tokens in ((True, 3), (False, 6)):
        model: Any = build("two-stream", meet=meet).eval()
        frames = model.positions(frame_by_frame(vlm, video))
        assert model.walk(frames, model.text_in(model.text)).shape == (B, tokens, D // 2)


# A video as one sequence of frames.


@pytest.mark.parametrize("tokens", [1, 4, 8, 16])
def test_a_token_stands_where_its_frame_is(tokens: int) -> None:
    """Tokens that say their place in the video say it of the frame that they come to."""
    frames, video_width = 8, 3
    place = (torch.arange(tokens) + 0.5) / tokens
    video = torch.stack([place, 0 * place, -place], dim=-1)[None]
    both = frame_by_frame(torch.randn(1, frames, D), video)
    assert both.shape == (1, frames, D + video_width)
    pooled = torch.nn.functional.adaptive_avg_pool1d(video.mT, frames).mT[0, :, 0]
    expected = (torch.arange(frames) + 0.5) / frames
    assert (pooled - expected).abs().max() <= max(0.5 / tokens, 0.5 / frames)
    if tokens >= frames:
        torch.testing.assert_close(pooled, expected)


def test_as_many_tokens_as_frames_stay_as_they_are() -> None:
    vlm, video = features(B, tokens=L)
    both = frame_by_frame(vlm, video)
    assert torch.equal(both[..., :D], torch.nn.functional.layer_norm(vlm, (D,)))
    assert torch.equal(both[..., D:], torch.nn.functional.layer_norm(video, (DV,)))
