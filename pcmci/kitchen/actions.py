"""The atomic actions: what a hand does (a motion) to a thing (a tool, at a station).

Neither half names an action: the knife cuts and peels the same apple, spoon, whisk and spatula
stir. Nor does a single frame, for a tool may be picked up and put back unused (see grammar.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Action:
    """One atomic action.

    name: the label, in the style of the real data sets.
    motion: a path of the hand, see motion.py.
    tool: the thing in the hand, see things.py.
    station: where it is done, or None where the activity says so ("pour_milk@cup").
    seconds: how long it takes on average.
    flow: the colour of what runs or falls out of the tool, or "" for nothing.
    """

    name: str
    motion: str
    tool: str
    station: str | None
    seconds: float
    flow: str = ""

    @property
    def text(self) -> str:
        """The label as one says it: "pour milk"."""
        return readable(self.name)


ACTIONS = {
    action.name: action
    for action in (
        Action("take_cup", "bring", "cup", "cup", 2.0),
        Action("take_bowl", "bring", "bowl", "bowl", 2.0),
        Action("take_plate", "bring", "plate", "plate", 2.0),
        Action("put_topping", "lay", "cheese", "bun", 2.6),
        Action("pour_water", "pour", "kettle", None, 2.9, "water"),
        Action("pour_milk", "pour", "carton", None, 2.9, "milk"),
        Action("pour_juice", "pour", "bottle", None, 2.9, "juice"),
        Action("pour_cereals", "pour", "cereal_box", None, 2.7, "cereal"),
        Action("pour_mix", "pour", "mix_bowl", "pan", 3.0, "batter"),
        Action("pour_flour", "shake", "flour_bag", "bowl", 2.7, "flour"),
        Action("shake_juice", "shake", "bottle", None, 2.4),
        Action("add_sugar", "pour", "caster", None, 2.3, "sugar"),
        Action("add_salt", "shake", "caster", None, 2.3, "sugar"),
        Action("spoon_powder", "ladle", "spoon", "cup", 3.2),
        Action("dip_teabag", "dip", "teabag", "cup", 3.2),
        Action("stir_cup", "stir", "spoon", "cup", 3.0),
        Action("stir_bowl", "stir", "spoon", "bowl", 3.2),
        Action("stir_dough", "stir", "whisk", "bowl", 3.8),
        Action("beat_egg", "beat", "whisk", "bowl", 3.3),
        Action("crack_egg", "crack", "egg", None, 2.6, "yolk"),
        Action("butter_pan", "sweep", "butter", "pan", 2.7),
        Action("stir_egg", "stir", "spatula", "pan", 3.8),
        Action("flip_pancake", "flip", "spatula", "pan", 3.8),
        Action("shake_pan", "jog", "pan_handle", "pan", 3.5),
        Action("cut_fruit", "chop", "knife", "fruit", 3.8),
        Action("peel_fruit", "sweep", "knife", "fruit", 3.5),
        Action("cut_orange", "chop", "knife", "orange", 2.7),
        Action("squeeze_orange", "twist", "orange_half", "squeezer", 3.6),
        Action("cut_bun", "chop", "knife", "bun", 2.7),
        Action("smear_butter", "sweep", "knife", "bun", 3.3),
    )
}
"""All atomic actions by name, in the order of the label set."""

STATIONS = ("cup", "bowl", "pan", "plate", "fruit", "orange", "bun", "squeezer")
"""What stands before the person: vessels, and what lies on the board."""


def readable(name: str) -> str:
    """A label as one says it: "fried_egg" is "fried egg"."""
    return name.replace("_", " ")
