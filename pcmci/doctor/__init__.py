"""Whether what the program needs is there: each file looks at one part of it.

findings.py   what was found out, and how it is put
packages.py   the packages and their versions, and the extras
machine.py    cores, memory, and room on the disks
codecs.py     what FFmpeg decodes, and a video there and back
compute.py    what torch computes on
hub.py        whether weights can be downloaded
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from pcmci.doctor.findings import Finding

PARTS = (
    ("packages", "program"),
    ("packages", "required"),
    ("packages", "extras"),
    ("machine", "cores"),
    ("machine", "memory"),
    ("machine", "disks"),
    ("codecs", "codecs"),
    ("codecs", "there_and_back"),
    ("hub", "hub"),
    ("compute", "compute"),
)
"""File and function; the quick ones first."""


def examine(ask_servers: bool = True) -> Iterator[Finding]:
    """Everything, one thing after the other.

    ask_servers: whether a server may be asked; none is where the environment says offline.
    """
    for file, name in PARTS:
        try:  # each is imported when it is its turn: the first lines wait for no torch
            look = getattr(import_module(f"pcmci.doctor.{file}"), name)
            found = look(ask_servers) if file == "hub" else look()
            yield from [found] if isinstance(found, Finding) else found
        except Exception as error:  # a broken installation is what this is for
            says = " ".join(str(error).split()) or "no reason given"
            yield Finding(name, "fails", f"cannot be looked at: {type(error).__name__}: {says}")
