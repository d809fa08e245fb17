"""What heads may look at: views of both encoders, places in the video, and swapped means."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from pcmci.heads.config import ORDERS, POSITIONS, VIEWS, ModelConfig, TransportConfig, order_name
from pcmci.heads.method import ich
from pcmci.heads.method.model import PCMCI
from pcmci.heads.method.positions import FRAMES, Positions, interpolated, places, sinusoidal
from pcmci.heads.method.streams import centred, view
from pcmci.heads.method.swap import draw_swap, swap, swapped

B, N, L, LV, D, DV = 3, 5, 4, 6, 16, 20
TINY = ModelConfig(
    transport=TransportConfig(temperature=0.5),
    relations=4,
    decoder_heads=4,
    feedforward=24,
    dropout=0.0,
)
all_orders = pytest.mark.parametrize("order", ORDERS, ids=order_name)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def make(order: tuple[str, ...], **changes: object) -> PCMCI:
    config = dataclasses.replace(TINY, order=order, **changes)  # type: ignore[arg-type]
    model = PCMCI(config, draw(N, D), DV).double()
    for parameter in model.parameters():  # a table of places begins at 0
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


# Views.


def test_the_four_views_are_both_encoders_and_what_changes_in_them() -> None:
    vlm, video = draw(B, L, D), draw(B, LV, DV)
    assert view("v", vlm, video) is video
    assert view("p", vlm, video) is vlm
    torch.testing.assert_close(view("vc", vlm, video), video - video.mean(1, keepdim=True))
    torch.testing.assert_close(view("pc", vlm, video), vlm - vlm.mean(1, keepdim=True))
    assert list(VIEWS) == ["v", "vc", "p", "pc"]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_what_stands_in_every_frame_passes_with_a_gain_of_one_minus_the_share(share) -> None:
    tokens, persistent = draw(B, LV, D), draw(B, 1, D)
    passed = centred(tokens + persistent, share) - centred(tokens, share)
    torch.testing.assert_close(passed, ((1 - share) * persistent).expand_as(passed))


@all_orders
def test_a_centred_head_does_not_see_what_stands_in_every_frame(order) -> None:
    """Given the weights: S is asked of the frames as they are."""
    vlm, video, weights = draw(B, L, D), draw(B, LV, DV), draw(B, N, L).softmax(-1)
    moved = vlm + draw(B, 1, D), video + draw(B, 1, DV)
    for share, same in ((1.0, True), (0.5, False)):
        model = make(order, centre=share, transport=dataclasses.replace(
            TINY.transport, source="frozen"))  # fmt: skip
        before, after = model(vlm, video, weights), model(*moved, weights)
        assert torch.allclose(before, after, atol=1e-9) == same


# Places.


def test_encoders_with_other_token_counts_agree_on_a_place() -> None:
    sixteen, eight = places(16), places(8)
    torch.testing.assert_close(eight, sixteen.unflatten(0, (8, 2)).mean(1))
    assert sixteen[0] == 0.5
    assert places(1) == FRAMES / 2
    for n in (1, 5, 16, 64):
        torch.testing.assert_close(places(n), FRAMES - places(n).flip(0))


def test_a_learned_position_is_a_row_at_its_place_and_between_two_of_them_their_mean() -> None:
    table = draw(FRAMES, D)
    torch.testing.assert_close(interpolated(table, places(FRAMES)), table)
    pairs = table.unflatten(0, (FRAMES // 2, 2)).mean(1)
    torch.testing.assert_close(interpolated(table, places(FRAMES // 2)), pairs)
    ends = interpolated(table, torch.tensor([0.0, float(FRAMES)]))
    torch.testing.assert_close(ends, table[[0, -1]])


@pytest.mark.parametrize("width", [1, 5, 16])
def test_sinusoidal_positions_are_of_one_size_and_all_different(width) -> None:
    found = sinusoidal(places(64), width)
    assert found.shape == (64, width)
    assert len(found.unique(dim=0)) == 64
    if width % 2 == 0:
        torch.testing.assert_close(found.square().sum(1), torch.full((64,), width / 2))


def test_a_learned_position_begins_as_none() -> None:
    tokens = draw(B, LV, D)
    assert torch.equal(Positions("learned", D).double()(tokens), tokens)
    assert Positions("none", D)(tokens) is tokens
    assert not list(Positions("sinusoidal", D).parameters())


@pytest.mark.parametrize("positions", POSITIONS)
@all_orders
def test_a_head_sees_the_order_of_frames_where_they_have_places_and_only_there(
    order, positions
) -> None:
    model = make(order, positions=positions)
    vlm, video = draw(B, L, D), draw(B, LV, DV)
    shuffled = vlm[:, torch.randperm(L)], video[:, [3, 1, 0, 5, 2, 4]]
    same = torch.allclose(model(vlm, video), model(*shuffled), atol=1e-6)
    assert same == (positions == "none")


@pytest.mark.parametrize("change", [{"positions": "sinusoidal"}, {"centre": 0.7}, {"swap": 1.0}])
def test_s_is_asked_of_the_frames_as_they_are(change, monkeypatch) -> None:
    model, asked = make(("ici", "ich"), **change), []
    solve = ich.alignment

    def spy(text: Tensor, frames: Tensor, *rest: object, **options: object) -> object:
        asked.append(frames)
        return solve(text, frames, *rest, **options)

    monkeypatch.setattr(ich, "alignment", spy)
    vlm, video = draw(B, L, D), draw(B, LV, DV)
    model(vlm, video, None, model.draw(B, torch.Generator()))
    torch.testing.assert_close(asked[0], model.frames_in(vlm))


# Swaps.


def test_a_swapped_video_keeps_what_changes_and_has_anothers_mean() -> None:
    tokens, partner = draw(B, LV, D), torch.tensor([1, 2, 0])
    changed = swapped(tokens, partner, torch.ones(B))
    torch.testing.assert_close(centred(changed), centred(tokens))
    torch.testing.assert_close(changed.mean(1), tokens.mean(1)[partner])
    kept = swapped(tokens, partner, torch.tensor([0.0, 1.0, 0.0]))
    assert torch.equal(kept[[0, 2]], tokens[[0, 2]])
    torch.testing.assert_close(kept[1], changed[1])


def test_without_a_draw_nothing_is_swapped() -> None:
    vlm, video, generator = draw(B, L, D), draw(B, LV, DV), torch.Generator()
    assert draw_swap(B, 0.0, generator) == {}
    for draws in (None, {}, draw_swap(B, 0.0, generator)):
        assert all(a is b for a, b in zip(swap(vlm, video, draws), (vlm, video), strict=True))
    model = make(("ich",), swap=0.5)
    plain = make(("ich",))
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model(vlm, video), plain(vlm, video))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_other_video_is_another_one_and_each_is_as_likely(batch) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_swap(batch, 0.25, generator) for _ in range(2000)]
    partners = torch.stack([d["swap partner"] for d in drawn])
    chosen = torch.stack([d["swap"] for d in drawn])
    for video in range(batch):
        times = torch.bincount(partners[..., video].flatten(), minlength=batch) / 4000
        expected = torch.full((batch,), 1 / max(1, batch - 1))
        expected[video] = 0.0 if batch > 1 else 1.0
        torch.testing.assert_close(times, expected, rtol=0, atol=0.05)
    assert chosen.mean(0) == pytest.approx(0.25, abs=0.05)
    assert (chosen[:, 0] != chosen[:, 1]).any()  # V^P and V by draws of their own
    assert draw_swap(batch, 1.0, generator)["swap"].all()


def test_the_draws_of_dropout_stay_where_a_swap_is_drawn_too() -> None:
    alone, with_swap = (make((), dropout=0.5, swap=p) for p in (0.0, 0.5))
    first, second = (m.draw(B, torch.Generator().manual_seed(3)) for m in (alone, with_swap))
    assert torch.equal(first["dropout"], second["dropout"])
