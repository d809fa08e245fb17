"""The decoder: equality with torch's own attention, and who can see whom."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from pcmci.errors import UsageError
from pcmci.heads.config import ModelConfig
from pcmci.heads.method.attention import attention
from pcmci.heads.method.decoder import Decoder, grouped_linear

B, N, M, D, HEADS = 3, 5, 6, 16, 4
CONFIG = ModelConfig(decoder_heads=HEADS, feedforward=24, dropout=0.25)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def make(**changes: object) -> Decoder:
    decoder = Decoder(D, N, dataclasses.replace(CONFIG, **changes)).double()  # type: ignore[arg-type]
    nn.init.normal_(decoder.bias)
    return decoder


def influence(logits: Tensor, inputs: Tensor) -> Tensor:
    """[N, rows] whether logit n of the first video depends on row r of its inputs."""
    gradients = [torch.autograd.grad(logits[0, n], inputs, retain_graph=True)[0] for n in range(N)]
    return torch.stack(gradients).abs().amax(-1)[:, 0] > 1e-12


@pytest.mark.parametrize("heads", [1, 4, D])
def test_attention_is_torchs(heads: int) -> None:
    query, key, value = draw(B, N, D), draw(B, M, D), draw(B, M, D)
    reference = nn.MultiheadAttention(D, heads, bias=False, batch_first=True).double()
    with torch.no_grad():  # its projections become the identity
        reference.in_proj_weight.copy_(torch.eye(D).repeat(3, 1))
        reference.out_proj.weight.copy_(torch.eye(D))
    expected, _ = reference(query, key, value, need_weights=False)
    torch.testing.assert_close(attention(query, key, value, heads), expected)


def test_one_query_for_all_videos_is_the_same_as_one_each() -> None:
    query, tokens = draw(1, N, D), draw(B, M, D)
    decoder = make()
    torch.testing.assert_close(decoder(query, tokens), decoder(query.expand(B, N, D), tokens))


def test_the_classifier_is_one_unit_a_label() -> None:
    z, weight, bias = draw(B, N, D), draw(N, D), draw(N)
    logits = grouped_linear(z, weight, bias)
    for b in range(B):
        for n in range(N):
            torch.testing.assert_close(logits[b, n], weight[n] @ z[b, n] + bias[n])


def test_the_decoder_is_torchs_layers_one_after_the_other() -> None:
    decoder = make()
    attention = nn.MultiheadAttention(D, HEADS, batch_first=True).double()
    attention.load_state_dict(
        {
            "in_proj_weight": torch.cat([decoder.query.weight, decoder.key_value.weight]),
            "in_proj_bias": torch.cat([decoder.query.bias, decoder.key_value.bias]),
            "out_proj.weight": decoder.out.weight,
            "out_proj.bias": decoder.out.bias,
        }
    )
    text, tokens = draw(B, N, D), draw(B, M, D)
    attended, _ = attention(text, tokens, tokens, need_weights=False)
    z = nn.functional.layer_norm(text + attended, (D,))
    inner = nn.functional.gelu(z @ decoder.up.weight.T + decoder.up.bias)
    z = nn.functional.layer_norm(z + inner @ decoder.down.weight.T + decoder.down.bias, (D,))
    expected = (z * decoder.weight).sum(-1) + decoder.bias
    torch.testing.assert_close(decoder(text, tokens), expected)


def test_a_label_sees_its_own_query_and_every_token() -> None:
    text, tokens = draw(B, N, D).requires_grad_(), draw(B, M, D).requires_grad_()
    logits = make()(text, tokens)
    assert torch.equal(influence(logits, text), torch.eye(N, dtype=torch.bool))
    assert influence(logits, tokens).all()


def test_with_self_attention_a_label_sees_all_labels() -> None:
    text, tokens = draw(B, N, D).requires_grad_(), draw(B, M, D)
    assert influence(make(self_attention=True)(text, tokens), text).all()


def test_a_video_sees_only_itself() -> None:
    text, tokens = draw(B, N, D), draw(B, M, D)
    decoder = make(self_attention=True)
    alone = torch.cat([decoder(text[b : b + 1], tokens[b : b + 1]) for b in range(B)])
    torch.testing.assert_close(decoder(text, tokens), alone)


@pytest.mark.parametrize("self_attention", [False, True])
def test_permuting_labels_with_their_units_permutes_logits(self_attention: bool) -> None:
    text, tokens, order = draw(B, N, D), draw(B, M, D), torch.arange(N).roll(2)
    decoder = make(self_attention=self_attention)
    expected = decoder(text, tokens)[:, order]
    assert not torch.allclose(decoder(text[:, order], tokens), expected), "no unit of its own"
    with torch.no_grad():
        decoder.weight.copy_(decoder.weight[order])
        decoder.bias.copy_(decoder.bias[order])
    torch.testing.assert_close(decoder(text[:, order], tokens), expected)


def test_the_order_of_the_tokens_does_not_matter() -> None:
    text, tokens, decoder = draw(B, N, D), draw(B, M, D), make()
    torch.testing.assert_close(decoder(text, tokens.flip(1)), decoder(text, tokens))


def masks(decoder: Decoder, seed: int, batch: int = B) -> Tensor | None:
    return decoder.draw_dropout(batch, torch.Generator().manual_seed(seed))


def test_dropout_masks_keep_the_mean() -> None:
    drawn = masks(make(), seed=0, batch=500)
    assert drawn is not None
    assert drawn.shape == (2, 500, N, D)
    assert set(drawn.unique().tolist()) == {0.0, 1 / 0.75}
    # 80,000 draws of standard deviation 0.58: eight standard errors are 0.017.
    assert drawn.mean().item() == pytest.approx(1, abs=0.017)


def test_dropout_masks_come_from_their_generator_alone() -> None:
    decoder = make()
    first = masks(decoder, seed=5)
    torch.manual_seed(99)
    assert first is not None
    assert torch.equal(first, masks(decoder, seed=5))  # type: ignore[arg-type]
    assert not torch.equal(first, masks(decoder, seed=6))  # type: ignore[arg-type]


def test_without_dropout_nothing_is_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert make(dropout=0.0).draw_dropout(B, generator) is None
    assert torch.equal(generator.get_state(), before)


def test_a_mask_of_ones_is_no_mask() -> None:
    text, tokens, decoder = draw(B, N, D), draw(B, M, D), make()
    ones = torch.ones(2, B, N, D, dtype=torch.float64)
    torch.testing.assert_close(decoder(text, tokens, ones), decoder(text, tokens))


def test_each_mask_closes_its_branch() -> None:
    """With the first mask 0, no token is seen; with the second, no feed-forward layer."""
    decoder, text, tokens = make(), draw(B, N, D), draw(B, M, D)
    blind = torch.ones(2, B, N, D, dtype=torch.float64)
    blind[0] = 0
    torch.testing.assert_close(decoder(text, tokens, blind), decoder(text, draw(B, M, D), blind))
    shallow = torch.ones(2, B, N, D, dtype=torch.float64)
    shallow[1] = 0
    before = decoder(text, tokens, shallow)
    assert not torch.allclose(before, decoder(text, draw(B, M, D), shallow))
    nn.init.normal_(decoder.down.weight)
    torch.testing.assert_close(decoder(text, tokens, shallow), before)


def test_the_decoder_draws_nothing_by_itself() -> None:
    text, tokens, decoder = draw(B, N, D), draw(B, M, D), make(dropout=0.9)
    assert torch.equal(decoder.train()(text, tokens), decoder.eval()(text, tokens))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(UsageError, match="decoder-heads 3 does not divide the width 16"):
        make(decoder_heads=3)
