"""Many runs as one model with a leading dimension.

Runs that differ only in their seed and in numbers (rates, dropout, lambda where it is not baked
into kept plans) do the same work on tensors of the same shapes. A stack does it once for all of
them: one call where there were S, which is what small models and GPUs spend their time on.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from pcmci.heads.head import Draws, Head
from pcmci.heads.method.vmap_rules import stacked


class Stack:
    """S models that are trained together.

    models: the S models; their parameters and buffers become parts of the stack's, so that each
    can be asked, saved and optimised as if it were alone.
    """

    def __init__(self, models: Sequence[Head], device: torch.device) -> None:
        self.models = [model.to(device).train() for model in models]
        if len(models) == 1:  # nothing to map over
            return
        self._parameters, self._buffers = stack_module_state(self.models)
        self._template = _Opinions(copy.deepcopy(self.models[0]).to("meta"))
        for s, model in enumerate(self.models):
            for name, parameter in model.named_parameters():
                parameter.data = self._parameters[name].detach()[s]
            for name, buffer in model.named_buffers():
                buffer.data = self._buffers[name][s]

    def opinions(self, vlm: Tensor, video: Tensor, weights: Tensor | None, draws: Draws) -> Tensor:
        """[S, B, …]; the arguments of `Head.opinions` with the runs [S, ...] in front."""
        if len(self.models) == 1:
            alone = {name: x[0] for name, x in draws.items()}
            own = None if weights is None else weights[0]
            return self.models[0].opinions(vlm[0], video[0], own, alone)[None]

        def one(
            parameters: dict[str, Tensor], buffers: dict[str, Tensor],
            vlm: Tensor, video: Tensor, weights: Tensor | None, draws: Draws,
        ) -> Tensor:  # fmt: skip
            state = {f"head.{name}": x for name, x in (parameters | buffers).items()}
            return functional_call(self._template, state, (vlm, video, weights, draws))

        dims = (0, 0, 0, 0, None if weights is None else 0, dict.fromkeys(draws, 0))
        with stacked():
            mapped = vmap(one, in_dims=dims)
            return mapped(self._parameters, self._buffers, vlm, video, weights, dict(draws))

    def backward(self, losses: Tensor) -> None:
        """Give every model's parameters their gradients. losses: [S], each of its own run."""
        if len(self.models) == 1:
            self.models[0].zero_grad(set_to_none=True)
            losses.sum().backward()
            return
        trained = {name: p for name, p in self._parameters.items() if p.requires_grad}
        gradients = torch.autograd.grad(losses.sum(), list(trained.values()))
        for name, gradient in zip(trained, gradients, strict=True):
            # contiguous: the fused optimiser walks through memory, whatever the strides say
            for model, own in zip(self.models, gradient.contiguous(), strict=True):
                model.get_parameter(name).grad = own


class _Opinions(nn.Module):
    """`Head.opinions` as a forward pass, which is what can be called with other parameters."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, vlm: Tensor, video: Tensor, weights: Tensor | None, draws: Draws) -> Tensor:
        return self.head.opinions(vlm, video, weights, draws)
