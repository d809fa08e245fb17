"""PCMCI(order=...): every order runs and learns, and an order is what it says."""

from __future__ import annotations

import dataclasses
from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from pcmci.errors import UsageError
from pcmci.heads.config import (
    ORDERS,
    STAGES,
    ModelConfig,
    TransportConfig,
    ich_is_frozen,
    order_name,
)
from pcmci.heads.method.model import PCMCI
from pcmci.heads.method.streams import Streams
from pcmci.heads.method.transport import alignment

B, N, L, LV, D, DV = 3, 5, 4, 6, 16, 20
SOFT = TransportConfig(temperature=0.5)
"""Solved in a few iterations: random embeddings lie far apart, where a VLM's lie close together."""
TINY = ModelConfig(transport=SOFT, relations=4, decoder_heads=4, feedforward=24, dropout=0.0)
FROZEN = dataclasses.replace(SOFT, source="frozen")
all_orders = pytest.mark.parametrize("order", ORDERS, ids=order_name)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@dataclasses.dataclass(frozen=True)
class World:
    """Frozen embeddings of a batch."""

    text: Tensor
    vlm: Tensor
    video: Tensor


@pytest.fixture
def world() -> World:
    return World(draw(N, D), draw(B, L, D), draw(B, LV, DV))


def make(world: World, order: tuple[str, ...], **changes: object) -> PCMCI:
    """A model in float64, the same wherever the global seed is the same."""
    config = dataclasses.replace(TINY, order=order, **changes)  # type: ignore[arg-type]
    model = PCMCI(config, world.text, DV).double()
    for parameter in model.parameters():  # nothing hides behind a 0 or a 1
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def same_weights(model: PCMCI, source: PCMCI) -> PCMCI:
    """`model` with the weights of `source` wherever both have them."""
    theirs = source.state_dict()
    model.load_state_dict({k: theirs.get(k, v) for k, v in model.state_dict().items()})
    return model


def by_hand(model: PCMCI, world: World, *, each: bool = False) -> Tensor:
    """The logits, module by module as the method lists them, float64 throughout.

    each: with the text expanded to one a video from the beginning.
    """
    weights, _ = alignment(world.text[None], world.vlm, model.config.transport, exact=True)
    text = model.text_in(world.text)[None]
    streams = Streams(
        text=text.expand(B, N, D) if each else text,
        video=model.video_in(world.video),
        frames=model.frames_in(world.vlm) if model.frames_in is not None else None,
        weights=weights,
    )
    before = streams
    for name in model.config.order:
        streams = model.stages[name](streams)
    tokens = streams.video
    if model.config.tokens == "both":  # V and V^P; after ivc, V* and V
        other = before.video if "ivc" in model.config.order else before.frames
        assert other is not None
        tokens = torch.cat([tokens, other], dim=1)
    return model.decoder(streams.text, tokens)


@pytest.mark.parametrize("tokens", ["video", "both"])
@all_orders
def test_every_order_is_its_stages_one_after_the_other(
    world: World, order: tuple[str, ...], tokens: str
) -> None:
    model = make(world, order, tokens=tokens)
    assert tuple(model.stages) == order
    logits = model(world.vlm, world.video)
    assert logits.shape == (B, N)
    torch.testing.assert_close(logits, by_hand(model, world))


@all_orders
def test_one_text_for_all_videos_is_the_same_as_one_each(
    world: World, order: tuple[str, ...]
) -> None:
    model = make(world, order)
    torch.testing.assert_close(model(world.vlm, world.video), by_hand(model, world, each=True))


VARIANTS = {
    "default": {},
    "residual, both": {"mixing": "residual", "tokens": "both"},
    "feature, self-attention": {"mixing": "feature", "self_attention": True},
    "no norm, autodiff": {
        "norm": False,
        "transport": dataclasses.replace(SOFT, gradient="autodiff", max_iterations=20),
    },
    "frozen source": {"transport": FROZEN},
}


@pytest.mark.parametrize("variant", VARIANTS)
@all_orders
def test_everything_that_is_trained_gets_a_gradient(
    world: World, order: tuple[str, ...], variant: str
) -> None:
    """A weight without a gradient is dead: counted, stored, decayed and never learned."""
    model = make(world, order, **VARIANTS[variant])  # type: ignore[arg-type]
    video, vlm = (x.clone() for x in (world.video, world.vlm))
    model(vlm, video).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-9, name
    assert not any(x.requires_grad for x in (model.text, video, vlm))
    assert model.text.grad is None


@all_orders
def test_trained_parameters_are_counted_without_the_frozen_text(
    world: World, order: tuple[str, ...]
) -> None:
    model = make(world, order)
    in_state = sum(value.numel() for value in model.state_dict().values())
    assert model.trained_parameters() == in_state - N * D


@all_orders
def test_frozen_weights_may_be_given_or_left_to_the_model(
    world: World, order: tuple[str, ...]
) -> None:
    model = make(world, order)
    given, _ = alignment(world.text[None], world.vlm, model.config.transport, exact=True)
    left_out = model(world.vlm, world.video)
    torch.testing.assert_close(model(world.vlm, world.video, given), left_out)
    others = model(world.vlm, world.video, torch.full_like(given, 1 / L))
    assert torch.allclose(others, left_out) == (not model.wants_weights)


@all_orders
def test_a_video_does_not_depend_on_its_batch(world: World, order: tuple[str, ...]) -> None:
    model = make(world, order)
    together = model(world.vlm, world.video)
    for b in range(B):
        alone = model(world.vlm[b : b + 1], world.video[b : b + 1])
        # A learned transport stops by the worst plan of the batch.
        torch.testing.assert_close(alone[0], together[b], rtol=1e-4, atol=1e-4)


@all_orders
def test_frames_and_tokens_have_no_order(world: World, order: tuple[str, ...]) -> None:
    model = make(world, order)
    backwards = model(world.vlm.flip(1), world.video.flip(1))
    torch.testing.assert_close(backwards, model(world.vlm, world.video), rtol=1e-4, atol=1e-4)


# Orders.


def test_the_transport_is_frozen_unless_ici_rewrites_the_text_first() -> None:
    learned = {order for order in ORDERS if not ich_is_frozen(ModelConfig(order=order))}
    assert learned == {
        ("ici", "ich"),
        ("ici", "ich", "ivc"),
        ("ici", "ivc", "ich"),
        ("ivc", "ici", "ich"),
    }
    assert all(ich_is_frozen(ModelConfig(order=order, transport=FROZEN)) for order in ORDERS)


@all_orders
def test_a_model_says_what_it_looks_at(world: World, order: tuple[str, ...]) -> None:
    for tokens in ("video", "both"):
        model = make(world, order, tokens=tokens)
        assert model.wants_weights == ("ich" in order and ich_is_frozen(model.config))
        other = model(draw(B, L, D), world.video)
        looks = not torch.allclose(other, model(world.vlm, world.video))
        assert looks == model.uses_frames
        assert model.uses_frames == (model.frames_in is not None)


@pytest.mark.parametrize("stages", [("ich", "ici"), ("ich", "ivc"), ("ici", "ivc"), STAGES])
def test_the_order_of_the_same_stages_matters(world: World, stages: tuple[str, ...]) -> None:
    first = make(world, stages)
    logits = [
        same_weights(make(world, order), first)(world.vlm, world.video)
        for order in permutations(stages)
    ]
    for i, one in enumerate(logits):
        for other in logits[:i]:
            assert not torch.allclose(one, other, rtol=1e-2, atol=1e-3)


class PassThrough(nn.Module):
    def forward(self, streams: Streams) -> Streams:
        return streams


@pytest.mark.parametrize(
    ("order", "left_out"),
    [(order, stage) for order in ORDERS for stage in order],
    ids=lambda part: part if isinstance(part, str) else order_name(part),
)
def test_a_stage_left_out_changes_nothing(
    world: World, order: tuple[str, ...], left_out: str
) -> None:
    """The model without a stage is the model whose stage hands its streams on untouched."""
    # With another source, ich looks elsewhere when ici goes.
    whole = make(world, order, transport=FROZEN)
    rest = tuple(stage for stage in order if stage != left_out)
    without = same_weights(make(world, rest, transport=FROZEN), whole)
    whole.stages[left_out] = PassThrough()
    torch.testing.assert_close(without(world.vlm, world.video), whole(world.vlm, world.video))
    assert not any(left_out in name for name in without.state_dict())


@pytest.mark.parametrize("order", [o for o in ORDERS if "ivc" not in o], ids=order_name)
@pytest.mark.parametrize("mixing", ["paper", "residual", "feature"])
def test_stages_of_the_text_begin_as_the_identity(
    world: World, order: tuple[str, ...], mixing: str
) -> None:
    """All mixers at [I; 0]: the logits are those of the model without stages."""
    config = dataclasses.replace(TINY, order=order, mixing=mixing, mixer_noise=0.0, norm=False)
    model = PCMCI(config, world.text, DV).double()
    empty = PCMCI(dataclasses.replace(config, order=()), world.text, DV).double()
    expected = same_weights(empty, model)(world.vlm, world.video)
    torch.testing.assert_close(model(world.vlm, world.video), expected)


def test_the_frames_begin_as_the_vlm_gives_them(world: World) -> None:
    """The VLM's texts and frames are aligned: a random projection would undo that."""
    model = PCMCI(dataclasses.replace(TINY, order=("ich",)), world.text, DV).double()
    assert model.frames_in is not None
    expected = nn.functional.layer_norm(world.vlm, (D,))
    torch.testing.assert_close(model.frames_in(world.vlm), expected)


def test_ivc_without_noise_shows_the_decoder_its_mediator_alone(world: World) -> None:
    """V* = [M, V'] [I; 0] = M: what the video says arrives through the rest of W_C."""
    config = dataclasses.replace(TINY, order=("ivc",), mixer_noise=0.0, norm=False)
    model = PCMCI(config, world.text, DV).double()
    text = world.text.expand(B, N, D)
    torch.testing.assert_close(model(world.vlm, world.video), model.decoder(text, text))


# Labels.


@pytest.mark.parametrize("mixing", ["paper", "residual", "feature"])
@all_orders
def test_permuting_labels_permutes_logits_unless_labels_are_mixed(
    world: World, order: tuple[str, ...], mixing: str
) -> None:
    model = make(world, order, mixing=mixing)
    permutation = torch.arange(N).roll(2)
    expected = model(world.vlm, world.video)[:, permutation]
    with torch.no_grad():
        for tensor in (model.text, model.decoder.weight, model.decoder.bias):
            tensor.copy_(tensor[permutation])
    permuted = model(world.vlm, world.video)
    mixes = mixing != "feature" and ("ici" in order or "ivc" in order)
    assert torch.allclose(permuted, expected, rtol=1e-4, atol=1e-4) == (not mixes)
    if mixes:
        with torch.no_grad():
            both = torch.cat([permutation, permutation + N])
            for name in set(order) - {"ich"}:
                weight = model.stages[name].mixer.weight
                weight.copy_(weight[both][:, permutation])
        permuted = model(world.vlm, world.video)
        torch.testing.assert_close(permuted, expected, rtol=1e-4, atol=1e-4)


# Precision and state.


@all_orders
def test_bf16_autocast_is_close_to_fp32(world: World, order: tuple[str, ...]) -> None:
    model = make(world, order).float()
    vlm, video = world.vlm.float(), world.video.float()
    plain = model(vlm, video)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(vlm, video)
    mixed.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert (mixed - plain).norm() < 0.05 * plain.norm()
    assert not torch.equal(mixed.float(), plain), "autocast did nothing"


def test_the_state_holds_the_text(world: World) -> None:
    """A trained model needs no store: its state says all, to another model of the same shape."""
    model = make(world, STAGES)
    other = PCMCI(model.config, torch.zeros(N, D), DV).double()
    other.load_state_dict(model.state_dict())
    expected = model(world.vlm, world.video)
    assert torch.equal(other(world.vlm, world.video), expected)
    world.text.zero_()  # a model keeps its own copy
    assert torch.equal(model(world.vlm, world.video), expected)


@pytest.mark.parametrize("order", [("ici",), ("ivc",)])
def test_bases_that_do_not_divide_the_width_are_refused(
    world: World, order: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError, match="relations 3 does not divide the width 16"):
        make(world, order, relations=3)
