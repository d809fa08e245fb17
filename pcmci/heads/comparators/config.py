"""The settings of every comparator; torch-free, so that `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass

from pcmci.heads.settings import HeadConfig, check_kinds, check_positive, check_share, option


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
