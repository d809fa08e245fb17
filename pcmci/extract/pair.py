"""Both frozen encoders, loaded, and what tells their features from those of others."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from pcmci.cache.schema import EncoderSpec, Sampling, StoreSpec
from pcmci.device import choose_device, choose_precision, keep_freed_memory
from pcmci.errors import WeightsError
from pcmci.extract.batching import Batcher
from pcmci.extract.config import ExtractConfig
from pcmci.extract.encoders import ENCODERS
from pcmci.extract.encoders.protocol import Encoder, Vlm
from pcmci.extract.lanes import Lanes
from pcmci.extract.video.decoding import Input
from pcmci.extract.video.frames import decoder_versions

EXTRACTOR = "2"
"""Raised when this program would compute other features from the same videos and weights."""

SMALL = 10_000_000
"""Parameters of an encoder of which a core a pass (`pcmci.extract.lanes`) is faster than all cores
in one. CLIP's smallest has 38 million."""


@dataclass(frozen=True)
class Made:
    """How features are made, as a store's spec holds it: the same for all who add to one store."""

    vlm: EncoderSpec
    video: EncoderSpec
    precision: str
    libraries: dict[str, str]

    @classmethod
    def of(cls, spec: StoreSpec) -> Made:
        """As a store's were."""
        return cls(spec.vlm, spec.video, spec.precision, spec.libraries)


@dataclass
class Encoders:
    """Both frozen encoders, where they run."""

    vlm: Vlm
    video: Encoder
    device: torch.device
    precision: str
    batch_frames: int

    @classmethod
    def load(cls, config: ExtractConfig) -> Encoders:
        """Raises UsageError for a device that is not there, WeightsError for weights."""
        device = choose_device(config.device)
        if device.type == "cpu":
            keep_freed_memory()
        precision = choose_precision(config.precision, device)
        if precision == "fp32":  # cuDNN would round the patch embedding to TF32's ten bits
            torch.backends.cudnn.allow_tf32 = False
        where: dict[str, Any] = {
            "device": str(device),
            "precision": precision,
            "frames": config.frames,
        }
        pair = cls(
            vlm=ENCODERS["vlm"](config.vlm, config.vlm_weights, **where),
            video=ENCODERS["video"](
                config.video_encoder, config.video_weights, windows=config.windows, **where
            ),
            device=device,
            precision=precision,
            batch_frames=config.batch_frames,
        )
        if not pair.batch_frames:  # of tiny encoders the calls cost more than the work
            on_cpu = 32 if pair.are_small else 8
            pair.batch_frames = 256 if device.type == "cuda" else on_cpu
        return pair

    def with_video(self, config: ExtractConfig) -> Encoders:
        """The same VLM beside another video encoder. Raises what `load` does."""
        where = {
            "device": str(self.device), "precision": self.precision, "frames": config.frames,
        }  # fmt: skip
        video = ENCODERS["video"](
            config.video_encoder, config.video_weights, windows=config.windows, **where
        )
        return dataclasses.replace(self, video=video)

    @property
    def are_small(self) -> bool:
        """Whether both are."""
        return all(0 < encoder.spec.parameters < SMALL for encoder in self.named.values())

    def lanes(self) -> contextlib.AbstractContextManager[Lanes | None]:
        """As many as torch has threads; None where a pass has them all."""
        threads = torch.get_num_threads()
        if self.device.type == "cpu" and threads > 1 and self.are_small:
            return Lanes(threads)
        return contextlib.nullcontext()

    def batcher(self, encoder: Encoder, lanes: Lanes | None = None) -> Batcher:
        """With batches of about `batch_frames` frames."""
        clips = max(1, self.batch_frames // encoder.clip_frames)
        return Batcher(encoder, clips, self.device, lanes)

    def batchers(self, lanes: Lanes | None = None) -> dict[str, Batcher]:
        """Of `vlm` and `video`."""
        return {name: self.batcher(encoder, lanes) for name, encoder in self.named.items()}

    @property
    def named(self) -> dict[str, Encoder]:
        """`vlm` and `video`."""
        return {"vlm": self.vlm, "video": self.video}

    @property
    def inputs(self) -> dict[str, Input]:
        """What each wants of a frame."""
        return {name: wanted(encoder) for name, encoder in self.named.items()}

    @property
    def made(self) -> Made:
        """With the libraries of this process."""
        libraries = library_versions((*self.vlm.libraries, *self.video.libraries))
        return Made(self.vlm.spec, self.video.spec, self.precision, libraries)

    def text(self, prompts: Sequence[str]) -> np.ndarray:
        """[N, D] float32: the VLM's embeddings of prompts."""
        return self.vlm.encode_text(prompts)

    def decode_threads(self, config: ExtractConfig) -> int:
        """Videos to decode at a time, so that these encoders wait for none."""
        return config.decode_threads or (8 if self.device.type == "cuda" else 1)

    def described(self, sampling: Sampling) -> str:
        """One line for the user: what computes, with which weights."""
        names = [f"{name} {e.spec.name} ({e.spec.weights})" for name, e in self.named.items()]
        how = f"frames {sampling.frames}, views {sampling.views}"
        return " | ".join((f"{self.device} {self.precision}", *names, how))


def wanted(encoder: Encoder) -> Input:
    """What an encoder wants of a frame."""
    return Input(encoder.spec.preprocessing, encoder.clip_frames, encoder.spec.stride)


class Halves:
    """Videos that one encoder has finished and the other has not."""

    def __init__(self, encoders: Encoders, views: int) -> None:
        self._shapes = {
            name: (views, encoder.spec.tokens, encoder.spec.width)
            for name, encoder in encoders.named.items()
        }
        self._half: dict[int, dict[str, np.ndarray]] = {}

    def join(
        self, name: str, finished: Iterable[tuple[int, np.ndarray]]
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Take an encoder's (row, features); yields (row, features by encoder) of every video
        that both have finished: [views, L, D] and [views, Lv, Dv]."""
        for row, features in finished:
            both = self._half.setdefault(row, {})
            both[name] = features.reshape(self._shapes[name])
            if len(both) == len(self._shapes):
                yield row, self._half.pop(row)


def library_versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Of everything that pixels and features pass through.

    more: distributions that an encoder uses (`Encoder.libraries`), or names of a spec's libraries;
    what is not installed is left out.
    """
    names = ("torch", "open_clip_torch", "timm", "pillow", "numpy")
    found = {
        "extractor": EXTRACTOR,
        **decoder_versions(),
        **{name: version(name) for name in names},
    }
    for name in more:
        if name not in found:
            with contextlib.suppress(PackageNotFoundError):
                found[name] = version(name)
    return found


def check_same_weights(spec: StoreSpec, encoders: Encoders) -> None:
    """Raises WeightsError naming the encoder that is not the one of the spec."""
    for name, encoder in encoders.named.items():
        wanted = getattr(spec, name)
        if encoder.spec.preprocessing != wanted.preprocessing:
            raise WeightsError(
                f"the {name} encoder {wanted.name!r} prepares frames as "
                f"{encoder.spec.preprocessing}, the run was trained with {wanted.preprocessing}"
            )
        if encoder.spec.sha256 != wanted.sha256:
            raise WeightsError(
                f"the {name} encoder's weights {wanted.weights!r} have sha256 "
                f"{encoder.spec.sha256[:12]}, the run was trained with {wanted.sha256[:12]}"
            )
