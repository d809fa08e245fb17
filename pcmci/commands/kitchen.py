"""`pcmci kitchen`: the kitchen world, drawn."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from pcmci.errors import UsageError

USUAL = "shift-h,shift-i,shift-c,shift-all"


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
    h_test: Annotated[
        float | None,
        typer.Option(help="Of co-occurrence in the test alone.", show_default="as --h"),
    ] = None,
    i_test: Annotated[
        float | None,
        typer.Option(help="Of codependency in the test alone.", show_default="as --i"),
    ] = None,
    c_test: Annotated[
        float | None,
        typer.Option(help="Of looks in the test alone.", show_default="as --c"),
    ] = None,
    h_share: Annotated[
        str, typer.Option(help="Share of a video in which its companion is there, 1/16 to 1.")
    ] = "1",
    h_spread: Annotated[
        str, typer.Option(help="That share scattered over the video, or in one run.")
    ] = "scattered",
    arrow: Annotated[
        str,
        typer.Option(
            help="label: what is cooked brings companion and looks; cause: they decide it."
        ),
    ] = "label",
    motion_noise: Annotated[
        float, typer.Option(help="How far the hands are off in every frame, 0 to 1.")
    ] = 0.0,
    detours: Annotated[
        float, typer.Option(help="How often a step of another activity follows a step, 0 to 1.")
    ] = 0.0,
    twins: Annotated[
        str,
        typer.Option(
            help="Splits with the test's videos and something changed: of "
            f"{USUAL},wrong-h,wrong-i,wrong-c,cause, or none."
        ),
    ] = USUAL,
    workers: Annotated[
        int, typer.Option(help="Processes that draw.", show_default="all cores", min=0)
    ] = 0,
) -> None:
    """Draw the kitchen world: videos whose three confounders are known, and can be set.

    Example: pcmci kitchen data/kitchen --videos 600 --h 0.9 --i 0.9 --c 0

    A companion that comes and goes: pcmci kitchen data/brief --h-share 1/4 --h-spread run

    Strong in training, wrong in the test: pcmci kitchen data/wrong --h-test 0 --twins wrong-h
    """
    from pcmci.kitchen import Knobs, write_world

    given = {name: value for name, value in (("h", h), ("i", i), ("c", c)) if value is not None}
    knobs = Knobs(
        h_share=_share(h_share),
        h_spread=h_spread,
        arrow=arrow,
        motion_noise=motion_noise,
        detours=detours,
    ).with_strengths(given)
    write_world(
        out,
        videos,
        seed,
        knobs,
        h_test=h_test,
        i_test=i_test,
        c_test=c_test,
        twins=[] if twins == "none" else [name.strip() for name in twins.split(",")],
        workers=workers or None,
    )
    place = "" if out == Path("data/kitchen") else f" --videos {out / 'videos'} --annotations {out}"
    print(f"{out}\nnext: pcmci extract --dataset kitchen{place}")


def _share(text: str) -> float:
    """`1/4` or `0.25`."""
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise UsageError(
            f"--h-share {text} is no share: give a fraction as 1/4 or 0.25, 1/16 to 1"
        ) from error
