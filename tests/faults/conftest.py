"""Faults on purpose. Each test has a short form, part of `make test`, and a long one of the same
code (`make test-faults`); what was tried is counted and shown at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from children import forkserver

from pcmci.cache.store import open_store
from pcmci.cache.upkeep.verify import verify
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets import load_dataset
from pcmci.extract.pipeline import extract

TALLY: dict[str, dict[str, int]] = {}
"""What was tried -> how it ended -> how often."""


def short_and_long(name: str, short: int, long: int):
    """A parameter that says how often: `short` in `make test`, `long` with `-m long`."""
    return pytest.mark.parametrize(
        name,
        [pytest.param(short, id="short"), pytest.param(long, id="long", marks=pytest.mark.long)],
    )


@pytest.fixture
def tally() -> Callable[..., None]:
    """`tally("kills of an extraction", survived=1)`"""

    def count(what: str, **ended: int) -> None:
        row = TALLY.setdefault(what, {})
        for how, number in ended.items():
            row[how] = row.get(how, 0) + number

    return count


def pytest_terminal_summary(terminalreporter) -> None:
    if not TALLY:
        return
    terminalreporter.write_line("")
    terminalreporter.write_line("| fault | tried | how it ended |")
    terminalreporter.write_line("|---|---|---|")
    for what, row in TALLY.items():
        ended = ", ".join(f"{number} {how.replace('_', ' ')}" for how, number in row.items())
        terminalreporter.write_line(f"| {what} | {sum(row.values())} | {ended} |")


@pytest.fixture(scope="session")
def dataset(tiny_videos):
    return load_dataset("folder", tiny_videos)


@pytest.fixture(scope="session")
def config(tiny_encoders) -> ExtractConfig:
    """Batches of 16 frames: two videos, so that something is always half done."""
    return ExtractConfig(frames=8, batch_frames=16, **tiny_encoders)


@pytest.fixture(scope="session")
def whole(dataset, config, tmp_path_factory) -> Path:
    """The store of an extraction that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "store.zarr"
    extract(dataset, out, config, progress=False)
    return out


def content(path: Path) -> dict[str, tuple[int, str, bytes, bytes]]:
    """Everything a store says of each video."""
    with open_store(path) as store:
        found = {}
        for row, name in enumerate(store.ids):
            features = [b"", b""]
            if store.status[row] == 1:
                features = [store.read(a, np.array([row])).tobytes() for a in ("vlm", "video")]
            found[name] = (int(store.status[row]), store.reasons[row], *features)
        return found


def harm(path: Path) -> list[str]:
    return [str(damage) for damage in verify(path) if not damage.harmless]


def in_a_child(work: Callable[..., None], *arguments: object) -> int | None:
    """Run in a process of its own; how it ended."""
    child = forkserver().Process(target=work, args=arguments)
    child.start()
    try:
        child.join()
    finally:
        child.kill()  # the alarm rang
    return child.exitcode
