"""The kitchen world: videos drawn by the program, whose causes are known.

    write_world(Path("data/kitchen"), videos=600, knobs=Knobs(h=0.9, i=0.9, c=0.9))

actions.py    the atomic actions: a motion with a tool
grammar.py    the activities: grammars over them
causal.py     the structural causal model: what each video draws
motion.py     where the hands are at each moment
palette.py    colours, looks and light
shapes.py     sprites, filled in
things.py     tools, stations, companions
figure.py     the person
room.py       the kitchen
canvas.py     what is drawn on
film.py       a scene to its frames
world.py      all videos of a world, written with annotations and truth
pretraining.py  what the world's encoders are trained on
"""

from pcmci.kitchen.actions import ACTIONS
from pcmci.kitchen.causal import SHIFTS, TWINS, WRONG, Knobs, Scene, draw_scene
from pcmci.kitchen.film import Film
from pcmci.kitchen.grammar import ACTIVITIES
from pcmci.kitchen.pretraining import CLIP_LABELS, action_clip, captioned_frames
from pcmci.kitchen.world import World, training_videos, twins_of, write_world

__all__ = [
    "ACTIONS",
    "ACTIVITIES",
    "CLIP_LABELS",
    "SHIFTS",
    "TWINS",
    "WRONG",
    "Film",
    "Knobs",
    "Scene",
    "World",
    "action_clip",
    "captioned_frames",
    "draw_scene",
    "training_videos",
    "twins_of",
    "write_world",
]
