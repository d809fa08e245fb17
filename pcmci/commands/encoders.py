"""`pcmci encoders`: the models that are known by name."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer


def encoders(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of text.")
    ] = False,
) -> None:
    """The encoders that are known by name: weights, licence, cost, and what they have seen.

    Example: pcmci encoders
    """
    from pcmci.extract.encoders.cards import CARDS
    from pcmci.extract.encoders.families import DEFAULT_SIZES
    from pcmci.report.encoders import ENCODERS, encoders_table
    from pcmci.report.table import show

    cards = [dataclasses.asdict(card) for card in CARDS]
    if as_json:
        found = {"encoders": cards, "default_sizes": DEFAULT_SIZES}
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    show(*(encoders_table(cards, kind) for kind in ENCODERS))
    sizes = ", ".join(f"{name} is {size}" for name, size in DEFAULT_SIZES.items())
    print(
        "Also: every other model of open_clip (--vlm) and of timm (--video-encoder timm:NAME; "
        "NAME@SIZE for images of another size), and the path of a JSON config.\n"
        f"Short: {sizes}.\n"
        "GFLOP counts a multiplication and an addition as two. --frames must be a multiple of the "
        "frames a clip."
    )
