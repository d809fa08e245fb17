"""What torch computes on, tried out, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pcmci.doctor.findings import Finding, gib

NVIDIA = Path("/proc/driver/nvidia/version")
"""There where the driver of a GPU is loaded."""


def compute() -> Iterator[Finding]:
    """The device that `--device auto` takes, and the precision that `--precision auto` does."""
    try:
        import torch

        from pcmci.device import choose_device, choose_precision
    except (ImportError, OSError) as error:
        says = f"torch cannot be loaded: {str(error).splitlines()[0]}: pip install -U torch"
        yield Finding("device", "fails", says)
        return
    device = choose_device("auto")
    try:
        ones = torch.ones(8, 8, device=device)
        right = float((ones @ ones).sum()) == 512
    except RuntimeError as error:
        yield Finding("device", "fails", f"{device}: {str(error).splitlines()[0]}")
        return
    if not right:
        yield Finding("device", "fails", f"{device} computes 8 x 8 ones times ones wrong")
        return
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
        room = f"{gib(free)} free of {gib(total)}, CUDA {torch.version.cuda}"
        yield Finding("device", "ok", f"cuda: {', '.join(names)}; {room}")
    elif NVIDIA.exists():
        yield Finding(
            "device",
            "fails",
            f"a GPU's driver is loaded, and torch {torch.__version__} sees no GPU (is it built for "
            "CUDA? does nvidia-smi see one?); the CPU is taken",
        )
    else:
        slow = "no GPU: encoders of full size take seconds a video"
        yield Finding("device", "ok", f"cpu, {torch.get_num_threads()} threads ({slow})")
    precision = choose_precision("auto", device)
    why = "bf16 is for CUDA" if precision == "fp32" else "--precision fp32 is there too"
    yield Finding("precision", "ok", f"{precision} ({why})")
