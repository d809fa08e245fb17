"""Weights for trials: drawn from a seed, of a model's shapes, and of sizes that a trained one's
have."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

Draw = Callable[[torch.Size, torch.Generator], torch.Tensor]
"""A tensor of a shape, with a generator's numbers."""

EMBEDDINGS = ("_embed", "_embedding", "_embeddings.weight", "_token", "_tokens")
"""The last words of parameters that are added to activations, or looked up."""

EXCEPTIONS: dict[str, Draw] = {
    "running_mean": lambda shape, _: torch.zeros(shape),
    "running_var": lambda shape, _: torch.ones(shape),
    "num_batches_tracked": lambda shape, _: torch.zeros(shape, dtype=torch.int64),
}
"""Of every family, by suffix: what a BatchNorm has counted."""


def random_state(
    expected: Mapping[str, torch.Tensor], seed: int, exceptions: Mapping[str, Draw] | None = None
) -> dict[str, torch.Tensor]:
    """A state of the expected names and shapes from a generator of its own.

    Matrices are uniform with variance 1 / fan-in, so that activations keep their size at any width;
    embeddings have standard deviation 0.02; norms are 1, biases 0.
    exceptions: of a family, how to draw a parameter by the end of its name (`A_log`); they come
    before `EXCEPTIONS`, and the first that fits is taken.
    """
    generator = torch.Generator().manual_seed(seed)
    table = {**(exceptions or {}), **EXCEPTIONS}

    def drawn(key: str, shape: torch.Size) -> torch.Tensor:
        for suffix, draw in table.items():
            if key.endswith(suffix):
                return draw(shape, generator)
        if key.endswith(".bias"):
            return torch.zeros(shape)
        if len(shape) == 1:
            return torch.ones(shape)
        std = 0.02 if key.endswith(EMBEDDINGS) else shape[1:].numel() ** -0.5
        return torch.empty(shape).uniform_(-(3**0.5) * std, 3**0.5 * std, generator=generator)

    return {key: drawn(key, expected[key].shape) for key in sorted(expected)}
