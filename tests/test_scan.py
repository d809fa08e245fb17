"""The selective scan against the recurrence as a plain loop."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch

from pcmci.extract.encoders import scan
from pcmci.extract.encoders.scan import blocked_scan, choose_scan, kernel_scan

Inputs = tuple[torch.Tensor, ...]


def random_inputs(
    groups: int = 2,
    sequences: int = 3,
    length: int = 37,
    channels: int = 5,
    state: int = 4,
    step: float = 0.5,
) -> Inputs:
    """u, dt, A, B, C: decays of all sizes from none to all in a step."""
    generator = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    token = (groups, sequences, length)
    rates = -normal(groups, channels, state).exp() * torch.arange(1, state + 1)
    dt = step * normal(*token, channels).exp()
    return normal(*token, channels), dt, rates, normal(*token, state), normal(*token, state)


def loop(u: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    """h <- exp(dt A) h + dt B u; y = sum over the state of C h: a number at a time, in float64."""
    B, C = (x.double() for x in rest)
    u, dt, A = u.double(), dt.double(), A.double()
    y = torch.zeros_like(u)
    groups, sequences, length, channels = u.shape
    for g in range(groups):
        for n in range(sequences):
            for d in range(channels):
                h = torch.zeros(A.shape[-1], dtype=torch.float64)
                for t in range(length):
                    step = dt[g, n, t, d]
                    h = torch.exp(step * A[g, d]) * h + step * B[g, n, t] * u[g, n, t, d]
                    y[g, n, t, d] = C[g, n, t] @ h
    return y


def selective_scan_fn(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor
) -> torch.Tensor:
    """What mamba_ssm's documentation says of it. u, delta: [batch, dim, length]. A: [dim, state].
    B, C: [batch, groups, state, length], each for its share of dim, in order."""
    assert all(x.is_contiguous() for x in (u, delta, A, B, C))
    share = u.shape[1] // B.shape[1]
    B, C = (x.repeat_interleave(share, dim=1) for x in (B, C))
    h = torch.zeros(*u.shape[:2], A.shape[1])
    y = []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]
        h = torch.exp(step * A) * h + step * B[..., t] * u[:, :, t, None]
        y.append((h * C[..., t]).sum(-1))
    return torch.stack(y, dim=2)


@pytest.mark.parametrize("length", [1, 63, 64, 65])
@pytest.mark.parametrize("room", [1, 10**9])
def test_the_blocks_are_the_loop(length: int, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ends of blocks at, before and after the sequence's."""
    monkeypatch.setitem(scan.BLOCK, "cpu", room)
    inputs = random_inputs(length=length, channels=3, sequences=2)
    kept = [x.clone() for x in inputs]
    y = blocked_scan(*inputs)
    torch.testing.assert_close(y.double(), loop(*inputs), rtol=1e-5, atol=1e-5)
    assert all(map(torch.equal, inputs, kept))


def test_steps_that_forget_all_and_steps_that_forget_nothing() -> None:
    """exp(dt A) from 0 to 1, where a product of decays or its inverse would leave float32."""
    for step in (1e-6, 1e3):
        inputs = random_inputs(length=20, step=step)
        y = blocked_scan(*inputs)
        assert torch.isfinite(y).all()
        torch.testing.assert_close(y.double(), loop(*inputs), rtol=1e-5, atol=step * 1e-5)


def test_neither_the_block_nor_company_changes_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = random_inputs(sequences=7, channels=13, length=50)
    u, dt, A, B, C = inputs
    together = blocked_scan(*inputs)
    for room in (1, 2**12, 10**9):
        monkeypatch.setitem(scan.BLOCK, "cpu", room)
        assert torch.equal(blocked_scan(*inputs), together)
    for n in (0, 4):
        alone = [x[:, n : n + 1] for x in (u, dt, B, C)]
        found = blocked_scan(alone[0], alone[1], A, alone[2], alone[3])
        assert torch.equal(found, together[:, n : n + 1])
    for g in range(2):
        found = blocked_scan(*(x[g : g + 1] for x in inputs))
        assert torch.equal(found, together[g : g + 1])


def test_the_library_gets_its_own_layout() -> None:
    inputs = random_inputs()
    found = kernel_scan(selective_scan_fn)(*inputs)
    torch.testing.assert_close(found, blocked_scan(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(find_spec("mamba_ssm") is not None, reason="mamba_ssm is installed")
def test_without_the_library_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert choose_scan(torch.device("cuda")) == (blocked_scan, ())
    assert capsys.readouterr().err == ""


def test_the_library_is_taken_where_it_runs_and_then_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    module: Any = ModuleType("mamba_ssm.ops.selective_scan_interface")
    for name in ("mamba_ssm", "mamba_ssm.ops", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    assert choose_scan(cuda) == (blocked_scan, ())  # of another make: there is no such function

    def broken(*inputs: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no kernel image is available for execution on the device")

    ran: list[torch.device] = []
    tried = scan._try

    def on_the_cpu(one: scan.Scan, device: torch.device) -> None:
        ran.append(device)
        tried(one, cpu)  # this machine need not have the device

    monkeypatch.setattr(scan, "_try", on_the_cpu)
    assert "mamba_ssm cannot be used: cannot import name" in capsys.readouterr().err
    module.selective_scan_fn = broken
    assert choose_scan(cuda) == (blocked_scan, ())
    assert "mamba_ssm cannot be used: no kernel image is available" in capsys.readouterr().err
    module.selective_scan_fn = selective_scan_fn
    chosen, libraries = choose_scan(cuda)
    assert chosen is not blocked_scan
    assert libraries == ("mamba_ssm",)
    assert ran == [cuda, cuda]
    assert choose_scan(cpu) == (blocked_scan, ())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu() -> None:
    inputs = random_inputs(length=200, channels=64, state=16)
    chosen, _ = choose_scan(torch.device("cuda"))
    for one in (blocked_scan, chosen):
        found = one(*(x.cuda() for x in inputs)).cpu()
        torch.testing.assert_close(found, blocked_scan(*inputs), rtol=1e-4, atol=1e-4)
