"""The machine: its cores, its memory, and the room where files are written."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from pcmci.doctor.findings import Finding, Verdict, gib

LITTLE_MEMORY, TOO_LITTLE_MEMORY = 4 * 2**30, 2**30
"""Bytes: both default encoders and a decoder take some three GiB."""

LITTLE_ROOM, TOO_LITTLE_ROOM = 5 * 2**30, 2**28
"""Bytes: weights of two encoders take one GiB, a benchmark's store half of one."""

CGROUP = Path("/sys/fs/cgroup")
"""Where a container says how much it may have."""


def cores() -> Finding:
    """Those that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    usable = len(affinity(0)) if affinity else os.cpu_count() or 1
    return Finding("cores", "ok", f"{usable} of {os.cpu_count()} usable")


def memory() -> Finding:
    """Of the machine, or of the container where that has less."""
    found = psutil.virtual_memory()
    free, total = found.available, found.total
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text()) - _reclaimable()
    except (OSError, ValueError):  # no container, or one without a limit
        pass
    else:
        if limit < total:
            free, total = max(0, min(free, limit - used)), limit
    says = f"{gib(free)} free of {gib(total)}"
    verdict = _verdict(free, LITTLE_MEMORY, TOO_LITTLE_MEMORY)
    if verdict != "ok":
        says += "; the default encoders need some 3 GiB"
    return Finding("memory", verdict, says)


def _reclaimable() -> int:
    """Bytes of files that a container keeps at hand and gives back when memory is asked for."""
    with contextlib.suppress(OSError, ValueError):
        lines = (CGROUP / "memory.stat").read_text().splitlines()
        found = {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
        return found.get("inactive_file", 0) + found.get("active_file", 0)
    return 0


def disks() -> Iterator[Finding]:
    """Where commands write if nothing is said, and where weights are kept."""
    yield disk("here", Path.cwd())
    yield disk("weights", weights_folder())
    yield disk("torch's", torch_folder())


def disk(name: str, folder: Path) -> Finding:
    """Whether files can be written into a folder, which may not be there yet, and how many."""
    name = f"disk {name}"
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(name, "fails", f"{folder}: cannot be written to")
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding(name, "fails", f"{folder}: {error.strerror}")
    verdict = _verdict(free, LITTLE_ROOM, TOO_LITTLE_ROOM)
    more = "" if verdict == "ok" else "; weights and stores take gigabytes"
    return Finding(name, verdict, f"{folder}: {gib(free)} free{more}")


def weights_folder() -> Path:
    """Where huggingface_hub keeps what it downloads, by its own variables."""
    if told := os.environ.get("HF_HUB_CACHE"):
        return Path(told).expanduser().absolute()
    if told := os.environ.get("HF_HOME"):
        return Path(told).expanduser().absolute() / "hub"
    return _caches() / "huggingface" / "hub"


def torch_folder() -> Path:
    """Where torch keeps what it downloads, likewise."""
    if told := os.environ.get("TORCH_HOME"):
        return Path(told).expanduser().absolute()
    return _caches() / "torch"


def _caches() -> Path:
    told = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(told).expanduser().absolute()


def _verdict(free: float, little: float, too_little: float) -> Verdict:
    return "fails" if free < too_little else "note" if free < little else "ok"
