"""`pcmci import`: features that were made elsewhere, as a store."""

from __future__ import annotations

import contextlib
import shlex
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pcmci.commands.options import AsJson, DatasetName
from pcmci.commands.showing import print_json
from pcmci.errors import UsageError
from pcmci.plain import plain
from pcmci.remote.url import place

if TYPE_CHECKING:
    import numpy as np

Layout = Annotated[
    str | None,
    typer.Option(
        help="TD where time comes first, DT where the features do.",
        show_default="told by the shapes, where only one fits",
    ),
]


def import_(
    dataset: DatasetName,
    name: Annotated[
        str, typer.Option(help="What to call the features, as i3d.", show_default=False)
    ],
    videos_from: Annotated[
        Path,
        typer.Option(
            help="Features of the video encoder: a folder with a .npy, .npz or .pt a video, or an "
            ".h5 with a dataset a video.",
            show_default=False,
        ),
    ],
    vlm_from: Annotated[
        Path | None,
        typer.Option(
            help="The VLM's half: a store over the same videos, or features as above.",
            show_default="none, for heads that need no text",
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="An .npz with activity and steps, [N, D] each, for --vlm-from a folder.",
            show_default=False,
        ),
    ] = None,
    vlm: Annotated[
        str | None,
        typer.Option(
            help="Or the VLM that embeds the label prompts, as pcmci extract --vlm.",
            show_default=False,
        ),
    ] = None,
    vlm_weights: Annotated[str, typer.Option(help="Its weights.")] = "auto",
    annotations: Annotated[
        str | None,
        typer.Option(help="Annotation file or folder.", show_default="in data/DATASET"),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="The store, .zarr or .h5.", show_default="features/DATASET_NAME.zarr"),
    ] = None,
    frames: Annotated[int, typer.Option(help="L: T tokens become so many.", min=1)] = 16,
    pool: Annotated[
        str, typer.Option(help="How: the middle of each of L equal parts, or its mean.")
    ] = "middle",
    layout: Layout = None,
    vlm_layout: Layout = None,
    pattern: Annotated[
        str, typer.Option(help="A file's name without its suffix, as {id}_rgb.")
    ] = "{id}",
    key: Annotated[
        str | None,
        typer.Option(help="Which array, in files that hold several.", show_default=False),
    ] = None,
    words: Annotated[str, typer.Option(help="Where the features come from, in your words.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a store of features that were made elsewhere, a file a video.

    A video without a file is missing, one whose features cannot be read has failed with its
    reason. The store says that it was imported, and the files' digest.

    Example: pcmci import --dataset breakfast --name i3d --videos-from breakfast_i3d --pool mean

    Example: pcmci import --dataset coin --name s3d --videos-from s3d.h5 --vlm-from clip.zarr
    """
    from pcmci.cache.schema import NO_VLM
    from pcmci.extract.datasets import load_records
    from pcmci.extract.datasets.files import VideoTree
    from pcmci.extract.imported.files import LAYOUTS, POOLS, FeatureFiles, is_features
    from pcmci.extract.imported.importing import Half, import_features

    for flag, value, right in (
        ("pool", pool, tuple(POOLS)), ("layout", layout, LAYOUTS),
        ("vlm-layout", vlm_layout, LAYOUTS),
    ):  # fmt: skip
        if value is not None and value not in right:
            raise UsageError(f"--{flag} {value!r}: right would be {' or '.join(right)}")
    if "{id}" not in pattern:
        raise UsageError(f"--pattern {pattern!r}: needs {{id}} where a video's id stands")
    files = FeatureFiles.under(videos_from, key)
    folder = videos_from if videos_from.is_dir() else videos_from.parent
    found = load_records(dataset, VideoTree(folder, counts=is_features), annotations)
    for note in found.notes:
        print(plain(note), file=sys.stderr)
    half = Half(files, name, words, layout, pattern, pool)
    target = place(out or f"features/{dataset}_{name}.zarr")
    with contextlib.ExitStack() as opening:
        other: Any = None
        if vlm_from is not None and _is_store(vlm_from):
            from pcmci.cache.store import open_store

            other = opening.enter_context(open_store(vlm_from))
        elif vlm_from is not None:
            of_vlm = FeatureFiles.under(vlm_from, key)
            other = Half(of_vlm, vlm or "vlm", words, vlm_layout, pattern, pool)
        has_vlm = other is not None and (isinstance(other, Half) or other.spec.vlm.name != NO_VLM)
        summary = import_features(
            found, target, half, frames, vlm=other, text=_text(text, vlm, vlm_weights),
            overwrite=overwrite, progress=not as_json,
        )  # fmt: skip
    counts = {status.name.lower(): count for status, count in summary.counts.items()}
    if as_json:
        print_json(
            {
                "store": str(target), "counts": counts, "failures": summary.failures,
                "layouts": summary.layouts, "files of no video": summary.strangers,
            }
        )  # fmt: skip
        return
    for video, reason in summary.failures.items():
        print(f"failed: {plain(video)}: {plain(reason)}")
    for what, axes in summary.layouts.items():
        print(f"{what}: taken as {'[T, D]' if axes == 'TD' else '[D, T]'}")
    if summary.strangers:
        print(f"files of no video: {summary.strangers}")
    print(f"{target}: {', '.join(f'{count} {what}' for what, count in counts.items() if count)}")
    heads = "--order ich,ici,ivc" if has_vlm else "--head linear"
    print(f"next: pcmci train-heads --features {shlex.quote(str(target))} {heads}")


def _is_store(path: Path) -> bool:
    """Whether it is a store of ours; an .h5 may be one of features too, a dataset a video."""
    if path.suffix in (".h5", ".hdf5") and path.is_file():
        import h5py

        with contextlib.suppress(OSError), h5py.File(path, "r") as file:
            return {"checksums", "reasons", "status"} <= file.keys()
    return (path / "zarr.json").is_file()


def _text(
    file: Path | None, vlm: str | None, weights: str
) -> Callable[[str, Sequence[str]], np.ndarray] | None:
    """Label set and prompts to their embeddings, where the user said how."""
    if file is not None:
        return _from_file(file)
    if vlm is None:
        return None

    def embed(labels: str, prompts: Sequence[str]) -> np.ndarray:
        from pcmci.extract.encoders import load_vlm

        return load_vlm(vlm, weights).encode_text(prompts)

    return embed


def _from_file(file: Path) -> Callable[[str, Sequence[str]], np.ndarray]:
    import numpy as np

    def embed(labels: str, prompts: Sequence[str]) -> np.ndarray:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return np.asarray(arrays[labels], np.float32)
        except KeyError:
            raise UsageError(f"--text {file}: has no array called {labels}") from None
        except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise UsageError(f"--text {file}: cannot be read: {error}") from None

    return embed
