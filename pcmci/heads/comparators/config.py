"""The settings of every comparator; torch-free, so that `--help` is quick."""

from __future__ import annotations

import dataclasses
import re
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
        parse_experts(self.experts_of)
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
