"""`pcmci plant`: a store with a known confounder, made of another one."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from pcmci.commands.options import AsJson, StorePath
from pcmci.commands.showing import print_json
from pcmci.errors import UsageError


def plant(
    store: StorePath,
    out: Annotated[str, typer.Argument(help="The new store, .zarr or .h5.", metavar="OUT")],
    array: Annotated[
        str, typer.Option(help="vlm, for a companion (H), or video, for a look (C).")
    ] = "vlm",
    share: Annotated[float, typer.Option(help="Of the frames, in which it stands.")] = 0.25,
    strength: Annotated[
        float, typer.Option(help="How often it is that of the label, in training.")
    ] = 0.9,
    test_strength: Annotated[
        float | None, typer.Option(help="In the test.", show_default="as --strength")
    ] = None,
    scale: Annotated[
        float, typer.Option(help="Its length, in lengths of the video's own frames.")
    ] = 0.5,
    run: Annotated[
        bool, typer.Option("--run/--scattered", help="Whether its frames follow each other.")
    ] = False,
    otherwise: Annotated[
        str, typer.Option(help="What stands where it is not the label's: any, or none.")
    ] = "any",
    bound: Annotated[
        float,
        typer.Option(
            help="How much of it is its label's own text (0 to 1): what a VLM has learned."
        ),
    ] = 0.0,
    vectors: Annotated[
        Path | None,
        typer.Option(
            help="A .npy [labels, width]: the directions, as a text encoder's of companions.",
            show_default="drawn at right angles",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="The split that gets twins.")] = "test",
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    truth: Annotated[
        Path | None,
        typer.Option(help="A .csv to write: what each video has, and where.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is at OUT.")] = False,
    as_json: AsJson = False,
) -> None:
    """Plant a confounder in a store's features, with twins that differ in it alone.

    Each label gets a direction, a companion, that is added to a share of the frames of its videos.
    The new store has the old one's videos, and of the test their twins: another companion, none,
    the wrong one, and another video with the same. Trained on, it tells how far each head goes by
    what was planted. What was begun goes on with the same command.

    Example: pcmci plant features/breakfast.zarr features/planted.zarr --share 0.25 --strength 0.9
    """
    from pcmci.cache.store import open_store
    from pcmci.cache.upkeep.plant import Planting
    from pcmci.cache.upkeep.plant import plant as run_plant
    from pcmci.remote.url import place

    asked = Planting(
        array, share, strength, test_strength, scale, run, otherwise, bound, seed, split
    )
    given = None
    if vectors is not None:
        import numpy as np

        with contextlib.ExitStack() as reading:
            try:
                given = np.load(reading.enter_context(open(vectors, "rb")), allow_pickle=False)
                if not isinstance(given, np.ndarray):
                    raise UsageError(f"--vectors {vectors}: an .npy file with one array, not .npz")
                given = given.astype(np.float32)
            except (OSError, ValueError, EOFError) as error:
                raise UsageError(f"--vectors {vectors}: cannot be read: {error}") from error
    with open_store(store) as source:
        grown = run_plant(
            source, place(out), asked, vectors=given, overwrite=overwrite, truth=truth,
            progress=not as_json,
        )  # fmt: skip
    planted = grown.spec.planted
    assert planted is not None  # for the type checker
    if as_json:
        import dataclasses

        print_json(
            {
                "store": out,
                "planted": dataclasses.asdict(planted),
                "videos": grown.videos,
                "with a companion": grown.companions,
                "status": grown.status,
            }
        )
        return
    print(planted.words)
    for name, count in grown.videos.items():
        print(f"{name}: {count} videos, {grown.companions.get(name, 0)} with a companion")
    print(f"{out}\nnext: pcmci train-heads --features {out}")
