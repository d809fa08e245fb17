"""Every choice of a run, with the paper's or our default; torch-free, so that `--help` is quick.

docs/method.md says what the paper leaves open. A field's `help` becomes the help
of its flag on the command line: a default stands here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from pcmci.errors import UsageError

STAGES = ("ich", "ici", "ivc")
"""Co-occurrence hallucination, codependency illusion, visual confounders."""

ORDERS = tuple(order for length in range(len(STAGES) + 1) for order in permutations(STAGES, length))
"""All 16 ordered subsets of the stages, the empty one first."""


def parse_order(text: str) -> tuple[str, ...]:
    """`"ich,ici"` to `("ich", "ici")`; `"none"` or `""` is the model without stages.

    Raises UsageError for an unknown, a repeated or an empty stage.
    """
    if text.strip().lower() in ("", "none"):
        return ()
    order = tuple(part.strip().lower() for part in text.split(","))
    return check_order(order, shown=text)


def parse_labels(text: str) -> tuple[str, ...]:
    """`"activity, steps"` to `("activity", "steps")`."""
    return tuple(part.strip() for part in text.split(","))


def check_order(order: tuple[str, ...], shown: str | None = None) -> tuple[str, ...]:
    """`order` itself. Raises UsageError unless it is an ordered subset of the stages."""
    shown = ",".join(order) if shown is None else shown
    right = f"an order is any of {', '.join(STAGES)} once each, as in ich,ici, or none"
    for stage in order:
        if stage not in STAGES:
            what = f"{stage!r} is no stage" if stage else "an empty stage"
            raise UsageError(f"--order {shown!r}: {what}; {right}")
    if len(set(order)) != len(order):
        raise UsageError(f"--order {shown!r}: a stage is repeated; {right}")
    return order


def order_name(order: tuple[str, ...]) -> str:
    """`"ich,ici"`, or `"none"`."""
    return ",".join(order) or "none"


def _option(default: Any, help: str, **extra: Any) -> Any:
    return field(default=default, metadata={"help": help, **extra})


def flag_name(entry: dataclasses.Field[Any]) -> str:
    """The flag of a field, without its dashes: `lam` is `lambda`, `batch_size` `batch-size`."""
    return str(entry.metadata.get("flag", entry.name.replace("_", "-")))


_KINDS = {bool: "True or False", int: "a whole number", float: "a finite number"}


def _check_kinds(config: Any) -> None:
    """Every setting is one of its choices, or of its default's type."""
    for entry in dataclasses.fields(config):
        value, kind = getattr(config, entry.name), type(entry.default)
        choices = entry.metadata.get("choices")
        if choices and value not in choices:
            raise UsageError(f"{flag_name(entry)} {value!r} is none of {', '.join(choices)}")
        if choices or kind not in _KINDS:
            continue
        fits = isinstance(value, (int, float) if kind is float else kind)
        if kind is not bool:
            fits = fits and not isinstance(value, bool) and math.isfinite(value)
        if not fits:
            raise UsageError(f"{flag_name(entry)} {value!r} must be {_KINDS[kind]}")


def _check_positive(config: Any, *names: str) -> None:
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if entry.name in names and value <= 0:
            raise UsageError(f"{flag_name(entry)} {value} must be above 0")


@dataclass(frozen=True)
class TransportConfig:
    """How ICH aligns label texts with frames."""

    temperature: float = _option(0.05, "S = exp(cosine / temperature).")
    lam: float = _option(1.0, "Strength of the entropic regularisation.", flag="lambda")
    refine: str = _option(
        "product",
        "f(S, P*): the product S P*, the plan alone, the similarity alone (no transport), "
        "or uniform weights (the control).",
        choices=("product", "plan", "similarity", "uniform"),
    )
    source: str = _option(
        "stream",
        "What S is computed from when ici comes before ich: the text stream as it stands, or the "
        "frozen text.",
        choices=("stream", "frozen"),
    )
    gradient: str = _option(
        "detach",
        "Gradient through the plan when S is learned.",
        choices=("detach", "autodiff"),
    )
    tolerance: float = _option(1e-7, "Relative marginal error at which a plan counts as solved.")
    max_iterations: int = _option(2000, "Sinkhorn iterations at most.")

    def __post_init__(self) -> None:
        _check_kinds(self)
        _check_positive(self, "temperature", "lam", "tolerance", "max_iterations")


@dataclass(frozen=True)
class ModelConfig:
    """The stages, their order, and the decoder."""

    order: tuple[str, ...] = STAGES
    transport: TransportConfig = TransportConfig()
    relations: int = _option(8, "K, relation bases of ici and ivc.")
    mixing: str = _option(
        "paper",
        "[X, Y] W: `paper` mixes along the label axis for ici and ivc; `residual` adds X; "
        "`feature` mixes along the feature axis everywhere.",
        choices=("paper", "residual", "feature"),
    )
    mixer_noise: float = _option(0.1, "A mixer starts at [I; 0] plus this much of a random one.")
    norm: bool = _option(True, "LayerNorm on each input and each stage's output.")
    tokens: str = _option(
        "video",
        "What the decoder attends to: the video stream, or also the VLM's frames (`both`); "
        "after ivc, `both` is V* and V.",
        choices=("video", "both"),
    )
    decoder_heads: int = _option(8, "Attention heads of the decoder.")
    feedforward: int = _option(1024, "Width of the decoder's feed-forward layer.")
    dropout: float = _option(0.1, "Dropout in the decoder.")
    self_attention: bool = _option(False, "Labels attend to each other in the decoder.")

    def __post_init__(self) -> None:
        check_order(self.order)
        _check_kinds(self)
        _check_positive(self, "relations", "decoder_heads", "feedforward")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout {self.dropout} must be at least 0 and below 1")


@dataclass(frozen=True)
class TrainConfig:
    """One run: what is learned, for how long, from which random numbers."""

    labels: tuple[str, ...] = ("activity", "steps")
    epochs: int = _option(100, "Passes over the training videos.")
    batch_size: int = _option(32, "Videos a step.")
    lr: float = _option(1e-3, "Learning rate at its peak.")
    weight_decay: float = _option(0.01, "Weight decay.")
    optimiser: str = _option("adamw", "AdamW, or the paper's Adam.", choices=("adamw", "adam"))
    warmup: float = _option(0.05, "Share of the steps in which the rate rises; then a cosine.")
    clip: float = _option(1.0, "The gradient's norm is clipped here.")
    validation: float = _option(
        0.0,
        "Share of the training videos set aside to choose the epoch. At 0 a data set's own `val` "
        "split chooses where there is one, else the last epoch is scored.",
    )
    eval_every: int = _option(
        10,
        "Epochs between two looks at validation and test; the best-on-test score is the best of "
        "these looks.",
    )
    seed: int = _option(0, "Seed of the weights, the order of videos and the dropout.")

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels):
            raise UsageError(f"--labels {','.join(self.labels)!r}: a label set is repeated")
        _check_kinds(self)
        _check_positive(self, "epochs", "batch_size", "lr", "clip", "eval_every")
        if not 0 <= self.validation < 1:
            raise UsageError(f"validation {self.validation} must be at least 0 and below 1")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"warmup {self.warmup} must be at least 0 and below 1")
        if self.weight_decay < 0:
            raise UsageError(f"weight-decay {self.weight_decay} must not be negative")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed {self.seed} must be from 0 to {2**32 - 1}")


CONFIGS = (ModelConfig, TrainConfig, TransportConfig)


def settings() -> dict[str, tuple[type, dataclasses.Field[Any]]]:
    """Every setting of a run by the name it has on the command line and in a grid.

    `lr`, `batch_size`, `relations`, and with their prefix `transport_lambda`, ...; the value is
    the dataclass and its field. `order` and `labels` are left out: they have arguments of their
    own everywhere.
    """
    found: dict[str, tuple[type, dataclasses.Field[Any]]] = {}
    for config in CONFIGS:
        prefix = "transport_" if config is TransportConfig else ""
        for entry in dataclasses.fields(config):
            if "help" in entry.metadata:
                found[prefix + flag_name(entry).replace("-", "_")] = (config, entry)
    return found


def setting_name(text: str) -> str:
    """`transport.lambda` and `batch-size` as `settings` has them."""
    return text.replace(".", "_").replace("-", "_")


def configure(
    order: tuple[str, ...], labels: tuple[str, ...], values: Mapping[str, Any]
) -> tuple[ModelConfig, TrainConfig]:
    """The configs of a run from flat settings, `transport.lambda` or `transport_lambda` alike.

    Raises UsageError for an unknown setting (with the nearest known one) or a refused value.
    """
    known = settings()
    chosen: dict[type, dict[str, Any]] = {config: {} for config in CONFIGS}
    for key, value in values.items():
        name = setting_name(key)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
            raise UsageError(f"no setting is called {key!r}{hint}")
        config, entry = known[name]
        chosen[config][entry.name] = value
    transport = TransportConfig(**chosen[TransportConfig])
    model = ModelConfig(order=tuple(order), transport=transport, **chosen[ModelConfig])
    return model, TrainConfig(labels=tuple(labels), **chosen[TrainConfig])


def parse_taus(text: str) -> tuple[float, ...]:
    """`0.6`, `0.3,0.6` or `FIRST:LAST:STEP` (both ends taken) to thresholds of ODD.

    Raises UsageError for anything else, for a value outside 0 to 1, and for more than 1,000.
    """
    right = "use 0.6, 0.3,0.6 or FIRST:LAST:STEP, all from 0 to 1"
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            count = math.floor((last - first) / step + 1e-9) + 1 if step > 0 else 0
            taus = [round(first + i * step, 10) for i in range(min(count, 1001))]
        else:
            taus = [float(part) for part in text.split(",")]
    except (ValueError, OverflowError):
        raise UsageError(f"--tau {text!r}: {right}") from None
    if not taus or len(taus) > 1000 or not all(0 <= tau <= 1 for tau in taus):
        raise UsageError(f"--tau {text!r}: {right}")
    return tuple(taus)


def parse_memory(text: str) -> int:
    """`2G`, `500M` or a number of bytes. Raises UsageError for anything else."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    try:
        size = float(number) * (units[unit] if unit else 1)
        if not 1 <= size < 2**60:
            raise ValueError
    except (ValueError, KeyError):
        raise UsageError(f"--memory {text!r}: use a size as 500M or 2G") from None
    return int(size)
