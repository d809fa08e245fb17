"""New videos through the encoders of a store that is there: for prediction."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pcmci.cache.schema import StoreSpec
from pcmci.errors import UsageError, VideoError, WeightsError
from pcmci.extract.config import ExtractConfig
from pcmci.extract.pair import Encoders, check_same_weights
from pcmci.extract.video.decoding import Decoder
from pcmci.remote.url import Place

FILES = (".json", ".pt", ".pth", ".pyth", ".bin", ".safetensors")
"""Suffixes by which a name of an encoder or of weights is that of a file."""


def encode_files(
    paths: Sequence[Place],
    spec: StoreSpec,
    *,
    vlm: str | None = None,
    video_encoder: str | None = None,
    vlm_weights: str | None = None,
    video_weights: str | None = None,
    device: str = "auto",
) -> tuple[dict[str, np.ndarray], dict[Place, str]]:
    """New videos through the encoders of an existing store, without one: for prediction.

    Returns the features of view 0 by encoder, [m, L, D] and [m, Lv, Dv], of the videos that could
    be decoded, in their order; and path -> reason of those that could not.
    vlm, video_encoder, vlm_weights, video_weights: where a config or weights lie now, if not where
    the spec says. Raises WeightsError where they are not there, and where weights are not those
    that the spec names, by their sha256.
    """
    imported = [one.name for one in (spec.video, spec.vlm) if one.is_imported]
    if imported:
        raise UsageError(
            f"the features {imported[0]!r} were imported: no encoder here makes them of a video; "
            "pcmci evaluate scores the videos of the store"
        )
    given = {
        "--vlm": vlm or spec.vlm.name,
        "--vlm-weights": vlm_weights or spec.vlm.weights,
        "--video-encoder": video_encoder or spec.video.name,
        "--video-weights": video_weights or spec.video.weights,
    }
    for flag, file in given.items():
        if (Path(file).suffix in FILES or os.path.isabs(file)) and not Path(file).exists():
            raise WeightsError(
                f"{file} is not there, with which the features were made; {flag} names where it "
                "lies now"
            )
    config = ExtractConfig(
        frames=spec.sampling.frames,
        vlm=given["--vlm"],
        vlm_weights=given["--vlm-weights"],
        video_encoder=given["--video-encoder"],
        video_weights=given["--video-weights"],
        windows=spec.video.windows,
        precision=spec.precision,
        device=device,
    )
    encoders = Encoders.load(config)
    check_same_weights(spec, encoders)
    sampling = dataclasses.replace(spec.sampling, views=1)
    failures: dict[Place, str] = {}
    batchers = encoders.batchers()
    encoded: dict[str, list[tuple[int, np.ndarray]]] = {name: [] for name in batchers}
    decoder = Decoder(sampling, encoders.inputs, config.decode_seconds)
    with contextlib.closing(decoder):
        for row, path in enumerate(tqdm(paths, "encode", unit="video", disable=None, leave=False)):
            try:
                clips = decoder.prepare(path)
            except VideoError as error:
                failures[path] = str(error)
                continue
            for name, batcher in batchers.items():
                encoded[name] += batcher.push(row, clips[name])
    for name, batcher in batchers.items():
        encoded[name] += batcher.flush()
    # Rounded as a store would, so that a prediction is that of the stored features.
    features = {
        name: np.array([f.reshape(-1, f.shape[-1]) for _, f in videos]).astype(np.float16)
        for name, videos in encoded.items()
    }
    return features, failures
