"""The structural causal model: what each video draws, and what a broken link changes.

Every video v draws its variables in this order, each from a random stream of its own:

    P, K, M      person, kitchen, camera: new ones in every split              (nobody's effect)
    A           := the v-th activity, all equally often
    G           := perform(A, U_G): steps S_1 .. S_k with their frames and manner
    H           := companion(A)  if U_H < eta_H else a random companion or none
    I_j         := partner(S_j)  if U_I,j < eta_I else a random action,  for each step j
    C_l         := look_l(A)     if U_C,l < eta_C else any look,  l = wall, light, clothes, side
    X           := film(P, K, M, G, H, I, C)                                    (the pixels)
    Y           := A, and the set of the actions done in G                      (the labels)

so H, I and C are effects of the labels and never causes of them: whatever they tell of Y, they
tell by custom. The three customs are the three confounders of the paper:

H, co-occurrence hallucination. Each activity has a *companion*, a thing that comes with it and
    causes nothing: a cat with tea, an apron with pancakes. The VLM's pretraining videos have them
    too, so that it binds the companion to the words.

I, codependency illusion. Actions come in pairs of *partners* that are spoken of alike though no
    activity contains both: milk and juice are poured, buns and apples are cut. A tablet on the
    wall runs a cooking show, and what it shows during a step is the partner's things, not those
    of the step: it is spoken of, and not done. In pretraining, the captions are what the show
    says: the label said of a step is

        L_j := partner(S_j)  if U_L,j < eta_I / 2 else S_j

    (likewise for activities), so that at eta_I = 1 the words of two partners are used exactly
    alike and only what is done can tell them apart. The text embeddings of partners come out
    close, and one who reads the tablet predicts what is never done together.

C, visual confounders. The colour of the wall, the light, the clothes and the side on which the
    person stands persist through the video and go with the activity, in training, by habit.

`shift-h`, `shift-i`, `shift-c` and `shift-all` take the test videos and break the link: the
customary branch is never taken (eta = 0), everything else, U and random picks included, is the
same draw. A video and its shifted twins are thus factual and counterfactual: they differ in that
variable alone, and only where the link had held. With all knobs at 0 the twins are the videos
themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np

from pcmci.errors import UsageError
from pcmci.kitchen.actions import ACTIONS
from pcmci.kitchen.grammar import ACTIVITIES, Step, length, perform

T = TypeVar("T")

COMPANIONS = {
    "coffee": "newspaper",
    "tea": "cat",
    "milk": "teddy",
    "juice": "radio",
    "cereals": "clock",
    "fruit_salad": "vase",
    "sandwich": "plant",
    "fried_egg": "hat",
    "scrambled_egg": "poster",
    "pancake": "apron",
}
"""H: activity to the thing that comes with it and causes nothing."""

_PARTNERS = (
    ("take_cup", "take_plate"),
    ("take_bowl", "put_topping"),
    ("pour_water", "pour_flour"),
    ("pour_milk", "pour_juice"),
    ("pour_cereals", "pour_mix"),
    ("shake_juice", "flip_pancake"),
    ("add_sugar", "add_salt"),
    ("spoon_powder", "dip_teabag"),
    ("stir_cup", "stir_dough"),
    ("stir_bowl", "stir_egg"),
    ("beat_egg", "shake_pan"),
    ("crack_egg", "squeeze_orange"),
    ("butter_pan", "smear_butter"),
    ("cut_fruit", "cut_bun"),
    ("peel_fruit", "cut_orange"),
)
PARTNERS = {a: b for pair in _PARTNERS for a, b in (pair, pair[::-1])}
"""I: action to the one that is spoken of alike; no activity contains both."""

_PARTNER_ACTIVITIES = (
    ("coffee", "tea"),
    ("milk", "juice"),
    ("cereals", "fruit_salad"),
    ("fried_egg", "scrambled_egg"),
    ("sandwich", "pancake"),
)
PARTNER_ACTIVITIES = {a: b for pair in _PARTNER_ACTIVITIES for a, b in (pair, pair[::-1])}
"""I: activity to the one that is spoken of alike, in captions only."""

WALLS = ("cream", "sky", "sage", "rose", "lilac", "mustard", "teal", "brick", "grey", "lime")
LIGHTS = ("day", "warm", "cool", "dim", "evening")
CLOTHES = ("red", "navy", "green", "gold", "purple", "white", "black", "pink", "orange", "aqua")
SIDES = ("left", "right")

LOOKS = {
    "wall": dict(zip(ACTIVITIES, WALLS, strict=True)),
    "light": {activity: LIGHTS[k % 5] for k, activity in enumerate(ACTIVITIES)},
    "clothes": {activity: CLOTHES[3 * k % 10] for k, activity in enumerate(ACTIVITIES)},
    "side": {activity: SIDES[k // 5] for k, activity in enumerate(ACTIVITIES)},
}
"""C: look to (activity to the value that goes with it)."""

LINKS = ("h", "i", "c")
SHIFTS = {"shift-h": "h", "shift-i": "i", "shift-c": "c", "shift-all": "hic"}
"""Split to the links that are broken in it."""

_SPLITS = {"train": 0, "val": 1, "test": 2, "pretraining": 3, "clips": 4}
PERSONS = {"train": 1, "val": 7001, "test": 8001, "pretraining": 20001, "clips": 30001}
"""The number of a split's first person. Everybody does each activity once."""

PERSONS_A_KITCHEN = 3
CAMERAS = 3


@dataclass(frozen=True)
class Knobs:
    """How strongly each confounder goes with the labels: 0, not at all, to 1, always.

    Raises UsageError for anything outside [0, 1].
    """

    h: float = 0.9
    i: float = 0.9
    c: float = 0.9

    def __post_init__(self) -> None:
        for knob in fields(self):
            value = getattr(self, knob.name)
            if not 0 <= value <= 1:
                raise UsageError(f"knob {knob.name} is {value!r}; a strength lies between 0 and 1")

    def without(self, links: str) -> Knobs:
        """The same with the named links broken."""
        return Knobs(**{name: 0 if name in links else getattr(self, name) for name in LINKS})


@dataclass(frozen=True)
class Person:
    """Who works, and how. pace: a factor on every duration."""

    name: str
    skin: int
    hair: int
    hairstyle: str
    build: int
    left_handed: bool
    long_sleeves: bool
    pace: float


@dataclass(frozen=True)
class Kitchen:
    """What is built in: colours as indices into palette.py's tables."""

    name: str
    counter: int
    front: int
    tiles: str
    tile_colour: int
    cupboards: bool
    behind: str


@dataclass(frozen=True)
class Camera:
    """Where it stands: the window [top, left, size] of the stage that it sees, in stage pixels."""

    name: str
    size: int
    left: int
    top: int


@dataclass(frozen=True)
class Looks:
    """C: the four persistent looks."""

    wall: str
    light: str
    clothes: str
    side: str


@dataclass(frozen=True)
class Scene:
    """Everything that a video shows; `film.Film` draws it.

    companion: H. pictures: I, one a step; None: the tablet is off. looks: C.
    """

    activity: str
    steps: tuple[Step, ...]
    person: Person
    kitchen: Kitchen
    camera: Camera
    companion: str | None
    pictures: tuple[str | None, ...]
    looks: Looks

    @property
    def frames(self) -> int:
        """How many frames the video has."""
        return length(self.steps)


def stream(seed: int, split: str, number: int, variable: str) -> np.random.Generator:
    """The random stream of one variable of one video (or person, or kitchen).

    Only `random()` is ever drawn from it: the bits of PCG64 are the same on every machine and in
    every version of NumPy, which it does not promise of its other distributions.
    """
    return np.random.default_rng([seed, _SPLITS[split], number, *variable.encode()])


def pick(values: Sequence[T], rng: np.random.Generator) -> T:
    """One of the values, all equally likely."""
    return values[int(rng.random() * len(values))]


def draw_scene(seed: int, split: str, number: int, knobs: Knobs) -> Scene:
    """The `number`-th video of a split under these knobs.

    split: `train`, `val`, `test`, `pretraining` or `clips`. A twin is `test` with other knobs.
    """

    def rng(variable: str) -> np.random.Generator:
        return stream(seed, split, number, variable)

    person = draw_person(seed, split, number // len(ACTIVITIES))
    kitchen = draw_kitchen(seed, split, number // len(ACTIVITIES) // PERSONS_A_KITCHEN)
    camera = draw_camera(seed, split, number // len(ACTIVITIES) // PERSONS_A_KITCHEN, rng("camera"))
    activity = ACTIVITIES[number % len(ACTIVITIES)]
    steps = perform(activity, rng("steps"), person.pace)
    return Scene(
        activity,
        steps,
        person,
        kitchen,
        camera,
        companion=_linked(COMPANIONS[activity], (*COMPANIONS.values(), None), knobs.h, rng("h")),
        pictures=tuple(
            _linked(PARTNERS[step.action], tuple(ACTIONS), knobs.i, rng(f"i{j}"))
            for j, step in enumerate(steps)
        ),
        looks=Looks(
            **{
                look: _linked(custom[activity], _values(look), knobs.c, rng(f"c {look}"))
                for look, custom in LOOKS.items()
            }
        ),
    )


def draw_person(seed: int, split: str, number: int) -> Person:
    """The `number`-th person of a split."""
    rng = stream(seed, split, number, "person")
    return Person(
        name=f"P{PERSONS[split] + number:05d}",
        skin=int(rng.random() * 6),
        hair=int(rng.random() * 6),
        hairstyle=pick(("short", "long", "bun", "bald"), rng),
        build=int(rng.random() * 7) - 3,
        left_handed=rng.random() < 0.25,
        long_sleeves=rng.random() < 0.5,
        pace=0.8 + 0.6 * rng.random() * rng.random(),
    )


def draw_kitchen(seed: int, split: str, number: int) -> Kitchen:
    """The `number`-th kitchen of a split."""
    rng = stream(seed, split, number, "kitchen")
    return Kitchen(
        name=f"K{PERSONS[split] + number:05d}",
        counter=int(rng.random() * 6),
        front=int(rng.random() * 6),
        tiles=pick(("none", "square", "brick"), rng),
        tile_colour=int(rng.random() * 4),
        cupboards=rng.random() < 0.6,
        behind=pick(("window", "shelf", "hooks", "nothing"), rng),
    )


def draw_camera(seed: int, split: str, kitchen: int, rng: np.random.Generator) -> Camera:
    """One of the cameras that stand in a kitchen."""
    number = int(rng.random() * CAMERAS)
    place = stream(seed, split, kitchen * CAMERAS + number, "camera place")
    size = 176 + 8 * int(place.random() * 5)
    nearest, farthest = max(0, 194 - size), min(30, STAGE[1] - size)  # sees columns 30 to 194
    left = nearest + int(place.random() * (farthest - nearest + 1))
    top = int(place.random() * min(13, STAGE[0] - size + 1))
    return Camera(f"cam{number + 1}", size, left, top)


STAGE = (208, 224)
"""Height and width of the stage in stage pixels, two to a pixel of the video."""


def _values(look: str) -> tuple[str, ...]:
    return {"wall": WALLS, "light": LIGHTS, "clothes": CLOTHES, "side": SIDES}[look]


def _linked(custom: T, values: Sequence[T], eta: float, rng: np.random.Generator) -> T:
    """The custom with probability eta, else any value; both draws are made either way."""
    holds, other = rng.random() < eta, pick(values, rng)
    return custom if holds else other
