"""The settings of every comparator; torch-free, so that `--help` is quick."""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

from pcmci.errors import UsageError
from pcmci.heads.config import (
    VIEWS,
    ModelConfig,
    TransportConfig,
    check_order,
)
from pcmci.heads.settings import (
    HeadConfig,
    check_kinds,
    check_positive,
    check_share,
    option,
    same,
)


@dataclass(frozen=True)
class ZeroShotConfig(HeadConfig):
    """Of `zero-shot`."""

    scale: float = option(0.05, "Logits are cosines divided by this.")

    def __post_init__(self) -> None:
        check_kinds(self)
        check_positive(self, "scale")


@dataclass(frozen=True)
class LinearConfig(HeadConfig):
    """Of `linear`."""

    dropout: float = option(0.0, "Dropout of the means.")

    def __post_init__(self) -> None:
        check_kinds(self)
        check_share(self, "dropout")


@dataclass(frozen=True)
class MLPConfig(HeadConfig):
    """Of `mlp`."""

    hidden: int = option(512, "Width of the one hidden layer.")
    dropout: float = option(0.1, "Dropout of the hidden layer.")

    def __post_init__(self) -> None:
        check_kinds(self)
        check_positive(self, "hidden")
        check_share(self, "dropout")


def parse_experts(text: str) -> tuple[str, ...]:
    """`v,vc,ich+ici` to `("v", "vc", "ich+ici")`: views of the encoders, and stages joined by +.
    Where a comma parts other things, as in a grid, `v/vc/ich+ici` is the same.

    Raises UsageError for what is neither, and for an expert that is there twice.
    """
    right = f"an expert is any of {', '.join(VIEWS)}, or stages in their order as ich or ich+ici"
    names = tuple(part.strip().lower() for part in re.split("[,/]", str(text)))
    for name in names:
        if name in VIEWS:
            continue
        try:
            check_order(tuple(name.split("+")))
        except UsageError:
            raise UsageError(f"experts-of {text}: {name!r} is no expert; {right}") from None
    if len(set(names)) != len(names):
        raise UsageError(f"experts-of {text}: an expert is repeated; {right}")
    return names


@dataclass(frozen=True)
class ExpertsConfig(HeadConfig):
    """Of `experts`."""

    experts_of: str = option(
        "v,vc,p,pc,ich",
        "What each expert looks at: v the video encoder's tokens, p the VLM's frames, vc and pc "
        "what changes in them; or v through stages, joined by + as ich+ici.",
    )
    experts: str = option(
        "shared",
        "One decoder and classifier for all experts, or one each.",
        choices=("shared", "apart"),
    )
    combine: str = option(
        "product",
        "The answer: the product of the experts' probabilities (the mean of their logits for "
        "steps), their mean, or the product at temperatures that validation chooses.",
        choices=("product", "mean", "temperatures"),
    )
    positions: str = same(ModelConfig, "positions", default="sinusoidal")
    swap: float = same(ModelConfig, "swap")
    transport: TransportConfig = same(ModelConfig, "transport")  # noqa: RUF009  # (a field)
    relations: int = same(ModelConfig, "relations")
    mixing: str = same(ModelConfig, "mixing")
    mixer_noise: float = same(ModelConfig, "mixer_noise")
    norm: bool = same(ModelConfig, "norm")
    decoder_heads: int = same(ModelConfig, "decoder_heads")
    feedforward: int = same(ModelConfig, "feedforward")
    dropout: float = same(ModelConfig, "dropout")
    self_attention: bool = same(ModelConfig, "self_attention")

    def __post_init__(self) -> None:
        # One spelling, for equal settings are one run.
        object.__setattr__(self, "experts_of", ",".join(parse_experts(self.experts_of)))
        check_kinds(self)
        check_positive(self, "relations", "decoder_heads", "feedforward")
        check_share(self, "dropout")
        check_share(self, "swap", whole=True)

    @classmethod
    def from_record(cls, raw: dict[str, Any]) -> Self:
        return cls(**{**raw, "transport": TransportConfig(**raw["transport"])})

    @property
    def names(self) -> tuple[str, ...]:
        """Of the experts."""
        return parse_experts(self.experts_of)

    def paper(self, order: tuple[str, ...] = ()) -> ModelConfig:
        """The settings of the head `pcmci` that its stages, and its decoder, are made from."""
        ours = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        theirs = {entry.name for entry in dataclasses.fields(ModelConfig)}
        kept: dict[str, Any] = {name: value for name, value in ours.items() if name in theirs}
        return ModelConfig(**kept, order=order)

    @property
    def staged(self) -> tuple[ModelConfig, ...]:
        """Of each expert that has stages, the settings of the head of the paper that it is."""
        orders = (tuple(name.split("+")) for name in self.names if name not in VIEWS)
        return tuple(self.paper(order) for order in orders)

    @property
    def frozen_transport(self) -> TransportConfig | None:
        found = (config.frozen_transport for config in self.staged)
        return next((transport for transport in found if transport), None)

    @property
    def alike(self) -> Self:
        """As `ModelConfig.alike` has it."""
        transport = self.transport
        if self.frozen_transport is None:
            transport = dataclasses.replace(transport, lam=1.0)
        return dataclasses.replace(self, mixer_noise=0.0, transport=transport)


@dataclass(frozen=True)
class DecodedConfig(HeadConfig):
    """Of a head whose tokens are read by the paper's decoder, as those of `pcmci` are."""

    decoder_heads: int = option(8, "Attention heads, of the decoder and of what is before it.")
    feedforward: int = option(1024, "Width of the decoder's feed-forward layer.")
    dropout: float = option(0.1, "Dropout in the decoder.")

    def __post_init__(self) -> None:
        check_kinds(self)
        check_positive(self, "decoder_heads", "feedforward")
        check_share(self, "dropout")

    @property
    def decoder(self) -> ModelConfig:
        """The settings as the decoder reads them."""
        return ModelConfig(
            decoder_heads=self.decoder_heads, feedforward=self.feedforward, dropout=self.dropout
        )


UPDATES = ("weighted", "merge", "fifo", "mean")
"""What a full memory does, see `pcmci.heads.comparators.bank`."""


@dataclass(frozen=True)
class RememberingConfig(DecodedConfig, ABC):
    """Of a query transformer that walks through the frames with a memory of fixed length."""

    bank: int = option(10, "M, how many entries a memory has, at most two below a video's frames.")
    queries: int = option(16, "Learned queries; MA-LMM has 32.")
    blocks: int = option(2, "J, blocks of the query transformer, 2 or more.")
    inner: int = option(0, "Width of the query transformer; 0 for half the VLM's.")
    detach: bool = option(
        True, "No gradient through a memory, as MA-LMM has it: the last frame's pass alone learns."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "bank", "queries")
        if self.inner < 0:
            raise UsageError(f"inner {self.inner} must not be negative")
        if self.blocks < 2:
            raise UsageError(
                f"blocks {self.blocks} must be 2 or more: in the first, queries have no past"
            )

    @property
    @abstractmethod
    def updates(self) -> tuple[str, ...]:
        """What its memories do when they are full."""

    def check_frames(self, frames: int) -> None:
        """Raises UsageError where a memory would hold every frame before the last."""
        if self.bank > frames - 2 and set(self.updates) != {"mean"}:
            right = f"at most {frames - 2}" if frames > 2 else "such videos need none"
            raise UsageError(
                f"bank {self.bank} keeps all of a video's {frames} frames, which is no memory: "
                f"{right}"
            )


@dataclass(frozen=True)
class MemoryBankConfig(RememberingConfig):
    """Of `memory-bank`."""

    update: str = option(
        "weighted",
        "What a full memory does: its two most alike neighbours become their mean, weighted by how "
        "many frames each stands for (MA-LMM's code) or plain (merge, its text); first in, first "
        "out; or a memory of one entry, the mean of all.",
        choices=UPDATES,
    )

    @property
    def updates(self) -> tuple[str, ...]:
        return (self.update,)


@dataclass(frozen=True)
class TwoStreamConfig(RememberingConfig):
    """Of `two-stream`."""

    short: str = option(
        "fifo", "What the entities' memory does when it is full, as update.", choices=UPDATES
    )
    long: str = option(
        "weighted", "What the scenes' memory does when it is full, as update.", choices=UPDATES
    )
    modulate: bool = option(True, "Frames attend to the label texts.")
    meet: bool = option(True, "The scenes' queries attend to the entities'.")

    @property
    def updates(self) -> tuple[str, ...]:
        return self.short, self.long


@dataclass(frozen=True)
class TemporalConfig(DecodedConfig):
    """Of `temporal`."""

    positions: str = option(
        "sinusoidal",
        "What tokens know of their place in the video.",
        choices=("none", "sinusoidal", "learned"),
    )


@dataclass(frozen=True)
class TimeceptionConfig(HeadConfig):
    """Of `timeception`."""

    channels: int = option(0, "Width of the first layer; 0 for twice the VLM's.")
    layers: int = option(3, "Layers, each of which halves the frames.")
    groups: int = option(8, "Groups of channels.")
    scales: str = option(
        "kernels",
        "The convolutions over time: of 3, 5 and 7 frames (kernels), or of 3 frames that lie 1, 2 "
        "and 3 apart (dilations).",
        choices=("kernels", "dilations"),
    )
    dropout: float = option(0.1, "Dropout of what the last layer reads.")

    def __post_init__(self) -> None:
        check_kinds(self)
        check_positive(self, "layers", "groups")
        check_share(self, "dropout")
        if self.channels < 0:
            raise UsageError(f"channels {self.channels} must not be negative")

    def check_frames(self, frames: int) -> None:
        """Raises UsageError where the last layer would see one frame: of a batch of one video its
        batch norm has then nothing to count."""
        if frames <= 2 ** (self.layers - 1):
            raise UsageError(
                f"layers {self.layers} leave the last one of a video's {frames} frames: each "
                "halves them"
            )


@dataclass(frozen=True)
class ViS4merConfig(HeadConfig):
    """Of `vis4mer`."""

    channels: int = option(0, "Width of the first level; 0 for twice the VLM's.")
    levels: int = option(3, "Levels, each of which halves the frames and the width.")
    states: int = option(64, "States of a channel, an even number.")
    dropout: float = option(0.2, "Dropout of what a level adds.")

    def __post_init__(self) -> None:
        check_kinds(self)
        check_positive(self, "levels", "states")
        check_share(self, "dropout")
        if self.channels < 0:
            raise UsageError(f"channels {self.channels} must not be negative")
        if self.states % 2:
            raise UsageError(f"states {self.states} must be even: they come in pairs")
