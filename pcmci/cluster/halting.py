"""How work that runs on workers is told to stop: a task asks now and then, and ends early."""

from __future__ import annotations

_halted: set[str] = set()


def halt(work: str) -> None:
    """In a worker's process: whatever it still does or will be given of this work may end."""
    _halted.add(work)


def is_halted(work: str) -> bool:
    """Whether this process was told so."""
    return work in _halted
