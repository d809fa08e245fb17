"""The frames that a store's encoders saw of a video, as pictures for a person."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pcmci.cache.schema import Preprocessing, StoreSpec
from pcmci.errors import VideoError
from pcmci.extract.video.decoding import Decoder, Input
from pcmci.remote.url import Place

SIZE = 160
"""Pixels of a picture's side."""

SECONDS = 300
"""That a video may take, its download included."""


@dataclass(frozen=True)
class FilmStrip:
    """frames: [L, SIZE, SIZE, 3] uint8. seconds: [L] when each is shown, from the film's first
    frame on; None where the file does not tell. note: of a damaged video, which frames are none of
    its own; else ""."""

    frames: np.ndarray
    seconds: tuple[float | None, ...]
    note: str = ""


def film_strips(paths: Sequence[Place], spec: StoreSpec) -> Iterator[FilmStrip | VideoError]:
    """Of each video the frames of view 0, as a store of this spec samples them and its VLM (its
    video encoder, where the VLM's features were imported) has them cut; or why there are none."""
    sampling = dataclasses.replace(spec.sampling, views=1)
    inputs = {"strip": Input(_cut(spec), clip_frames=1)}
    decoder = Decoder(sampling, inputs, SECONDS, damaged=spec.damaged)
    with contextlib.closing(decoder):
        for path in paths:
            try:
                prepared = decoder.prepare(path)
            except VideoError as error:
                yield error
            else:
                yield FilmStrip(prepared["strip"][:, 0], prepared.seconds, prepared.note)


def _cut(spec: StoreSpec) -> Preprocessing:
    """The encoder's own, to another size; the middle square where no encoder is known."""
    known = next((one for one in (spec.vlm, spec.video) if not one.is_imported), None)
    if known is None:
        return Preprocessing(SIZE, SIZE, "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    own = known.preprocessing
    resize = max(SIZE, round(own.resize * SIZE / own.size))
    return dataclasses.replace(own, resize=resize, size=SIZE)
