"""The machine and the libraries that a measurement was made with."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

LIBRARIES = (
    "torch", "numpy", "av", "torchcodec", "decord", "open_clip_torch", "timm", "transformers",
    "POT", "zarr", "h5py", "pillow",
)  # fmt: skip


def describe() -> dict[str, Any]:
    """For the head of a table; a key is left out where the system does not tell."""
    import torch

    about = {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "vector units": ", ".join(_vector_units()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "disk of temporary files": _file_system(tempfile.gettempdir()),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "libraries": ", ".join(
            f"{name} {found}" for name in LIBRARIES if (found := _version(name))
        ),
        "pcmci": _commit(),
        "load when it began": f"{os.getloadavg()[0]:.1f}",
    }
    return {key: value for key, value in about.items() if value}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _vector_units() -> list[str]:
    text = Path("/proc/cpuinfo").read_text()
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]


def _file_system(path: str) -> str:
    home = os.path.realpath(path)
    holding = [part for part in psutil.disk_partitions(all=True) if _holds(part.mountpoint, home)]
    kind = max(holding, key=lambda part: len(part.mountpoint)).fstype if holding else "unknown"
    return f"{kind}, {shutil.disk_usage(path).free / 1e9:.0f} GB free"


def _holds(mountpoint: str, path: str) -> bool:
    return os.path.commonpath([mountpoint, path]) == mountpoint


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
