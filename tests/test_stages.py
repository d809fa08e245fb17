"""The stages, one by one: their pure functions against the equations of the method written as
plain loops, and what each of them leaves alone."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from pcmci.errors import UsageError
from pcmci.heads.config import ModelConfig, TransportConfig
from pcmci.heads.method.ich import ICH, proxy
from pcmci.heads.method.ici import ICI
from pcmci.heads.method.ivc import IVC, conditional_transform
from pcmci.heads.method.mixing import Mixer, mix_features, mix_labels
from pcmci.heads.method.relations import Relations, relate
from pcmci.heads.method.streams import Streams
from pcmci.heads.method.transport import alignment

B, N, L, LV, D, K = 3, 5, 4, 6, 16, 4
PLAIN = ModelConfig(norm=False, relations=K)
"""Without the LayerNorms, a stage is its equation and nothing else."""


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture
def streams() -> Streams:
    """Before any stage: one text for all videos."""
    return Streams(
        text=draw(1, N, D),
        video=draw(B, LV, D),
        frames=draw(B, L, D),
        weights=draw(B, N, L).softmax(-1),
    )


def rewrote_only(after: Streams, before: Streams, name: str) -> bool:
    """Whether a stage handed on the very tensors it was given, but for one."""
    others = {field.name for field in dataclasses.fields(Streams)} - {name}
    return all(getattr(after, other) is getattr(before, other) for other in others)


# The equations, row by row.


def slow_relate(x: Tensor, w_qkv: Tensor, w_r: Tensor, bases: int) -> Tensor:
    """concat_k G_k(X) W_R of one video x [N, D], every pair of rows at a time."""
    part = x.shape[-1] // bases
    queries, keys, values = w_qkv.chunk(3)
    bases_out = []
    for k in range(bases):
        rows = slice(k * part, (k + 1) * part)
        q, key, v = (x @ w[rows].T for w in (queries, keys, values))
        g = torch.zeros_like(q)
        for i in range(len(x)):
            strength = torch.stack([q[i] @ key[j] / math.sqrt(part) for j in range(len(x))])
            share = strength.exp() / strength.exp().sum()
            for j in range(len(x)):
                g[i] += share[j] * v[j]
        bases_out.append(g)
    return torch.cat(bases_out, dim=1) @ w_r.T


def slow_transform(mediator: Tensor, tokens: Tensor, w_q: Tensor, w_k: Tensor) -> Tensor:
    """softmax(A(M, F)) F of one video, label by label."""
    rows = []
    for m in mediator:
        scores = torch.stack([(m @ w_q) @ (t @ w_k) for t in tokens]) / math.sqrt(len(m))
        share = scores.exp() / scores.exp().sum()
        rows.append(sum(s * t for s, t in zip(share, tokens, strict=True)))
    return torch.stack(rows)


def test_features_are_mixed_by_one_matrix_of_2d_by_d() -> None:
    x, y, w = draw(1, N, D), draw(B, N, D), draw(2 * D, D)
    side_by_side = torch.cat([x.expand(B, N, D), y], dim=2)
    torch.testing.assert_close(mix_features(x, y, w), side_by_side @ w)


def test_labels_are_mixed_by_one_matrix_of_2n_by_n() -> None:
    x, y, w = draw(1, N, D), draw(B, N, D), draw(2 * N, N)
    stacked = torch.cat([x.expand(B, N, D), y], dim=1)
    torch.testing.assert_close(mix_labels(x, y, w), torch.einsum("bmd,mn->bnd", stacked, w))


@pytest.mark.parametrize("bases", [1, 4, D])
def test_relations_are_attention_over_all_pairs_of_rows(bases: int) -> None:
    x, w_qkv, w_r = draw(B, N, D), draw(3 * D, D) / 4, draw(D, D)
    expected = torch.stack([slow_relate(video, w_qkv, w_r, bases) for video in x])
    torch.testing.assert_close(relate(x, w_qkv, w_r, bases), expected)


def test_a_relation_basis_sees_only_its_own_dimensions() -> None:
    """Basis k's maps change nothing but the k-th part of what goes into W_R."""
    x, w_qkv, identity = draw(B, N, D), draw(3 * D, D), torch.eye(D, dtype=torch.float64)
    changed = w_qkv.clone()
    changed[[0, D, 2 * D]] += 1  # one row of the first basis in queries, keys, values
    before, after = (relate(x, w, identity, K) for w in (w_qkv, changed))
    first = D // K
    assert not torch.allclose(before[..., :first], after[..., :first])
    torch.testing.assert_close(before[..., first:], after[..., first:])


def test_the_conditional_transform_is_bilinear_attention() -> None:
    m, tokens, w_q, w_k = draw(B, N, D), draw(B, LV, D), draw(D, D) / 4, draw(D, D) / 4
    expected = torch.stack([slow_transform(a, t, w_q, w_k) for a, t in zip(m, tokens, strict=True)])
    torch.testing.assert_close(conditional_transform(m, tokens, w_q, w_k), expected)


def test_a_mediator_for_all_videos_is_the_same_as_one_each() -> None:
    m, tokens, w_q, w_k = draw(1, N, D), draw(B, LV, D), draw(D, D), draw(D, D)
    each = conditional_transform(m.expand(B, N, D), tokens, w_q, w_k)
    torch.testing.assert_close(conditional_transform(m, tokens, w_q, w_k), each)


def test_a_proxy_lies_among_its_frames() -> None:
    """Rows that sum to 1: the proxy of equal frames is that frame, of one-hot weights its frame."""
    weights, frame = draw(B, N, L).softmax(-1), draw(B, 1, D)
    torch.testing.assert_close(proxy(weights, frame.expand(B, L, D)), frame.expand(B, N, D))
    frames, chosen = draw(B, L, D), torch.tensor([0, 3, 1, 1, 2])
    one_hot = torch.eye(L, dtype=torch.float64)[chosen].expand(B, N, L)
    torch.testing.assert_close(proxy(one_hot, frames), frames[:, chosen])


# Mixers.


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("axis", "size"), [("features", D), ("labels", N)])
def test_a_mixer_without_noise_is_the_identity(axis: str, size: int, residual: bool) -> None:
    mixer = Mixer(axis, size, noise=0.0, residual=residual).double()
    x, y = draw(B, N, D), draw(B, N, D)
    torch.testing.assert_close(mixer(x, y), x)


@pytest.mark.parametrize(("axis", "size"), [("features", D), ("labels", N)])
def test_a_fresh_mixer_is_the_identity_and_a_little_noise(axis: str, size: int) -> None:
    """[I; 0] + noise * random, and the residual form differs by that I alone."""

    def weight(noise: float, residual: bool = False) -> Tensor:
        torch.manual_seed(1)
        return Mixer(axis, size, noise=noise, residual=residual).weight.detach()

    start = torch.cat([torch.eye(size), torch.zeros(size, size)])
    torch.testing.assert_close(weight(0.0), start)
    random = weight(0.1) - start
    assert (random != 0).all()
    torch.testing.assert_close(weight(0.2) - start, 2 * random, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weight(0.1, residual=True), random, rtol=1e-4, atol=1e-6)


def test_residual_mixing_adds_x() -> None:
    mixer = Mixer("labels", N, noise=1.0, residual=True).double()
    x, y = draw(B, N, D), draw(B, N, D)
    torch.testing.assert_close(mixer(x, y), x + mix_labels(x, y, mixer.weight))


# Stages.


def test_ich_is_its_equation_and_rewrites_the_text_alone(streams: Streams) -> None:
    stage = ICH(D, N, PLAIN, frozen=True).double()
    after = stage(streams)
    h = torch.einsum("bnl,bld->bnd", streams.weights, streams.frames)
    both = torch.cat([streams.text.expand(B, N, D), h], dim=2)
    torch.testing.assert_close(after.text, both @ stage.mixer.weight)
    assert rewrote_only(after, streams, "text")


def test_ich_on_learned_streams_aligns_them_as_they_stand(streams: Streams) -> None:
    stage = ICH(D, N, PLAIN, frozen=False).double()
    assert streams.frames is not None
    solved, _ = alignment(streams.text, streams.frames, PLAIN.transport)
    found = stage(streams).text  # the weights in the streams are others, and not looked at
    stage.frozen = True
    given = stage(dataclasses.replace(streams, weights=solved)).text
    torch.testing.assert_close(found, given)
    assert not torch.allclose(found, stage(streams).text), "no weights would matter"


@pytest.mark.parametrize("gradient", ["detach", "autodiff"])
def test_only_autodiff_lets_a_plan_teach_the_stage_before(streams: Streams, gradient: str) -> None:
    """With S~ the plan alone and all else held, the text learns through H or not at all."""
    config = dataclasses.replace(
        PLAIN,
        mixer_noise=0.0,
        transport=TransportConfig(refine="plan", gradient=gradient, temperature=1.0),
    )
    stage = ICH(D, N, config, frozen=False).double()
    with torch.no_grad():
        stage.mixer.weight.copy_(stage.mixer.weight.roll(D, 0))  # [0; I]: H alone passes
    text = streams.text.clone().requires_grad_()
    after = stage(dataclasses.replace(streams, text=text)).text
    (gradient_of_text,) = torch.autograd.grad(after.square().sum(), text)
    assert bool(gradient_of_text.any()) == (gradient == "autodiff")


def test_ici_is_its_equation_and_rewrites_the_text_alone(streams: Streams) -> None:
    stage = ICI(D, N, PLAIN).double()
    after = stage(streams)
    weights = stage.relations.qkv.weight, stage.relations.out.weight
    r = slow_relate(streams.text[0], *weights, K)
    stacked = torch.cat([streams.text[0], r])
    torch.testing.assert_close(after.text[0], stage.mixer.weight.T @ stacked)
    assert rewrote_only(after, streams, "text")


def test_ici_of_one_text_stays_one_text(streams: Streams) -> None:
    """What no video has touched is computed once, not once a video; the values are the same."""
    stage = ICI(D, N, PLAIN).double()
    one = stage(streams).text
    assert one.shape == (1, N, D)
    each = stage(dataclasses.replace(streams, text=streams.text.expand(B, N, D))).text
    torch.testing.assert_close(one.expand(B, N, D), each)


def test_ivc_is_its_equation_and_rewrites_the_video_alone(streams: Streams) -> None:
    stage = IVC(D, N, PLAIN).double()
    after = stage(streams)
    assert after.video.shape == (B, N, D)
    weights = stage.relations.qkv.weight, stage.relations.out.weight
    for video, found in zip(streams.video, after.video, strict=True):
        related = slow_relate(video, *weights, K)
        adjusted = slow_transform(streams.text[0], related, stage.w_q, stage.w_k)
        stacked = torch.cat([streams.text[0], adjusted])
        torch.testing.assert_close(found, stage.mixer.weight.T @ stacked)
    assert rewrote_only(after, streams, "video")


def test_ivc_does_not_know_the_order_of_the_tokens(streams: Streams) -> None:
    stage = IVC(D, N, PLAIN).double()
    backwards = dataclasses.replace(streams, video=streams.video.flip(1))
    torch.testing.assert_close(stage(backwards).video, stage(streams).video)


STAGES = {
    "ich": lambda config: ICH(D, N, config, frozen=True),
    "ici": lambda config: ICI(D, N, config),
    "ivc": lambda config: IVC(D, N, config),
}


def rewritten(name: str, stage: nn.Module, streams: Streams) -> Tensor:
    after = stage(streams)
    return after.video if name == "ivc" else after.text


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_normalises_what_it_wrote(name: str, streams: Streams) -> None:
    torch.manual_seed(1)
    plain = STAGES[name](PLAIN).double()
    torch.manual_seed(1)
    normed = STAGES[name](dataclasses.replace(PLAIN, norm=True)).double()
    expected = nn.functional.layer_norm(rewritten(name, plain, streams), (D,))
    torch.testing.assert_close(rewritten(name, normed, streams), expected)


@pytest.mark.parametrize(
    ("name", "learns"),
    [("ich", {"text", "frames"}), ("ici", {"text"}), ("ivc", {"text", "video"})],
)
def test_a_stage_teaches_all_it_looked_at(name: str, learns: set[str], streams: Streams) -> None:
    """IVC its mediator too; S~ of frozen embeddings is a constant."""
    stage = STAGES[name](PLAIN).double()
    inputs = {key: getattr(streams, key).clone() for key in ("text", "video", "frames")}
    for tensor in inputs.values():
        tensor.requires_grad_()
    written = rewritten(name, stage, dataclasses.replace(streams, **inputs))
    gradients = torch.autograd.grad(
        written.square().sum(), list(inputs.values()), allow_unused=True
    )
    reached = {key for key, each in zip(inputs, gradients, strict=True) if each is not None}
    assert reached == learns
    assert all(each.any() for each in gradients if each is not None)


@pytest.mark.parametrize("mixing", ["paper", "residual", "feature"])
@pytest.mark.parametrize("name", STAGES)
def test_permuted_labels_come_out_permuted_unless_labels_are_mixed(
    name: str, mixing: str, streams: Streams
) -> None:
    """Along the feature axis every label is treated alike; W_I and W_C know which is which, and
    follow only if their own rows and columns are permuted with the labels."""
    stage = STAGES[name](dataclasses.replace(PLAIN, mixing=mixing, mixer_noise=1.0)).double()
    order = torch.arange(N).roll(2)
    assert streams.weights is not None
    permuted = dataclasses.replace(
        streams, text=streams.text[:, order], weights=streams.weights[:, order]
    )
    expected = rewritten(name, stage, streams)[:, order]
    mixes_labels = name != "ich" and mixing != "feature"
    assert torch.allclose(rewritten(name, stage, permuted), expected) == (not mixes_labels)
    if mixes_labels:
        with torch.no_grad():
            both = torch.cat([order, order + N])
            stage.mixer.weight.copy_(stage.mixer.weight[both][:, order])
        torch.testing.assert_close(rewritten(name, stage, permuted), expected)


@pytest.mark.parametrize("mixing", ["paper", "residual", "feature"])
@pytest.mark.parametrize("name", STAGES)
def test_the_mixing_config_chooses_axis_and_form(name: str, mixing: str) -> None:
    mixer = STAGES[name](dataclasses.replace(PLAIN, mixing=mixing)).mixer
    size = D if name == "ich" or mixing == "feature" else N
    assert mixer.weight.shape == (2 * size, size)
    assert mixer.residual == (mixing == "residual")


def test_bases_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(UsageError, match="relations 5 does not divide the width 16"):
        Relations(D, 5)
