"""Where the work runs, and in which precision: one answer for both phases."""

from __future__ import annotations

import ctypes
import os

import torch

from pcmci.errors import UsageError


def choose_device(name: str = "auto") -> torch.device:
    """`auto`: CUDA where there is one, else the CPU. Raises UsageError for a device not there.

    Numbers too small for a float's usual form are taken for 0 from here on: sharp attention gives
    gradients of 1e-40, and a processor takes ten times as long over a product with them. Torch's
    threads do as the one that started them did, so a process has to come here before it computes.
    """
    torch.set_flush_denormal(True)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name!r}: use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name!r}: use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name!r}: this machine has no CUDA device; use cpu or auto")
    if device.index is not None and device.index >= max(torch.cuda.device_count(), 1):
        raise UsageError(f"--device {name!r}: there are {torch.cuda.device_count()} CUDA devices")
    return device


def usable_cores() -> int:
    """Of this machine, those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let the C library keep the memory of large tensors for the next ones of their size.

    glibc gives it back to the system at once and gets it anew for the next tensor, a page fault
    every 4 KiB: 5 to 8 % of an encoder's pass on a CPU, and a third of a training step with COIN's
    778 labels. The process then stays as large as it once was. Another C library stays as it is.
    """
    trim_threshold, mmap_threshold = -1, -3  # numbers of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # 0 says that it refuses so much, as some versions do. COIN's steps have tensors of 50 MB.
        mallopt(mmap_threshold, 2**30) or mallopt(mmap_threshold, 32 * 2**20)
        mallopt(trim_threshold, 2**31 - 1)


def choose_precision(name: str, device: torch.device) -> str:
    """`auto`: bf16 autocast on CUDA, fp32 on a CPU, where bf16 is several times slower."""
    if name not in ("auto", "fp32", "bf16"):
        raise UsageError(f"--precision {name!r} is none of auto, fp32, bf16")
    if name == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    return name


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a forward pass runs."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
