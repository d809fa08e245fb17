"""What `torch.vmap` cannot batch by itself, or only in a slow loop, and how a stack does it.

A stack (`pcmci.heads.training.stack`) maps one run's forward pass over many runs.
Inside it each run's tensors look as if they were alone; the rules here see all of them, with the
runs in front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

_stacked: ContextVar[bool] = ContextVar("stacked", default=False)

Rule = Callable[[Callable[..., Tensor], tuple[Any, ...]], Tensor]


@contextmanager
def stacked() -> Iterator[None]:
    """Inside, functions made by `with_rule` follow their rules. For use around a vmap."""
    token = _stacked.set(True)
    try:
        yield
    finally:
        _stacked.reset(token)


def with_rule(function: Callable[..., Tensor], rule: Rule) -> Callable[..., Tensor]:
    """`function` alone; under a vmap inside `stacked`, `rule(function, arguments)`.

    function: of positional tensors and constants, to one tensor. In the rule's arguments every
    tensor has the runs [S, ...] in front; what it returns has them too. Gradients flow through
    what the rule does.
    """

    class Ruled(torch.autograd.Function):
        @staticmethod
        def forward(*arguments: Any) -> Tensor:
            raise NotImplementedError("only a vmap calls this, and it goes by the rule")

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            """PyTorch asks for one."""

        @staticmethod
        def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
            fronted = tuple(
                _runs_in_front(argument, dim, info.batch_size)
                for argument, dim in zip(arguments, in_dims, strict=True)
            )
            return rule(function, fronted), 0

    def call(*arguments: Any) -> Tensor:
        if not _stacked.get():
            return function(*arguments)
        return Ruled.apply(*arguments)

    return call


def fold_runs(function: Callable[..., Tensor], arguments: tuple[Any, ...]) -> Tensor:
    """A rule for functions that treat the entries of a batch independently: S runs of B entries
    are a batch of S B."""
    runs = next(a.shape[0] for a in arguments if isinstance(a, Tensor))
    folded = (a.flatten(0, 1) if isinstance(a, Tensor) else a for a in arguments)
    return function(*folded).unflatten(0, (runs, -1))


def run_by_run(function: Callable[..., Tensor], arguments: tuple[Any, ...]) -> Tensor:
    """A rule for functions whose result for an entry depends on its company, or that read a
    number: each run by itself, so that it gives what it gives alone."""
    runs = next(a.shape[0] for a in arguments if isinstance(a, Tensor))
    return torch.stack(
        [function(*(a[s] if isinstance(a, Tensor) else a for a in arguments)) for s in range(runs)]
    )


def _runs_in_front(argument: Any, dim: int | None, runs: int) -> Any:
    if not isinstance(argument, Tensor):
        return argument
    if dim is None:
        return argument.expand(runs, *argument.shape)
    return argument.movedim(dim, 0)
