"""Entropic optimal transport between label texts and frames, batched over videos.

ICH, lines 7 to 9 of the paper's Algorithm 1: the similarity S, the plan P*, and the refined
weights S~ = f(S, P*). POT solves (`ot.solve_batch`, Sinkhorn, in the log domain where λ or the
temperature is small).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pcmci.heads.config import TransportConfig
from pcmci.heads.method.vmap_rules import run_by_run, with_rule

MARGINAL_ERROR = "transport marginal error"
"""The worst of all plans of a run, relative: what a run's metrics.json calls it."""


STEP_TOLERANCE = 1e-4
"""Plans inside a training step, in float32, are solved to this relative marginal error."""

LINEAR_SPAN = {torch.float64: 300.0, torch.float32: 40.0}
"""Up to so much between the least and the largest log S / lambda of a plan, Sinkhorn needs no
logarithms: its factors stay within the square root of what the type holds."""


def log_similarity(text: Tensor, frames: Tensor, temperature: float) -> Tensor:
    """log S = cos(T, V^P) / temperature.

    text: [B or 1, N, D]. frames: [B, L, D]. Returns [B, N, L].
    S = exp(cos / temperature) makes the paper's S = <T, V^P> positive, as -log S asks for.
    """
    return F.normalize(text, dim=-1) @ F.normalize(frames, dim=-1).mT / temperature


def _transport_plan(
    log_s: Tensor,
    lam: float | Tensor,
    tolerance: float,
    max_iterations: int,
    gradient: str = "detach",
) -> Tensor:
    """P* = argmin over P in U of <P, -log S> - lam Ent(P).

    log_s: [B, N, L]. tolerance: of the row sums, relative to 1/N. Returns P* [B, N, L]; rows sum to
    1/N and columns to 1/L, as far as `marginal_error` says: POT warns of nothing when it runs out
    of iterations. NaN where log S is not finite. lam: a number, or a tensor that holds one.
    """
    if not torch.isfinite(log_s).all():  # a run that diverged: no iteration would mend it
        return torch.full_like(log_s, torch.nan)
    import ot  # brings scikit-learn and networkx: who solves no plan does not wait for them

    # POT's checks and its value term need no graph unless the gradient goes through the loop.
    with torch.set_grad_enabled(gradient == "autodiff" and torch.is_grad_enabled()):
        cost = log_s.amax((1, 2), keepdim=True) - log_s
        span = float(cost.detach().amax()) / float(lam)
        solved = ot.solve_batch(
            cost,
            reg=float(lam),
            method="sinkhorn" if span < LINEAR_SPAN[cost.dtype] else "log_sinkhorn",
            max_iter=max_iterations,
            tol=tolerance / log_s.shape[-2],  # POT's is absolute
            grad=gradient,
        )
    return solved.plan


# POT iterates until the whole batch is solved: a run's plans must not depend on its company.
transport_plan = with_rule(_transport_plan, run_by_run)


def marginal_error(plan: Tensor) -> Tensor:
    """[B] how far a plan [B, N, L] is from uniform marginals: the largest relative error of any
    row sum (1/N) or column sum (1/L)."""
    _, n, length = plan.shape
    rows = (plan.sum(2) * n - 1).abs().amax(1)
    columns = (plan.sum(1) * length - 1).abs().amax(1)
    return torch.maximum(rows, columns)


def refine(log_s: Tensor, plan: Tensor | None, mode: str, gamma: float = 1.0) -> Tensor:
    """S~ = f(S, P*), each row a distribution over frames; less a share of another in `contrast`.

    log_s, plan: [B, N, L]; the plan may be None for the modes that need none. Returns [B, N, L].
    `product`: softmax(log S + log P*). `plan`: P* row-normalised. `similarity`: softmax(log S).
    `uniform`: 1/L. `contrast`: the product - gamma/L, rows that sum to 1 - gamma.
    """
    if mode == "uniform":
        return torch.full_like(log_s, 1 / log_s.shape[-1])
    if mode == "similarity":
        return log_s.softmax(-1)
    assert plan is not None  # the caller's mistake, not a user's
    if mode == "plan":
        return plan / plan.sum(-1, keepdim=True)
    # Where a float32 plan underflows to 0, log P* is -inf and its gradient NaN.
    weights = (log_s + plan.clamp_min(torch.finfo(plan.dtype).tiny).log()).softmax(-1)
    return weights - gamma / weights.shape[-1] if mode == "contrast" else weights


def needs_plan(config: TransportConfig) -> bool:
    """Whether f(S, P*) looks at P*."""
    return config.refine in ("product", "plan", "contrast")


@dataclass(frozen=True)
class Aligned:
    """Texts aligned with the frames of a batch of videos.

    log_s: log S [B, N, L]. plan: P* [B, N, L], None where f(S, P*) looks at none. weights: S~
    [B, N, L].
    """

    log_s: Tensor
    plan: Tensor | None
    weights: Tensor


def align(
    text: Tensor,
    frames: Tensor,
    config: TransportConfig,
    *,
    exact: bool = False,
    lam: Tensor | None = None,
) -> Aligned:
    """S, P* and S~ for a batch of videos.

    text: [B or 1, N, D]. frames: [B, L, D]. exact: solve in float64 to `config.tolerance` (the
    plans that are kept); otherwise in float32 to STEP_TOLERANCE (inside a training step).
    lam: instead of the config's.
    """
    with torch.autocast(text.device.type, enabled=False):
        dtype = torch.float64 if exact else torch.float32
        log_s = log_similarity(text.to(dtype), frames.to(dtype), config.temperature)
        if not needs_plan(config):
            return Aligned(log_s, None, refine(log_s, None, config.refine))
        plan = transport_plan(
            log_s,
            config.lam if lam is None else lam,
            config.tolerance if exact else max(config.tolerance, STEP_TOLERANCE),
            config.max_iterations,
            config.gradient,
        )
        return Aligned(log_s, plan, refine(log_s, plan, config.refine, config.gamma))


def alignment(
    text: Tensor,
    frames: Tensor,
    config: TransportConfig,
    *,
    exact: bool = False,
    lam: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S~ for a batch of videos, and how well its plans were solved. The arguments are those of
    `align`.

    Returns S~ [B, N, L] and the marginal error [B] (zeros where no plan is needed).
    """
    found = align(text, frames, config, exact=exact, lam=lam)
    if found.plan is None:
        return found.weights, found.log_s.new_zeros(len(found.log_s))
    return found.weights, marginal_error(found.plan.detach())
