"""The heads of the study, by the name that its tables have for them, and what each is held against.

A control sees what the head sees: only then is a difference something that the head does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pcmci.heads.catalogue import DEFAULT, configure
from pcmci.heads.config import ORDERS, ModelConfig, order_name
from pcmci.heads.settings import HeadConfig

SETTINGS: dict[str, Any] = {"feedforward": 128}
"""Twice the width of this world's features, as the default 1,024 is of ViT-B/16's."""

NONE, BOTH = "none", "none, both encoders"


@dataclass(frozen=True)
class Chosen:
    """A row of the study. order: of the head `pcmci`. values: settings beside SETTINGS. control:
    the row with the same information. about: what it is, in a few words."""

    order: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)
    head: str = DEFAULT
    control: str = NONE
    about: str = ""

    def config(self) -> HeadConfig:
        """Its settings, as the program makes them."""
        return configure(self.order, ("activity",), SETTINGS | self.values, self.head)[0]


def _ich(control: str = BOTH, about: str = "", **values: Any) -> Chosen:
    return Chosen(("ich",), values, control=control, about=about)


UNIFORM = "ich, uniform weights"
CENTRED = {"centre": 1.0}
SWAPPED = {"swap": 0.5}

HEADS: dict[str, Chosen] = {
    NONE: Chosen(about="the decoder on the video encoder's tokens"),
    BOTH: Chosen(values={"tokens": "both"}, about="the decoder on the tokens of both"),
    "none, wide": Chosen(values={"feedforward": 640}, about="none with more numbers"),
    "ich": _ich(about="the paper's first stage"),
    UNIFORM: _ich(transport_refine="uniform", about="ich with the plain mean of the frames"),
    "ich, similarity at half the temperature": _ich(
        transport_refine="similarity",
        transport_temperature=ModelConfig().transport.temperature / 2,
        about="ich without transport",
    ),
    "ich, contrast": _ich(transport_refine="contrast", about="ich whose rows sum to 0"),
    "ici": Chosen(("ici",), about="the paper's second stage"),
    "ivc": Chosen(("ivc",), about="the paper's third stage"),
    "ivc, cross": Chosen(
        ("ivc",), {"front_door": "cross"}, about="the front door by its formula"
    ),
    "ivc, cross, K = 0": Chosen(
        ("ivc",), {"front_door": "cross", "front_door_videos": 0}, about="the mediator alone"
    ),
    "ich,ici": Chosen(("ich", "ici"), control=BOTH, about="the paper's text side"),
    "ich,ici,ivc": Chosen(("ich", "ici", "ivc"), control=BOTH, about="the paper's method"),
    "none, centred": Chosen(values=CENTRED, about="none on V less its mean over time"),
    "none, swap": Chosen(values=SWAPPED, about="none, means over time exchanged in training"),
    "both, centred": Chosen(
        values={"tokens": "both", **CENTRED}, control=BOTH, about="both less their means over time"
    ),
    "both, swap": Chosen(
        values={"tokens": "both", **SWAPPED}, control=BOTH,
        about="both, means over time exchanged in training",
    ),
    "experts": Chosen(head="experts", control=BOTH, about="five views, a loss each, their product"),
    "experts, swap": Chosen(
        head="experts", values=SWAPPED, control=BOTH, about="experts, means exchanged in training"
    ),
}  # fmt: skip
HEADS |= {
    order_name(order): Chosen(
        order, control=BOTH if "ich" in order else NONE, about="an order of the paper's stages"
    )
    for order in ORDERS
    if order_name(order) not in HEADS
}
