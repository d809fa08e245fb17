"""The selective scan of Mamba (Gu and Dao, arXiv 2312.00752, algorithm 2), for inference: a linear
recurrence whose decay, input and output depend on the token.

Shapes: G scans with weights of their own (here the two directions), N sequences each, L tokens,
D channels, S numbers of state a channel. Everything is float32.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

Scan = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor
]
"""u, dt, A, B, C to y, see `blocked_scan`."""

BLOCK = {"cpu": 2**19, "cuda": 2**25}
"""Numbers in a block's buffer: two of them fit the caches of a CPU; a GPU wants few launches."""

LIBRARY = "mamba_ssm"
"""The distribution whose CUDA kernel does the same in one launch."""


def blocked_scan(
    u: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor
) -> torch.Tensor:
    """h_t = exp(dt_t A) h_(t-1) + dt_t B_t u_t from h_0 = 0, and y_t = C_t h_t.

    u, dt: [G, N, L, D]. A: [G, D, S], at most 0. B, C: [G, N, L, S]. Gives [G, N, L, D].

    All that does not wait for the step before is done for a block of steps at once, in buffers that
    stay in the cache; a step is then one fused operation. There is no division and no product of
    decays, so that nothing can overflow. Each number comes from the same operations whatever the
    block: its length and the rest of the batch change no bit.
    """
    groups, sequences, length, channels = u.shape
    rates = A.transpose(1, 2)[:, None].contiguous()  # [G, 1, S, D]: vector units like long rows
    state = u.new_zeros(groups, sequences, A.shape[-1], channels)
    room = BLOCK.get(u.device.type, BLOCK["cpu"]) // max(state.numel(), 1)
    steps = min(max(room, 4), 64, max(length, 1))
    decays, states = (u.new_empty(steps, *state.shape) for _ in range(2))
    y = torch.empty_like(u)
    for start in range(0, length, steps):
        block = slice(start, start + steps)
        dt_, u_, b, c = (x[:, :, block].movedim(2, 0).contiguous() for x in (dt, u, B, C))
        decay, h = decays[: len(dt_)], states[: len(dt_)]  # [steps, G, N, S, D]
        torch.mul(dt_[..., None, :], rates, out=decay).exp_()
        torch.mul((dt_ * u_)[..., None, :], b[..., None], out=h)
        for now, kept in zip(h.unbind(), decay.unbind(), strict=True):
            state = now.addcmul_(kept, state)
        y[:, :, block] = (c[..., None, :] @ h)[..., 0, :].movedim(0, 2)
        state = state.clone()  # the next block overwrites it
    return y


def choose_scan(device: torch.device) -> tuple[Scan, tuple[str, ...]]:
    """The scan for a device, and the libraries it uses: their results differ by rounding.

    `mamba_ssm` is taken on CUDA where it can be imported and its kernel runs: it is compiled for
    one version of torch and some GPUs, and tells others in any way from ImportError to CUDA's own.
    Where it is there and cannot be used, why is told on stderr.
    """
    if device.type != "cuda":
        return blocked_scan, ()
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

        scan = kernel_scan(selective_scan_fn)
        _try(scan, device)
    except Exception as error:
        if not (isinstance(error, ModuleNotFoundError) and error.name == LIBRARY):
            reason = str(error).strip().splitlines() or [type(error).__name__]
            print(
                f"{LIBRARY} cannot be used: {reason[0]}; torch scans in its place", file=sys.stderr
            )
        return blocked_scan, ()
    return scan, (LIBRARY,)


def _try(scan: Scan, device: torch.device) -> None:
    """A scan of a few zeros; a kernel that cannot run raises."""
    token, weight, state = (1, 1, 4, 8), (1, 8, 16), (1, 1, 4, 16)
    shapes = (token, token, weight, state, state)
    y = scan(*(torch.zeros(shape, device=device) for shape in shapes))
    y.sum().item()  # it has come to its end


def kernel_scan(selective_scan_fn: Callable[..., torch.Tensor]) -> Scan:
    """A scan by `mamba_ssm`'s function, in one call.

    It takes [batch, channels, length], and channels in groups that share their B and C: the G scans
    become its groups.
    """

    def scan(
        u: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor
    ) -> torch.Tensor:
        u_, dt_ = (x.permute(1, 0, 3, 2).flatten(1, 2).contiguous() for x in (u, dt))
        b, c = (x.permute(1, 0, 3, 2).contiguous() for x in (B, C))  # [N, G, S, L]
        y = selective_scan_fn(u_, dt_, A.flatten(0, 1).contiguous(), b, c)
        return y.unflatten(1, (len(A), -1)).permute(1, 0, 3, 2)

    return scan
