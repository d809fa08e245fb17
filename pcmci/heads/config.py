"""Every choice of the head `pcmci` and of its training, with the paper's or our default.

docs/method.md says what the paper leaves open. A field's `help` becomes the help
of its flag on the command line: a default stands here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Self

from pcmci.errors import UsageError
from pcmci.heads.settings import HeadConfig, check_kinds, check_positive, check_share, option

STAGES = ("ich", "ici", "ivc")
"""Co-occurrence hallucination, codependency illusion, visual confounders."""

POSITIONS = ("none", "sinusoidal", "learned")
"""What a token may know of its place, see `pcmci.heads.method.positions`."""

VIEWS = {"v": ("video", 0.0), "vc": ("video", 1.0), "p": ("vlm", 0.0), "pc": ("vlm", 1.0)}
"""What a head may look at, by name: the features, and how much of their mean over time is taken
away. v is V, vc is V - mean_t V, p and pc are the same of V^P."""

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


TUNED = ("text", "visual", "classifier")
"""What may be trained alone: what comes to the text, what comes to the video, and the decoder."""


def parse_tune(text: str) -> str:
    """`all`, or of `TUNED` those that are trained, in that order: `text,classifier`. Where a comma
    parts other things, as in a grid, `text/classifier` is the same.

    Raises UsageError for anything else.
    """
    parts = [part.strip().lower() for part in re.split("[,/]", str(text))]
    if set(parts) <= {"all"} or set(parts) == set(TUNED):
        return "all"
    if not set(parts) <= set(TUNED) or len(set(parts)) != len(parts):
        raise UsageError(
            f"tune {text!r}: use all, or of {', '.join(TUNED)} those that are trained, as in "
            "text,classifier (text/classifier in a grid)"
        )
    return ",".join(name for name in TUNED if name in parts)


@dataclass(frozen=True)
class TransportConfig:
    """How ICH aligns label texts with frames."""

    temperature: float = option(0.05, "S = exp(cosine / temperature).")
    lam: float = option(1.0, "Strength of the entropic regularisation.", flag="lambda")
    refine: str = option(
        "product",
        "f(S, P*): the product S P*, the plan alone, the similarity alone (no transport), "
        "uniform weights (the control), or the product less a share of them (contrast).",
        choices=("product", "plan", "similarity", "uniform", "contrast"),
    )
    source: str = option(
        "stream",
        "What S is computed from when ici comes before ich: the text stream as it stands, or the "
        "frozen text.",
        choices=("stream", "frozen"),
    )
    gradient: str = option(
        "detach",
        "Gradient through the plan when S is learned.",
        choices=("detach", "autodiff"),
    )
    tolerance: float = option(1e-7, "Relative marginal error at which a plan counts as solved.")
    max_iterations: int = option(2000, "Sinkhorn iterations at most.")
    gamma: float = option(
        1.0,
        "Of contrast, S~ - gamma/L: what stands in every frame passes with the gain 1 - gamma.",
        later=True,
    )

    def __post_init__(self) -> None:
        check_kinds(self)
        check_positive(self, "temperature", "lam", "tolerance", "max_iterations")
        check_share(self, "gamma", whole=True)


@dataclass(frozen=True)
class ModelConfig(HeadConfig):
    """The head `pcmci`: the stages, their order, and the decoder."""

    order: tuple[str, ...] = STAGES
    transport: TransportConfig = TransportConfig()
    relations: int = option(8, "K, relation bases of ici and ivc.")
    mixing: str = option(
        "paper",
        "[X, Y] W: `paper` mixes along the label axis for ici and ivc; `residual` adds X; "
        "`feature` mixes along the feature axis everywhere.",
        choices=("paper", "residual", "feature"),
    )
    mixer_noise: float = option(0.1, "A mixer starts at [I; 0] plus this much of a random one.")
    norm: bool = option(True, "LayerNorm on each input and each stage's output.")
    tune: str = option(
        "all",
        "What is trained, the rest stays at its start: all, or of text (ich, ici), visual (ivc, "
        "the projection of the video) and classifier (the decoder) some, as text,classifier.",
        later=True,
    )
    tokens: str = option(
        "video",
        "What the decoder attends to: the video stream, or also the VLM's frames (`both`); "
        "after ivc, `both` is V* and V.",
        choices=("video", "both"),
    )
    decoder_heads: int = option(8, "Attention heads of the decoder.")
    feedforward: int = option(1024, "Width of the decoder's feed-forward layer.")
    dropout: float = option(0.1, "Dropout in the decoder.")
    self_attention: bool = option(False, "Labels attend to each other in the decoder.")
    positions: str = option(
        "none",
        "What tokens and frames know of their place in the video.",
        choices=POSITIONS,
        later=True,
    )
    centre: float = option(
        0.0,
        "How much of their mean over time is taken from tokens and frames, 0 to 1; S is asked of "
        "the frames as they are.",
        later=True,
    )
    swap: float = option(
        0.0,
        "Probability, in training, that a video gets the mean over time of another of its batch, "
        "V and V^P each by a draw of its own; S is asked of the frames as they are.",
        later=True,
    )
    front_door: str = option(
        "own",
        "V' of ivc from this video's tokens with the text as mediator; or by the formula (cross): "
        "a mediator a video, and V' from the tokens of other videos.",
        choices=("own", "cross"),
        later=True,
    )
    front_door_videos: int = option(
        8,
        "K, the other videos of cross: of the batch in training, kept with the run afterwards; 0 "
        "for the mediator alone (the control).",
        later=True,
    )
    order_bias: bool = option(
        False,
        "The order of labels in the video, as the VLM sees it, is a bias of ici's relations.",
        later=True,
    )

    def __post_init__(self) -> None:
        check_order(self.order)
        check_kinds(self)
        check_positive(self, "relations", "decoder_heads", "feedforward")
        check_share(self, "dropout")
        check_share(self, "centre", "swap", whole=True)
        if self.front_door_videos < 0:
            raise UsageError(f"front-door-videos {self.front_door_videos} must be 0 or more")
        # One spelling, for equal settings are one run.
        object.__setattr__(self, "tune", parse_tune(self.tune))

    @classmethod
    def from_record(cls, raw: dict[str, Any]) -> Self:
        transport = TransportConfig(**raw["transport"])
        return cls(**{**raw, "order": tuple(raw["order"]), "transport": transport})

    @property
    def frozen_transport(self) -> TransportConfig | None:
        return self.transport if "ich" in self.order and ich_is_frozen(self) else None

    @property
    def alike(self) -> Self:
        """Without the noise of the initialisation, and without lambda where it is not baked into
        plans that are kept."""
        transport = self.transport
        if not ich_is_frozen(self):
            transport = dataclasses.replace(transport, lam=1.0)
        return dataclasses.replace(self, mixer_noise=0.0, transport=transport)


def ich_is_frozen(config: ModelConfig) -> bool:
    """Whether the S~ of ICH depends on frozen embeddings alone.

    It does unless ici, the other stage that rewrites the text, comes before it and S is asked of
    the text stream. (ivc before ich rewrites only the video: S does not see it.)
    """
    before = config.order[: config.order.index("ich")] if "ich" in config.order else ()
    return "ici" not in before or config.transport.source == "frozen"


@dataclass(frozen=True)
class TrainConfig:
    """One run: what is learned, for how long, from which random numbers."""

    labels: tuple[str, ...] = ("activity", "steps")
    epochs: int = option(100, "Passes over the training videos.")
    batch_size: int = option(32, "Videos a step.")
    lr: float = option(1e-3, "Learning rate at its peak.")
    weight_decay: float = option(0.01, "Weight decay.")
    optimiser: str = option("adamw", "AdamW, or the paper's Adam.", choices=("adamw", "adam"))
    warmup: float = option(0.05, "Share of the steps in which the rate rises; then a cosine.")
    clip: float = option(1.0, "The gradient's norm is clipped here.")
    validation: float = option(
        0.0,
        "Share of the training videos set aside to choose the epoch. At 0 a data set's own `val` "
        "split chooses where there is one, else the last epoch is scored.",
    )
    eval_every: int = option(
        10,
        "Epochs between two looks at validation and test; the best-on-test score is the best of "
        "these looks.",
    )
    seed: int = option(0, "Seed of the weights, the order of videos and the dropout.")

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels):
            raise UsageError(f"--labels {','.join(self.labels)!r}: a label set is repeated")
        check_kinds(self)
        check_positive(self, "epochs", "batch_size", "lr", "clip", "eval_every")
        check_share(self, "validation", "warmup")
        if self.weight_decay < 0:
            raise UsageError(f"weight-decay {self.weight_decay} must not be negative")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed {self.seed} must be from 0 to {2**32 - 1}")


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
