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
    from pcmci.extract.encoders.pace import stride_of
    from pcmci.report.encoders import ENCODERS, encoders_table
    from pcmci.report.table import show

    # the pace of dense windows, 0 where there are none
    strides = [stride_of(card.name) or 0 if card.kind == "video" else 0 for card in CARDS]
    pairs = zip(CARDS, strides, strict=True)
    cards = [dataclasses.asdict(card) | {"stride": stride} for card, stride in pairs]
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
        "frames a clip; with --windows dense each frame has a clip of its own: 16 x 5 is one of "
        "16, each 5 frames at 30 a second after the one before."
    )
