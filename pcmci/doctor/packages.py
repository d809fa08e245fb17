"""The packages that the program needs, by its own metadata: there, and new enough."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version

from packaging.requirements import Requirement

from pcmci.doctor.findings import Finding

PROGRAM = "pcmci"

SHOWN = ("torch", "torchvision", "open_clip_torch", "timm", "av", "zarr", "h5py", "numpy")
"""Whose versions are said where nothing is wrong: features and pixels depend on them."""

EXTRAS = {
    "hf": "tokenizers and models of transformers",
    "remote": "videos and stores by URL",
    "cluster": "the dashboard, and clusters of SLURM and Kubernetes",
}
"""Extra -> what for, of those that a user has; others are for who works on the program."""


def program() -> Finding:
    """This program and its Python."""
    where = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    try:
        found = distribution(PROGRAM)
    except PackageNotFoundError:
        return Finding(PROGRAM, "fails", f"is not installed ({where}): pip install {PROGRAM}")
    needs = found.metadata["Requires-Python"]
    if needs and not _fits(f"python{needs}", platform.python_version()):
        return Finding(PROGRAM, "fails", f"{found.version} needs Python {needs}, this is {where}")
    return Finding(PROGRAM, "ok", f"{found.version}, {where}, {sys.executable}")


def required() -> Finding:
    """What cannot be done without."""
    try:
        wrong = [text for need in _requirements("") if (text := trouble(need))]
    except PackageNotFoundError:
        return Finding("packages", "fails", "not known, for it is not installed")
    if wrong:
        return Finding("packages", "fails", f"{'; '.join(wrong)}: pip install -U {PROGRAM}")
    return Finding("packages", "ok", ", ".join(f"{name} {version(name)}" for name in SHOWN))


def extras() -> Iterator[Finding]:
    """What of the extras is there; one that is not is no failure, for few need it."""
    try:
        declared = distribution(PROGRAM).metadata.get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return
    for extra in declared:
        wrong = [text for need in _requirements(extra) if (text := trouble(need))]
        about = EXTRAS.get(extra, "for work on the program itself")
        if not wrong:
            yield Finding(f"extra {extra}", "ok", about)
        else:
            how = f"pip install '{PROGRAM}[{extra}]'"
            yield Finding(f"extra {extra}", "note", f"{about}: {'; '.join(wrong)}: {how}")


def trouble(need: Requirement) -> str:
    """Why a requirement is not met; "" where it is."""
    try:
        there = version(need.name)
    except PackageNotFoundError:
        return f"{need.name} is not installed"
    if not need.specifier.contains(there, prereleases=True):
        return f"{need.name} {there} is there, {need.specifier} is needed"
    return ""


def _requirements(extra: str) -> Iterator[Requirement]:
    """Of the program without extras (""), or those that an extra adds, on this machine."""
    for text in distribution(PROGRAM).requires or []:
        need = Requirement(text)
        if not _holds(need, extra) or (extra and _holds(need, "")):
            continue
        if need.name == PROGRAM:  # an extra that consists of others
            for other in need.extras:
                yield from _requirements(other)
        else:
            yield need


def _holds(need: Requirement, extra: str) -> bool:
    """Whether a requirement is one on this machine, with an extra."""
    return need.marker is None or need.marker.evaluate({"extra": extra})


def _fits(requirement: str, there: str) -> bool:
    return Requirement(requirement).specifier.contains(there, prereleases=True)
