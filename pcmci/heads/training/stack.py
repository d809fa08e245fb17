"""Many runs as one model with a leading dimension.

Runs that differ only in their seed and in numbers (rates, dropout, lambda where it is not baked
into kept plans) do the same work on tensors of the same shapes. A stack does it once for all of
them: one call where there were S, which is what small models and GPUs spend their time on.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from pcmci.heads.method.model import PCMCI
from pcmci.heads.method.vmap_rules import stacked


class Stack:
    """S models that are trained together.

    models: the S models; their parameters and buffers become parts of the stack's, so that each
    can be asked, saved and optimised as if it were alone.
    """

    def __init__(self, models: Sequence[PCMCI], device: torch.device) -> None:
        self.models = [model.to(device).train() for model in models]
        if len(models) == 1:  # nothing to map over
            return
        self._parameters, self._buffers = stack_module_state(self.models)
        self._template = copy.deepcopy(self.models[0]).to("meta")
        for s, model in enumerate(self.models):
            for name, parameter in model.named_parameters():
                parameter.data = self._parameters[name].detach()[s]
            for name, buffer in model.named_buffers():
                buffer.data = self._buffers[name][s]

    def logits(
        self, vlm: Tensor, video: Tensor, weights: Tensor | None, dropout: Tensor | None
    ) -> Tensor:
        """[S, B, N]; the arguments of `PCMCI.forward` with the runs [S, ...] in front."""
        if len(self.models) == 1:
            alone = (None if x is None else x[0] for x in (vlm, video, weights, dropout))
            return self.models[0](*alone)[None]

        def one(
            parameters: dict[str, Tensor], buffers: dict[str, Tensor],
            vlm: Tensor, video: Tensor, weights: Tensor | None, dropout: Tensor | None,
        ) -> Tensor:  # fmt: skip
            inputs = (vlm, video, weights, dropout)
            return functional_call(self._template, (parameters, buffers), inputs)

        dims = (0, 0, 0, 0, *(None if x is None else 0 for x in (weights, dropout)))
        with stacked():
            mapped = vmap(one, in_dims=dims)
            return mapped(self._parameters, self._buffers, vlm, video, weights, dropout)

    def backward(self, losses: Tensor) -> None:
        """Give every model's parameters their gradients. losses: [S], each of its own run."""
        if len(self.models) == 1:
            self.models[0].zero_grad(set_to_none=True)
            losses.sum().backward()
            return
        gradients = torch.autograd.grad(losses.sum(), list(self._parameters.values()))
        for name, gradient in zip(self._parameters, gradients, strict=True):
            # contiguous: the fused optimiser walks through memory, whatever the strides say
            for model, own in zip(self.models, gradient.contiguous(), strict=True):
                model.get_parameter(name).grad = own
