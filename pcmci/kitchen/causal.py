"""The structural causal model: what each video draws, and what a broken link changes.

Every video v draws its variables in this order, each from a random stream of its own:

    P, K, M      person, kitchen, camera: new ones in every split              (nobody's effect)
    A           := the v-th activity, all equally often
    G           := perform(A, U_G): steps S_1 .. S_k with their frames and manner, and after
                   each, as often as `detours` says, a step that A does not have
    H           := companion(A)  if U_H < eta_H else a random companion or none
    I_j         := partner(S_j)  if U_I,j < eta_I else a random action,  for each step j
    C_l         := look_l(A)     if U_C,l < eta_C else any look,  l = wall, light, clothes, side
    N           := where the hands are off by, anew in every frame, up to the noise of the motion
    X           := film(P, K, M, G, N, H, I, C)                                 (the pixels)
    Y           := A, and the set of the actions done in G                      (the labels)

so H, I and C are effects of the labels and never causes of them: whatever they tell of Y, they
tell by custom. The three customs are the three confounders of the paper:

H, co-occurrence hallucination. Each activity has a *companion*, a thing that comes with it and
    causes nothing: a cat with tea, an apron with pancakes. The VLM's pretraining videos have them
    too, so that it binds the companion to the words. It stands in a share of the video: in
    so many of its sixteen stretches, any of them or one run, whoever it is and whatever is done.

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

`cause` is the other half, the *causal twins*: the same P, K, M, N, H, C and the same pictures one
after another on the tablet, and

    A' := another activity than A,    G := perform(A', U_A'),    Y := A', the actions done in G

so that what a head's answer changes by is the effect of what is done.

`wrong-h`, `wrong-i` and `wrong-c` are the test videos in which every video has what goes with the
partner of its activity: the partner's companion, what the tablet would show of its steps, its four
looks. Where a shift takes the custom's help away, these make it speak for another answer.

The other arrow
---------------
Above, what is cooked decides what comes with it (`arrow` is `label`). In the graph that the paper
draws the confounders are common causes, C -> X and C -> Y. With `arrow` at `cause`, person and
kitchen decide what is cooked:

    H           := a random companion or none                                   (the person's)
    D           := the decor of a random activity                               (the kitchen's)
    C_l         := look_l(D)  if U_C,l < 0.9 else any look,  for each l
    R           := who decides: the person if U_H < eta_H, the kitchen if U_C < eta_C,
                   either of them if both, nobody if neither
    A           := what H goes with, if R is the person and there is a companion;
                   what D belongs to, if R is the kitchen; else a random activity

and P, K, M, G, I, N, X, Y as above: the tablet shows what it shows because of what is done, under
either arrow. H and D are independent of each other, and dependent given A. Whoever decides, A is
uniform, so that taking the v-th household that cooks the v-th activity (households are drawn until
one does) makes all activities equally often and leaves P(H, C | A) as it is. Two that decide share
the say: with both knobs at 0.9 the companion decides in 0.495 of the videos.

do(H) and do(C) cut what leads from the variable to A: A, and what is done, stay what they were, and
the film shows an H (a D) drawn anew, from the same distribution, independent of A. Where R was
another, it was independent of A already and stays, so that here too a twin differs only where the
link had held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from pcmci.errors import UsageError
from pcmci.kitchen.actions import ACTIONS
from pcmci.kitchen.grammar import ACTIVITIES, Step, length, perform, vocabulary

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

WRONG = {"wrong-h": "h", "wrong-i": "i", "wrong-c": "c"}
"""Split to the variable that is the partner activity's in it."""

CAUSE = "cause"
"""The split of the causal twins."""

TWINS = (*SHIFTS, *WRONG, CAUSE)
"""The splits whose videos are those of the test with something changed."""

ARROWS = ("label", "cause")
"""Whether H and C are effects of what is cooked, or among its causes."""

SPREADS = ("scattered", "run")

STRETCHES = 16
"""A companion comes and goes between this many stretches of a video, equally long to a frame."""

DECOR = 0.9
"""How often a look is that of the kitchen's decor, where the arrow is `cause`."""

TREMOR = 24.0
"""Stage pixels by which the hands are off at most where the noise of the motion is 1."""

_SPLITS = {"train": 0, "val": 1, "test": 2, "pretraining": 3, "clips": 4}
PERSONS = {"train": 1, "val": 7001, "test": 8001, "pretraining": 20001, "clips": 30001}
"""The number of a split's first person. Everybody does each activity once."""

PERSONS_A_KITCHEN = 3
CAMERAS = 3


@dataclass(frozen=True)
class Knobs:
    """How strongly each confounder goes with the labels, and what else is asked of the world.

    h, i, c: 0, not at all, to 1, always.
    h_share: the share of a video's frames in which its companion is there, in sixteenths.
    h_spread: `scattered` over any stretches of the video, or one `run`.
    arrow: `label`, H and C are effects of what is cooked, or `cause`, they decide it.
    motion_noise: how far the hands are off in every frame, 0, not at all, to 1.
    detours: how often a step is followed by one of another activity, 0, never, to 1.
    broken: the links (of LINKS) that are cut.

    Raises UsageError for a value outside these.
    """

    h: float = 0.9
    i: float = 0.9
    c: float = 0.9
    h_share: float = 1.0
    h_spread: str = "scattered"
    arrow: str = "label"
    motion_noise: float = 0.0
    detours: float = 0.0
    broken: str = ""

    def __post_init__(self) -> None:
        for name in (*LINKS, "motion_noise", "detours"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UsageError(f"knob {name} is {value!r}; a strength lies between 0 and 1")
        stretches = self.h_share * STRETCHES
        if not (1 <= stretches <= STRETCHES and stretches == int(stretches)):
            raise UsageError(
                f"knob h_share is {self.h_share!r}; a companion stands in some sixteenths of a "
                "video, 1/16 to 1"
            )
        for name, values in (("h_spread", SPREADS), ("arrow", ARROWS)):
            if getattr(self, name) not in values:
                raise UsageError(
                    f"knob {name} is {getattr(self, name)!r}; it is {' or '.join(values)}"
                )

    def without(self, links: str) -> Knobs:
        """The same with the named links broken."""
        return replace(self, broken=links)

    def with_strengths(self, strengths: Mapping[str, float]) -> Knobs:
        """The same with other strengths of the links named."""
        h, i, c = (strengths.get(link, getattr(self, link)) for link in LINKS)
        return replace(self, h=h, i=i, c=c)

    def strength(self, link: str) -> float:
        """Of a link as it is: 0 for a broken one."""
        return 0.0 if link in self.broken else float(getattr(self, link))


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
    stretches: those of the STRETCHES in which the companion is there; None: all.
    tremor: by how much the hand is off in every frame, in stage pixels; empty: not at all. In a
        video with more frames it begins again.
    decided_by: R, `person`, `kitchen`, or nobody; empty too where the arrow is `label`.
    """

    activity: str
    steps: tuple[Step, ...]
    person: Person
    kitchen: Kitchen
    camera: Camera
    companion: str | None
    pictures: tuple[str | None, ...]
    looks: Looks
    stretches: tuple[int, ...] | None = None
    tremor: tuple[tuple[float, float], ...] = ()
    decided_by: str = ""

    @property
    def frames(self) -> int:
        """How many frames the video has."""
        return length(self.steps)

    @property
    def stays(self) -> tuple[tuple[int, int], ...]:
        """The spans of frames, both ends included, in which a companion is there; stretches side
        by side are one span."""
        spans: list[tuple[int, int]] = []
        for k in range(STRETCHES) if self.stretches is None else self.stretches:
            first, end = self.frames * k // STRETCHES, self.frames * (k + 1) // STRETCHES
            if spans and spans[-1][1] == first - 1:
                first = spans.pop()[0]
            spans.append((first, end - 1))
        return tuple(spans)

    def companion_at(self, t: int) -> str | None:
        """The companion that is there at frame t."""
        is_there = self.stretches is None or any(first <= t <= last for first, last in self.stays)
        return self.companion if is_there else None


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
    steps = perform(activity, rng("steps"), person.pace, knobs.detours, PARTNERS)
    if knobs.arrow == "label":
        companion = _linked(COMPANIONS[activity], _BROUGHT, knobs.strength("h"), rng("h"))
        decor, holds, decided_by = activity, knobs.strength("c"), ""
    else:
        companion, decor, decided_by = _household(activity, knobs, rng)
        holds = DECOR
    return Scene(
        activity,
        steps,
        person,
        kitchen,
        camera,
        companion=companion,
        pictures=tuple(
            _linked(PARTNERS[step.action], tuple(ACTIONS), knobs.strength("i"), rng(f"i{j}"))
            for j, step in enumerate(steps)
        ),
        looks=Looks(
            **{
                look: _linked(custom[decor], _values(look), holds, rng(f"c {look}"))
                for look, custom in LOOKS.items()
            }
        ),
        stretches=_stretches(knobs, rng("h stretches")),
        tremor=_tremor(length(steps), knobs.motion_noise, rng("tremor"))
        if knobs.motion_noise
        else (),
        decided_by=decided_by,
    )


def misled(scene: Scene, link: str, rng: np.random.Generator) -> Scene:
    """The same with the partner activity's companion (`h`), tablet (`i`) or looks (`c`).

    The tablet shows, at each step, what it would show by custom of a random step of the partner.
    """
    partner = PARTNER_ACTIVITIES[scene.activity]
    if link == "h":
        return replace(scene, companion=COMPANIONS[partner])
    if link == "c":
        looks = {look: custom[partner] for look, custom in LOOKS.items()}
        return replace(scene, looks=Looks(**looks))
    shown = [PARTNERS[action] for action in sorted(vocabulary(partner))]
    return replace(scene, pictures=tuple(pick(shown, rng) for _ in scene.steps))


_BROUGHT = (*COMPANIONS.values(), None)


def _household(
    activity: str, knobs: Knobs, rng: Callable[[str], np.random.Generator]
) -> tuple[str | None, str, str]:
    """H, D and R of a household that cooks this activity, H and D drawn anew where cut."""
    draws, spoken_for = rng("household"), {thing: a for a, thing in COMPANIONS.items()}
    while True:
        companion, decor = pick(_BROUGHT, draws), pick(ACTIVITIES, draws)
        say = (("person", draws.random() < knobs.h), ("kitchen", draws.random() < knobs.c))
        coin, anything = draws.random(), pick(ACTIVITIES, draws)
        deciding = [who for who, has_a_say in say if has_a_say]
        decided_by = deciding[int(coin * len(deciding))] if deciding else ""
        cooked = anything
        if decided_by == "kitchen":
            cooked = decor
        elif decided_by == "person" and companion is not None:
            cooked = spoken_for[companion]
        if cooked == activity:
            break
    if "h" in knobs.broken and decided_by == "person":
        companion = pick(_BROUGHT, rng("h"))
    if "c" in knobs.broken and decided_by == "kitchen":
        decor = pick(ACTIVITIES, rng("c decor"))
    return companion, decor, decided_by


def _stretches(knobs: Knobs, rng: np.random.Generator) -> tuple[int, ...] | None:
    """The stretches in which the companion is there; None: all of them."""
    count = int(knobs.h_share * STRETCHES)
    if count == STRETCHES:
        return None
    if knobs.h_spread == "run":
        start = int(rng.random() * (STRETCHES - count + 1))
        return tuple(range(start, start + count))
    order = [rng.random() for _ in range(STRETCHES)]
    return tuple(sorted(sorted(range(STRETCHES), key=order.__getitem__)[:count]))


def _tremor(frames: int, noise: float, rng: np.random.Generator) -> tuple[tuple[float, float], ...]:
    """Uniform in a square, independent from frame to frame, as no hand that works is."""
    reach = TREMOR * noise
    return tuple(
        (reach * (2 * rng.random() - 1), reach * (2 * rng.random() - 1)) for _ in range(frames)
    )


def performed_otherwise(scene: Scene, knobs: Knobs, rng: np.random.Generator) -> Scene:
    """The causal twin of a scene: another activity, all else as it is. The tablet shows the same
    pictures in the same order, from the first again where there are more steps."""
    activity = pick([other for other in ACTIVITIES if other != scene.activity], rng)
    steps = perform(activity, rng, scene.person.pace, knobs.detours, PARTNERS)
    pictures = tuple(scene.pictures[j % len(scene.pictures)] for j in range(len(steps)))
    return replace(scene, activity=activity, steps=steps, pictures=pictures)


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
