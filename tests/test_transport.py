"""Entropic optimal transport: what makes P* the plan of the equation, and S~ = f(S, P*)."""

from __future__ import annotations

import dataclasses

import ot
import pytest
import torch
from torch import Tensor

from pcmci.heads.config import TransportConfig
from pcmci.heads.method.ich import proxy
from pcmci.heads.method.transport import (
    alignment,
    log_similarity,
    marginal_error,
    refine,
    transport_plan,
)

B, N, L, D = 3, 5, 7, 16
REFINE = ("product", "plan", "similarity", "uniform")


@pytest.fixture
def embeddings() -> tuple[Tensor, Tensor]:
    """Texts [1, N, D] and frames [B, L, D] in float64."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(1, N, D, generator=generator, dtype=torch.float64)
    return text, torch.randn(B, L, D, generator=generator, dtype=torch.float64)


@pytest.fixture
def log_s(embeddings: tuple[Tensor, Tensor]) -> Tensor:
    return log_similarity(*embeddings, temperature=0.2)


def solve(log_s: Tensor, lam: float = 1.0, gradient: str = "detach") -> Tensor:
    return transport_plan(log_s, lam, 1e-13, 5000, gradient)


def objective(plan: Tensor, log_s: Tensor, lam: float) -> Tensor:
    """<P, -log S> - lam Ent(P), a number a video."""
    entropy = -(plan * plan.log()).sum((1, 2))
    return (plan * -log_s).sum((1, 2)) - lam * entropy


def test_similarity_is_the_cosine_over_the_temperature(embeddings: tuple[Tensor, Tensor]) -> None:
    text, frames = embeddings
    found = log_similarity(text, frames, temperature=0.05)
    for b in range(B):
        for n in range(N):
            for f in range(L):
                t, v = text[0, n], frames[b, f]
                assert found[b, n, f].item() == pytest.approx(
                    (t @ v / t.norm() / v.norm() / 0.05).item()
                )


@pytest.mark.parametrize("lam", [0.05, 1.0, 20.0])
def test_the_marginals_of_the_plan_are_uniform(log_s: Tensor, lam: float) -> None:
    plan = solve(log_s, lam)
    assert (plan >= 0).all()
    torch.testing.assert_close(plan.sum(2), torch.full((B, N), 1 / N, dtype=plan.dtype))
    torch.testing.assert_close(plan.sum(1), torch.full((B, L), 1 / L, dtype=plan.dtype))
    assert (marginal_error(plan) < 1e-9).all()


@pytest.mark.parametrize("lam", [0.3, 1.0, 5.0])
def test_no_other_plan_of_the_polytope_is_better(log_s: Tensor, lam: float) -> None:
    plan = solve(log_s, lam)
    least = objective(plan, log_s, lam)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        step = torch.randn(plan.shape, generator=generator, dtype=plan.dtype)
        # Centred along both axes, a step leaves every marginal as it is.
        step -= step.mean(1, keepdim=True)
        step -= step.mean(2, keepdim=True)
        size = 0.5 * (plan / step.abs()).amin((1, 2), keepdim=True)  # the plan stays positive
        moved = plan + size * step
        torch.testing.assert_close(moved.sum(2), plan.sum(2))
        torch.testing.assert_close(moved.sum(1), plan.sum(1))
        assert (objective(moved, log_s, lam) > least).all()


@pytest.mark.parametrize("lam", [0.1, 1.0])
def test_the_plan_is_that_of_a_plain_loop(log_s: Tensor, lam: float) -> None:
    batched = solve(log_s, lam)
    rows = torch.full((N,), 1 / N, dtype=log_s.dtype)
    columns = torch.full((L,), 1 / L, dtype=log_s.dtype)
    for one, plan in zip(log_s, batched, strict=True):
        loop = ot.sinkhorn(
            rows, columns, -one, lam, method="sinkhorn_log", stopThr=1e-13, numItermax=20_000
        )
        torch.testing.assert_close(plan, loop, rtol=1e-7, atol=1e-10)


def test_strong_regularisation_gives_the_uniform_plan(log_s: Tensor) -> None:
    plan = solve(log_s, lam=1e7)
    torch.testing.assert_close(plan, torch.full_like(plan, 1 / (N * L)), rtol=1e-5, atol=0)


def test_the_plan_depends_on_the_ratio_of_similarity_and_lambda(
    embeddings: tuple[Tensor, Tensor],
) -> None:
    sharp, plain = (log_similarity(*embeddings, temperature=t) for t in (0.1, 0.2))
    torch.testing.assert_close(solve(sharp, lam=1.0), solve(plain, lam=0.5))
    assert not torch.allclose(solve(sharp, lam=1.0), solve(plain, lam=1.0), rtol=0.05)


def test_what_a_whole_row_or_column_shares_does_not_move_the_plan(log_s: Tensor) -> None:
    shifted = log_s + torch.arange(N)[:, None] - 2 * torch.arange(L)
    torch.testing.assert_close(solve(shifted), solve(log_s))


def test_permuting_labels_and_frames_permutes_the_plan(log_s: Tensor) -> None:
    labels, frames = torch.arange(N).roll(2), torch.arange(L).flip(0)
    permuted = log_s[:, labels][:, :, frames]
    torch.testing.assert_close(solve(permuted), solve(log_s)[:, labels][:, :, frames])


def test_company_in_the_batch_does_not_change_a_plan(log_s: Tensor) -> None:
    """A video that is quickly solved is iterated on with the rest of its batch."""
    tolerance = 1e-9
    hard = torch.cat([log_s, 4 * log_s])
    together = transport_plan(hard, 1.0, tolerance, 5000)
    for video, plan in zip(hard, together, strict=True):
        alone = transport_plan(video[None], 1.0, tolerance, 5000)
        torch.testing.assert_close(plan[None], alone, rtol=0, atol=100 * tolerance)


def test_the_marginal_error_is_the_largest_relative_one(log_s: Tensor) -> None:
    plan = solve(log_s).clone()
    plan[1, 2] *= 1.25  # a row that is a quarter too heavy
    plan[2, :, 3] *= 0.5  # a column of half its weight
    error = marginal_error(plan)
    assert error[0] < 1e-9
    assert error[1].item() == pytest.approx(0.25)
    assert error[2].item() == pytest.approx(0.5)


def test_a_plan_that_ran_out_of_iterations_says_so(embeddings: tuple[Tensor, Tensor]) -> None:
    hurried = TransportConfig(max_iterations=1)
    _, error = alignment(*embeddings, hurried, exact=True)
    _, solved = alignment(*embeddings, TransportConfig(), exact=True)
    assert (solved < 1e-5).all()
    assert (error > 1e-3).all()


@pytest.mark.parametrize("mode", REFINE)
def test_every_row_of_the_weights_is_a_distribution(log_s: Tensor, mode: str) -> None:
    weights = refine(log_s, solve(log_s), mode)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, N, dtype=weights.dtype))


def test_the_ways_to_refine_are_their_formulas(log_s: Tensor) -> None:
    plan, s = solve(log_s), log_s.exp()
    expected = {
        "product": s * plan / (s * plan).sum(-1, keepdim=True),
        "plan": N * plan,
        "similarity": s / s.sum(-1, keepdim=True),
        "uniform": torch.full_like(s, 1 / L),
    }
    for mode, weights in expected.items():
        torch.testing.assert_close(refine(log_s, plan, mode), weights, msg=mode)


@pytest.mark.parametrize("mode", ["similarity", "uniform"])
def test_without_transport_there_is_no_error_to_report(
    embeddings: tuple[Tensor, Tensor], mode: str
) -> None:
    text, frames = embeddings
    config = TransportConfig(refine=mode)
    weights, error = alignment(text, frames, config, exact=True)
    log_s = log_similarity(text, frames, config.temperature)
    torch.testing.assert_close(weights, refine(log_s, None, mode))
    assert error.tolist() == [0.0] * B


def test_uniform_weights_make_the_proxy_the_mean_frame(embeddings: tuple[Tensor, Tensor]) -> None:
    text, frames = embeddings
    weights, _ = alignment(text, frames, TransportConfig(refine="uniform"), exact=True)
    mean = frames.mean(1, keepdim=True).expand(B, N, D)
    torch.testing.assert_close(proxy(weights, frames), mean)


@pytest.mark.parametrize("mode", REFINE)
def test_solving_in_float32_is_close_to_float64(
    embeddings: tuple[Tensor, Tensor], mode: str
) -> None:
    config = TransportConfig(refine=mode)
    exact, _ = alignment(*embeddings, config, exact=True)
    quick, _ = alignment(*embeddings, config)
    assert (exact.dtype, quick.dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(quick, exact.float(), rtol=1e-3, atol=1e-4)


def test_autocast_does_not_reach_the_transport(embeddings: tuple[Tensor, Tensor]) -> None:
    outside, _ = alignment(*embeddings, TransportConfig())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = alignment(*embeddings, TransportConfig())
    assert torch.equal(inside, outside)


def test_a_detached_plan_has_no_gradient_and_the_similarity_has(log_s: Tensor) -> None:
    learned = log_s.clone().requires_grad_()
    plan = solve(learned)
    assert not plan.requires_grad
    weights = refine(learned, plan, "product")
    (gradient,) = torch.autograd.grad(weights.square().sum(), learned)
    # The derivative with the plan as a constant.
    (expected,) = torch.autograd.grad((learned + plan.log()).softmax(-1).square().sum(), learned)
    torch.testing.assert_close(gradient, expected)
    assert not refine(learned, plan, "plan").requires_grad


def test_autodiff_goes_through_all_iterations() -> None:
    generator = torch.Generator().manual_seed(3)
    log_s = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: solve(x, gradient="autodiff"), log_s)


@pytest.mark.parametrize("gradient", ["detach", "autodiff"])
@pytest.mark.parametrize("mode", ["product", "plan"])
def test_gradients_are_finite_where_plans_underflow(
    embeddings: tuple[Tensor, Tensor], mode: str, gradient: str
) -> None:
    """A small lambda sends most entries of a float32 plan to exactly 0."""
    config = TransportConfig(
        temperature=0.05, lam=0.05, refine=mode, gradient=gradient, max_iterations=30
    )
    text = embeddings[0].float().requires_grad_()
    frames = embeddings[1].float().requires_grad_()
    weights, _ = alignment(text, frames, config)
    plan = transport_plan(log_similarity(text, frames, 0.05), 0.05, 1e-6, 30)
    assert (plan == 0).any(), "the case is not the one meant"
    loss = (weights @ frames).square().mean()
    for each in torch.autograd.grad(loss, (text, frames), allow_unused=True):
        assert each is None or each.isfinite().all()


def test_the_config_reaches_the_equation(embeddings: tuple[Tensor, Tensor]) -> None:
    """Each field that changes S~ does, by the formula."""
    text, frames = embeddings
    for change in ({"temperature": 0.5}, {"lam": 3.0}, {"refine": "plan"}):
        config = dataclasses.replace(TransportConfig(), **change)
        log_s = log_similarity(text, frames, config.temperature)
        expected = refine(log_s, solve(log_s, config.lam), config.refine)
        found, _ = alignment(text, frames, config, exact=True)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        default, _ = alignment(text, frames, TransportConfig(), exact=True)
        assert not torch.allclose(found, default, atol=1e-2)
