"""`pcmci kitchen`: the kitchen world, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def kitchen(
    out: Annotated[Path, typer.Argument(help="Where the world goes.")] = Path("data/kitchen"),
    videos: Annotated[int, typer.Option(help="Training videos.", min=1)] = 600,
    seed: Annotated[int, typer.Option(help="Another seed is another world.", min=0)] = 0,
    h: Annotated[
        float | None,
        typer.Option(help="Strength of co-occurrence, 0 to 1.", show_default="the world's own"),
    ] = None,
    i: Annotated[
        float | None,
        typer.Option(help="Strength of codependency, 0 to 1.", show_default="the world's own"),
    ] = None,
    c: Annotated[
        float | None,
        typer.Option(help="Strength of looks, 0 to 1.", show_default="the world's own"),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes that draw.", show_default="all cores", min=0)
    ] = 0,
) -> None:
    """Draw the kitchen world: videos whose three confounders are known, and can be set.

    Example: pcmci kitchen data/kitchen --videos 600 --h 0.9 --i 0.9 --c 0
    """
    from pcmci.kitchen import Knobs, write_world

    given = {name: value for name, value in (("h", h), ("i", i), ("c", c)) if value is not None}
    write_world(out, videos, seed, Knobs(**given), workers=workers or None)
    place = "" if out == Path("data/kitchen") else f" --videos {out / 'videos'} --annotations {out}"
    print(f"{out}\nnext: pcmci extract --dataset kitchen{place}")
