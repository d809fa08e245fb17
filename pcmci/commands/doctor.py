"""`pcmci doctor`: whether it will work here."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from pcmci.commands.options import AsJson


def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Ask no server.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look whether what the program needs is there, a line each; leaves with 1 where it is not.

    Packages and extras, cores, memory and disks, codecs (a video is written and read), the device
    and its precision, and whether the hub answers: asked once, for five seconds, and not at all
    where HF_HUB_OFFLINE is set.

    Example: pcmci doctor
    """
    from pcmci.doctor import examine
    from pcmci.plain import plain

    found = []
    for finding in examine(ask_servers=not offline):
        found.append(finding)
        if not as_json:
            print(f"{finding.verdict:5}  {finding.name:14}  {plain(finding.says)}", flush=True)
    failing = [finding.name for finding in found if finding.verdict == "fails"]
    if as_json:
        from pcmci.commands.showing import print_json

        checks = [dataclasses.asdict(finding) for finding in found]
        print_json({"works": not failing, "checks": checks})
    elif failing:
        print(f"will not work: {', '.join(failing)}")
    else:
        print("next: pcmci demo")
    if failing:
        raise typer.Exit(1)
