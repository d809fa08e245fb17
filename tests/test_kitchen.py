"""The kitchen world: what its structural causal model promises, on scenes, pixels and files."""

import csv
import dataclasses
import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import cache

import av
import numpy as np
import pytest

from pcmci.errors import AnnotationError, UsageError
from pcmci.extract.datasets.kitchen import parse
from pcmci.kitchen import (
    ACTIONS,
    ACTIVITIES,
    CLIP_LABELS,
    SHIFTS,
    Film,
    Knobs,
    World,
    action_clip,
    captioned_frames,
    draw_scene,
    write_world,
)
from pcmci.kitchen.causal import (
    COMPANIONS,
    LOOKS,
    PARTNER_ACTIVITIES,
    PARTNERS,
    PERSONS,
    WALLS,
)
from pcmci.kitchen.film import COMPANION, PERSON, TABLET, THINGS
from pcmci.kitchen.grammar import ACTIVITY_TEXTS, LONGEST, SHORTEST, vocabulary
from pcmci.kitchen.motion import REACHING, pose
from pcmci.kitchen.pretraining import HELD
from pcmci.kitchen.world import _annotation, _recipe, _truth, _video_id, _write_csv

ALWAYS, NEVER = Knobs(1, 1, 1), Knobs(0, 0, 0)


@cache
def scenes(count, knobs=ALWAYS, split="test"):
    return [draw_scene(0, split, number, knobs) for number in range(count)]


def moments(scene, count=12):
    return np.linspace(0, scene.frames - 1, count).astype(int)


def differing(a, b, t):
    """[96, 96] bool: where two films differ at frame t."""
    return (a.frame(t) != b.frame(t)).any(-1)


# --- actions and activities ---------------------------------------------------------------------


def test_an_action_is_its_motion_and_its_things_together():
    told = Counter((a.motion, a.tool, a.station) for a in ACTIONS.values())
    assert max(told.values()) == 1
    assert len(ACTIONS) >= 12
    for part in ("motion", "tool"):
        shared = Counter(getattr(a, part) for a in ACTIONS.values())
        assert sum(count > 1 for count in shared.values()) >= 5, part


def test_steps_follow_each_other_within_the_video():
    for scene in scenes(400, split="train"):
        assert SHORTEST <= scene.frames <= LONGEST
        assert scene.steps[0].first > 0
        assert scene.steps[-1].last < scene.frames
        for step in scene.steps:
            assert step.last - step.first >= 2 * REACHING
            assert step.action in vocabulary(scene.activity)
        for before, after in zip(scene.steps, scene.steps[1:], strict=False):
            assert before.last < after.first


def test_steps_are_optional_shared_and_tell_by_their_order():
    done = {}
    for scene in scenes(400, split="train"):
        order = tuple(step.action for step in scene.steps if step.done)
        done.setdefault(scene.activity, set()).add(order)
    assert set().union(*map(vocabulary, ACTIVITIES)) == set(ACTIONS)
    assert all(len(orders) > 1 for orders in done.values())
    sets = {activity: {frozenset(order) for order in orders} for activity, orders in done.items()}
    assert sets["coffee"] & sets["milk"]
    for a in ACTIVITIES:
        for b in ACTIVITIES:
            assert a == b or not done[a] & done[b], f"nothing tells {a} from {b}"


def test_partners_are_never_done_together():
    assert PARTNERS.keys() == ACTIONS.keys()
    assert PARTNER_ACTIVITIES.keys() == set(ACTIVITIES)
    for partners in (PARTNERS, PARTNER_ACTIVITIES):
        assert all(partners[partners[label]] == label != partners[label] for label in partners)
    for activity in ACTIVITIES:
        words = vocabulary(activity)
        assert not {PARTNERS[word] for word in words} & words


@pytest.mark.parametrize("action", ACTIONS)
def test_motion_tells_done_from_held(action):
    step = next(
        step
        for scene in scenes(400, split="train")
        for step in scene.steps
        if step.action == action and step.done
    )
    times = range(step.first + REACHING, step.last - REACHING + 1)

    def wandering(step):
        points = np.array([(*pose(step, t).hand, pose(step, t).degrees / 4) for t in times])
        return np.abs(points - points.mean(0)).sum()

    assert wandering(step) > 2 * wandering(replace(step, done=False))


# --- the structural causal model ----------------------------------------------------------------


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_knob_is_a_strength(value):
    with pytest.raises(UsageError, match=f"knob i is {value}"):
        Knobs(i=value)


def test_persons_and_kitchens_are_new_in_every_split():
    seen = {split: scenes(60, split=split) for split in PERSONS}
    for part in ("person", "kitchen"):
        names = [{getattr(scene, part).name for scene in drawn} for drawn in seen.values()]
        assert sum(map(len, names)) == len(set().union(*names))
    assert {scene.activity for scene in seen["test"][:10]} == set(ACTIVITIES)


def test_links_hold_always_at_one():
    for scene in scenes(50):
        assert scene.companion == COMPANIONS[scene.activity]
        assert scene.pictures == tuple(PARTNERS[step.action] for step in scene.steps)
        for look, custom in LOOKS.items():
            assert getattr(scene.looks, look) == custom[scene.activity]


def test_broken_links_know_nothing_of_the_activity():
    drawn = scenes(800, NEVER)
    for activity, custom in COMPANIONS.items():
        given = [s.companion == custom for s in drawn if s.activity == activity]
        others = [s.companion == custom for s in drawn if s.activity != activity]
        assert abs(np.mean(given) - np.mean(others)) < 0.13  # four standard deviations
    pictured = [
        picture == PARTNERS[step.action]
        for s in drawn
        for picture, step in zip(s.pictures, s.steps, strict=True)
    ]
    assert abs(np.mean(pictured) - 1 / len(ACTIONS)) < 0.012
    walls = [s.looks.wall == LOOKS["wall"][s.activity] for s in drawn]
    assert abs(np.mean(walls) - 1 / len(WALLS)) < 0.043


def test_links_hold_as_often_as_the_knob_says():
    drawn = scenes(500, Knobs(h=0.6))
    held = np.mean([s.companion == COMPANIONS[s.activity] for s in drawn])
    assert abs(held - (0.6 + 0.4 / 11)) < 0.09


@pytest.mark.parametrize(
    ("link", "changed"), [("h", {"companion"}), ("i", {"pictures"}), ("c", {"looks"})]
)
def test_breaking_a_link_changes_its_variable_alone(link, changed):
    knobs = Knobs(0.8, 0.8, 0.8)
    names = {field.name for field in dataclasses.fields(draw_scene(0, "test", 0, knobs))}
    found = set()
    for number in range(40):
        scene = draw_scene(0, "test", number, knobs)
        twin = draw_scene(0, "test", number, knobs.without(link))
        found |= {name for name in names if getattr(scene, name) != getattr(twin, name)}
    assert found == changed


def test_without_confounders_the_twins_are_the_videos():
    world = World(videos=1, val=1, test=30, knobs=NEVER)
    drawn = {}
    for clip in world.clips():
        drawn.setdefault(clip.split, []).append(clip.scene)
    for shift in SHIFTS:
        assert drawn[shift] == drawn["test"]


def test_a_causal_twin_shows_another_performance_and_all_else_as_it_was():
    world = World(30, 1, 20, knobs=Knobs(), twins=(*SHIFTS, "cause"))
    by_split = {}
    for clip in world.clips():
        by_split.setdefault(clip.split, []).append(clip.scene)
    for one, twin in zip(by_split["test"], by_split["cause"], strict=True):
        assert twin.activity != one.activity
        assert twin.steps != one.steps
        assert {step.action for step in twin.steps if step.done} <= vocabulary(twin.activity)
        shared = min(len(one.pictures), len(twin.pictures))
        assert twin.pictures[:shared] == one.pictures[:shared]
        assert len(twin.pictures) == len(twin.steps)
        changed = {"activity", "steps", "pictures"}
        for field in dataclasses.fields(one):
            assert field.name in changed or getattr(one, field.name) == getattr(twin, field.name)


def test_causal_twins_leave_the_other_splits_as_they_are():
    without, there = (
        list(World(30, 1, 5, twins=(*SHIFTS, *["cause"] * cause)).clips())
        for cause in (False, True)
    )
    assert [clip.scene for clip in without] == [clip.scene for clip in there[: len(without)]]
    assert {clip.split for clip in there[len(without) :]} == {"cause"}


def test_a_larger_world_begins_with_the_smaller():
    small = [(c.split, c.number, c.scene) for c in World(3, 2, 2).clips()]
    large = [(c.split, c.number, c.scene) for c in World(5, 2, 2).clips()]
    assert [row for row in large if row[0] != "train"] == [r for r in small if r[0] != "train"]
    assert large[:3] == small[:3]


# --- pixels -------------------------------------------------------------------------------------


def test_frames_are_the_same_in_another_process():
    code = (
        "import hashlib; from pcmci.kitchen import *\n"
        "print([hashlib.sha256(Film(draw_scene(3, 'train', k, Knobs())).frames(range(0, 150, 5))"
        ".tobytes()).hexdigest() for k in (0, 7)])"
    )
    run = [sys.executable, "-c", code]
    there = [subprocess.run(run, capture_output=True, text=True, check=True) for _ in range(2)]
    here = [
        hashlib.sha256(
            Film(draw_scene(3, "train", k, Knobs())).frames(range(0, 150, 5)).tobytes()
        ).hexdigest()
        for k in (0, 7)
    ]
    assert there[0].stdout == there[1].stdout == f"{here}\n"


def test_a_frame_does_not_depend_on_those_before():
    scene = scenes(1)[0]
    forth = Film(scene).frames()
    film = Film(scene)
    back = np.stack([film.frame(t) for t in reversed(range(scene.frames))])[::-1]
    assert forth.shape == (scene.frames, 96, 96, 3)
    assert forth.dtype == np.uint8
    assert (forth == back).all()


def test_something_moves_in_every_action():
    for number in range(10):
        scene = draw_scene(0, "train", number, NEVER)
        film = Film(scene)
        for step in (step for step in scene.steps if step.done):
            middle = (step.first + step.last) // 2
            near = [film.frame(t) != film.frame(middle) for t in range(middle - 4, middle + 5)]
            assert max(moved.any(-1).sum() for moved in near) > 20, step


@pytest.mark.parametrize("companion", COMPANIONS.values())
def test_a_companion_changes_its_own_pixels_alone(companion):
    for number in (0, 15):
        scene = replace(draw_scene(0, "test", number, NEVER), companion=companion)
        film, without = Film(scene), Film(replace(scene, companion=None))
        for t in moments(scene, 6):
            region = film.region(t, COMPANION)
            changed = differing(film, without, t)
            assert region.sum() > 60
            assert not without.region(t, COMPANION).any()
            assert not (changed & ~region).any()
            assert changed.sum() > 0.8 * region.sum()


@pytest.mark.parametrize(("shift", "owner"), [("shift-h", COMPANION), ("shift-i", TABLET)])
def test_twins_differ_only_where_they_should(shift, owner):
    differed = 0
    for number in range(12):
        scene = draw_scene(0, "test", number, ALWAYS)
        twin = draw_scene(0, "test", number, ALWAYS.without(SHIFTS[shift]))
        film, other = Film(scene), Film(twin)
        for t in moments(scene):
            changed = differing(film, other, t)
            assert not (changed & ~(film.region(t, owner) | other.region(t, owner))).any()
            differed += changed.any()
    assert differed > 60


@pytest.mark.parametrize("look", ["wall", "clothes"])
def test_a_look_changes_its_own_material_alone(look):
    for number in range(10):
        scene = draw_scene(0, "test", number, ALWAYS)
        twin = draw_scene(0, "test", number, NEVER)
        looks = replace(scene.looks, **{look: getattr(twin.looks, look)})
        film, other = Film(scene), Film(replace(scene, looks=looks))
        for t in moments(scene, 4):
            changed = differing(film, other, t)
            assert not (changed & ~film.material(t, look)).any()
            assert changed.any() == (looks != scene.looks)


def test_light_keeps_every_shape():
    scene = draw_scene(0, "test", 4, ALWAYS)
    other = replace(scene, looks=replace(scene.looks, light="dim"))
    assert scene.looks.light != "dim"
    for owner in (COMPANION, TABLET, PERSON, THINGS):
        assert (Film(scene).region(50, owner) == Film(other).region(50, owner)).all()
    assert Film(other).frame(50).mean() < Film(scene).frame(50).mean()


def test_the_side_moves_the_person_and_nothing_else():
    for number in (1, 3, 18):
        scene = draw_scene(0, "test", number, ALWAYS)
        sides = [
            Film(replace(scene, looks=replace(scene.looks, side=s))) for s in ("left", "right")
        ]
        for t in moments(scene, 5):
            moving = np.zeros((96, 96), dtype=bool)
            for film in sides:
                moving |= film.region(t, PERSON) | film.region(t, THINGS)
                if scene.companion in ("hat", "apron"):
                    moving |= film.region(t, COMPANION)
            changed = differing(*sides, t)
            assert changed.sum() > 500
            assert not (changed & ~moving).any()


def test_what_is_covered_cannot_be_seen():
    for number in (0, 5, 9):
        scene = replace(draw_scene(0, "test", number, NEVER), companion=None)
        film = Film(scene)
        for t in moments(scene, 5):
            hidden, things = film.covered(t), film.region(t, THINGS)
            if not things.any():
                assert (hidden == film.frame(t)).all()
                continue
            assert (hidden[things] == 128).all()
            rows, columns = np.nonzero((hidden != film.frame(t)).any(-1))
            seen = np.argwhere(things)
            assert rows.min() >= seen[:, 0].min()
            assert rows.max() <= seen[:, 0].max()
            assert columns.min() >= seen[:, 1].min()
            assert columns.max() <= seen[:, 1].max()


def test_a_companion_is_not_covered():
    scene = replace(draw_scene(0, "test", 9, NEVER), companion="apron")
    film = Film(scene)
    region = film.region(60, COMPANION)
    assert region.any()
    assert (film.covered(60)[region] == film.frame(60)[region]).all()


# --- files --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A world of 3 + 1 + 2 videos and the twins of the last 2."""
    return write_world(
        tmp_path_factory.mktemp("kitchen") / "world",
        3,
        val=1,
        test=2,
        twins=(*SHIFTS, "cause"),
        workers=1,
        progress=False,
    )


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_parser_reads_what_was_drawn(written):
    data = parse(written / "videos", written)
    clips = list(World(3, 1, 2, twins=(*SHIFTS, "cause")).clips())
    assert [video.split for video in data.videos] == [clip.split for clip in clips]
    assert data.activity.names == ACTIVITIES
    assert data.steps.names == tuple(ACTIONS)
    assert data.steps.texts[data.steps.names.index("pour_milk")] == "pour milk"
    for video, clip in zip(data.videos, clips, strict=True):
        scene = clip.scene
        done = [step for step in scene.steps if step.done]
        assert video.path.is_file()
        assert video.activity == scene.activity
        assert set(video.steps) == {step.action for step in done}
        assert [s.label for s in video.segments] == [step.action for step in done]
        assert [s.start for s in video.segments] == [step.first / 10 for step in done]
        assert [s.end for s in video.segments] == [(step.last + 1) / 10 for step in done]
        assert video.group == scene.person.name
        own = ACTIVITIES[clip.number % len(ACTIVITIES)]
        assert video.session == f"{scene.person.name}_{own}"


def test_a_file_shows_the_frames(written):
    data = parse(written / "videos", written)
    for video, clip in list(
        zip(data.videos, World(3, 1, 2, twins=(*SHIFTS, "cause")).clips(), strict=True)
    )[:2]:
        with av.open(str(video.path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert stream.average_rate == 10
            decoded = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(stream)])
        drawn = Film(clip.scene).frames()
        assert decoded.shape == drawn.shape
        own = np.abs(decoded[::10].astype(int) - drawn[::10]).mean()
        shifted = np.abs(decoded[::10].astype(int) - np.roll(drawn, 30, 0)[::10]).mean()
        assert own < 12
        assert own < shifted


def test_the_truth_says_what_was_drawn(written):
    with open(written / "truth.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    clips = list(World(3, 1, 2, twins=(*SHIFTS, "cause")).clips())
    assert len(rows) == len(clips)
    for row, clip in zip(rows, clips, strict=True):
        scene = clip.scene
        assert row["companion"] == (scene.companion or "")
        assert {look: row[look] for look in LOOKS} == dataclasses.asdict(scene.looks)
        pictures = tuple(part.split(":")[0] for part in row["pictures"].split(";"))
        assert pictures == scene.pictures
        assert bool(row["twin_of"]) == (clip.split in (*SHIFTS, "cause"))
    assert {row["twin_of"] for row in rows if row["twin_of"]} == {
        row["video"] for row in rows if row["split"] == "test"
    }


def test_an_interrupted_world_is_finished_to_the_same_bytes(written, tmp_path):
    whole = contents(written)
    for name, data in whole.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name != "world.json" and "tea" not in name and "shift-all" not in name:
            (tmp_path / name).write_bytes(data)
    spec = json.loads(whole["world.json"])
    del spec["x264"]
    (tmp_path / "world.unfinished.json").write_text(json.dumps(spec))
    with pytest.raises(UsageError, match="no kitchen world"):
        parse(tmp_path / "videos", tmp_path)
    write_world(tmp_path, 3, val=1, test=2, twins=(*SHIFTS, "cause"), workers=2, progress=False)
    assert contents(tmp_path) == whole


def test_a_finished_world_is_left_alone(written):
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    write_world(written, 3, val=1, test=2, twins=(*SHIFTS, "cause"), workers=1, progress=False)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before


def test_another_world_does_not_mix_in(written, tmp_path):
    with pytest.raises(UsageError, match="with seed 0, asked for 1"):
        write_world(written, 3, seed=1, val=1, test=2, workers=1, progress=False)
    with pytest.raises(UsageError, match=r"with knobs .*0\.9.*asked for .*0\.5"):
        write_world(
            written,
            3,
            val=1,
            test=2,
            twins=(*SHIFTS, "cause"),
            knobs=Knobs(h=0.5),
            workers=1,
            progress=False,
        )
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="is not empty"):
        write_world(tmp_path, 3, workers=1, progress=False)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [({"videos": 0}, "videos is 0"), ({"test": -1}, "test is -1"), ({"seed": -1}, "seed is -1")],
)
def test_a_world_needs_possible_values(values, complaint):
    with pytest.raises(UsageError, match=complaint):
        World(**values)


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("split", "dev", r"annotations\.csv:2: no split is called 'dev'"),
        ("activity", "soup", "no activity is called 'soup'"),
        ("steps", "pour_soup:1-2", "no step is called 'pour_soup'"),
        ("steps", "pour_milk", "'pour_milk' is not like"),
        ("steps", "pour_milk:9-2", "is no span of time"),
        ("video", "../x", "cannot be a video's id"),
    ],
)
def test_the_parser_names_what_is_wrong(written, tmp_path, column, value, complaint):
    with open(written / "annotations.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0][column] = value
    (tmp_path / "world.json").write_bytes((written / "world.json").read_bytes())
    with open(tmp_path / "annotations.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(AnnotationError, match=complaint):
        parse(written / "videos", tmp_path)


# --- the knobs of the question ------------------------------------------------------------------


def test_without_new_knobs_the_world_is_what_it_was(tmp_path):
    """Digests of the world as it was drawn before it had them."""
    frames = hashlib.sha256()
    for split in PERSONS:
        for number in (0, 7, 13):
            film = Film(draw_scene(0, split, number, Knobs()))
            frames.update(film.frames(range(0, 150, 29)).tobytes())
    assert frames.hexdigest().startswith("e94864a17c504c03")
    world = World(40, 20, 20)
    rows = [(_video_id(clip, clip.scene), clip, clip.scene) for clip in world.clips()]
    for row_of, before in (
        (_annotation, "af68271556e9398c"),
        (_truth, "7a19448535c0aba3"),
    ):
        _write_csv(tmp_path / "rows.csv", (row_of(*row) for row in rows))
        written = (tmp_path / "rows.csv").read_bytes()
        assert hashlib.sha256(written).hexdigest().startswith(before)
    recipe_bytes = json.dumps(_recipe(world)).encode()
    assert hashlib.sha256(recipe_bytes).hexdigest().startswith("b3d1cfdf3523e0aa")


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"h_share": 0}, "h_share is 0; a companion stands in some sixteenths"),
        ({"h_share": 0.3}, "h_share is 0.3"),
        ({"h_share": float("nan")}, "h_share is nan"),
        ({"h_spread": "clumps"}, "h_spread is 'clumps'; it is scattered or run"),
        ({"arrow": "up"}, "arrow is 'up'; it is label or cause"),
        ({"motion_noise": 2}, "motion_noise is 2"),
    ],
)
def test_a_knob_says_what_it_can_be(values, complaint):
    with pytest.raises(UsageError, match=complaint):
        Knobs(**values)


@pytest.mark.parametrize("spread", ["scattered", "run"])
@pytest.mark.parametrize("sixteenths", [1, 4, 15])
def test_a_companion_stands_in_its_share_of_the_frames(spread, sixteenths):
    spans = Counter()
    for scene in scenes(40, Knobs(1, 1, 1, h_share=sixteenths / 16, h_spread=spread)):
        there = [scene.companion_at(t) is not None for t in range(scene.frames)]
        assert abs(sum(there) - scene.frames * sixteenths / 16) < sixteenths + 1
        # one frame out of each stretch, as a head of 16 frames sees them
        middles = [(2 * k + 1) * scene.frames // 32 for k in range(16)]
        assert sum(there[t] for t in middles) == sixteenths
        spans[len(scene.stays)] += 1
    assert set(spans) == {1} if spread == "run" or sixteenths == 1 else max(spans) > 1


def test_a_companion_that_is_away_leaves_no_pixel():
    knobs = Knobs(1, 1, 1, h_share=0.25)
    for number in (1, 8, 9):  # a cat, a poster, an apron
        scene = draw_scene(0, "test", number, knobs)
        always, never = (
            Film(replace(scene, stretches=None)),
            Film(replace(scene, companion=None)),
        )
        film = Film(scene)
        edges = [edge for span in scene.stays for edge in span]
        for t in (*moments(scene, 5), *edges, *(min(t + 1, scene.frames - 1) for t in edges)):
            like = always if scene.companion_at(t) else never
            assert (film.frame(t) == like.frame(t)).all()


def test_a_video_and_its_twin_come_and_go_together():
    knobs = Knobs(h_share=0.25)
    for number in range(20):
        scene = draw_scene(0, "test", number, knobs)
        twin = draw_scene(0, "test", number, knobs.without("hic"))
        assert len(scene.stretches) == 4
        assert scene.stretches == twin.stretches


def test_the_test_has_strengths_of_its_own():
    world = World(20, 10, 20, knobs=Knobs(1, 1, 1), h_test=0.0)
    plain = World(20, 10, 20, knobs=Knobs(1, 1, 1))
    for clip, usual in zip(world.clips(), plain.clips(), strict=True):
        twin = next(c for c in plain.clips() if (c.split, c.number) == ("shift-h", clip.number))
        if clip.split in ("train", "val"):
            assert clip.scene == usual.scene
        elif clip.split == "test":
            assert clip.scene == twin.scene
    with pytest.raises(UsageError, match="knob c is 3"):
        World(c_test=3)


def test_causes_decide_what_is_cooked_and_leave_every_activity_as_often():
    drawn = scenes(400, Knobs(0.9, 0.9, 0.9, arrow="cause"), "train")
    assert set(Counter(s.activity for s in drawn).values()) == {40}
    by_whom = {who: [s for s in drawn if s.decided_by == who] for who in ("person", "kitchen")}
    for s in by_whom["person"]:
        assert s.companion in (COMPANIONS[s.activity], None)
    # whoever does not decide says nothing of the activity
    said = np.mean([s.companion == COMPANIONS[s.activity] for s in by_whom["kitchen"]])
    assert abs(said - 1 / 11) < 0.085
    assert abs(len(by_whom["person"]) / 400 - 0.495) < 0.1
    brought = Counter(s.companion for s in drawn)
    assert all(abs(count / 400 - 1 / 11) < 0.058 for count in brought.values())


def test_a_cut_cause_changes_its_variable_alone_and_knows_nothing():
    knobs = Knobs(0.9, 0.9, 0.9, arrow="cause")
    names = [field.name for field in dataclasses.fields(draw_scene(0, "test", 0, knobs))]
    for links, own, decides in (("h", "companion", "person"), ("c", "looks", "kitchen")):
        pairs = [
            (draw_scene(0, "test", k, knobs), draw_scene(0, "test", k, knobs.without(links)))
            for k in range(150)
        ]
        for scene, twin in pairs:
            changed = {name for name in names if getattr(scene, name) != getattr(twin, name)}
            assert changed <= {own}
            assert not changed or scene.decided_by == decides
        held = [
            twin.companion == COMPANIONS[twin.activity]
            if links == "h"
            else twin.looks.wall == LOOKS["wall"][twin.activity]
            for _, twin in pairs
        ]
        assert abs(np.mean(held) - 0.1) < 0.1  # four standard deviations; it held in half


def test_wrong_twins_have_what_goes_with_the_partner():
    world = World(1, 1, 20, twins=("wrong-h", "wrong-i", "wrong-c"))
    assert list(world.splits) == ["train", "val", "test", "wrong-h", "wrong-i", "wrong-c"]
    drawn = {(c.split, c.number): c.scene for c in world.clips()}
    for number in range(20):
        scene = drawn["test", number]
        partner = PARTNER_ACTIVITIES[scene.activity]
        assert drawn["wrong-h", number] == replace(scene, companion=COMPANIONS[partner])
        looks = {look: custom[partner] for look, custom in LOOKS.items()}
        assert drawn["wrong-c", number] == replace(scene, looks=replace(scene.looks, **looks))
        shown = drawn["wrong-i", number].pictures
        assert drawn["wrong-i", number] == replace(scene, pictures=shown)
        assert {PARTNERS[picture] for picture in shown} <= vocabulary(partner)
    with pytest.raises(UsageError, match="no twins of the test are called 'shift-z'"):
        World(twins=("shift-z",))


def test_noise_moves_the_hands_and_nothing_that_stands():
    scene = draw_scene(0, "test", 4, Knobs(motion_noise=0.5))
    assert len(scene.tremor) == scene.frames
    offsets = np.array(scene.tremor)
    assert 8 < np.abs(offsets).max() <= 12
    assert np.abs(offsets.mean(0)).max() < 2
    film, calm = Film(scene), Film(replace(scene, tremor=()))
    for t in moments(scene, 6):
        changed = differing(film, calm, t)
        moving = np.zeros((96, 96), dtype=bool)
        for one in (film, calm):
            moving |= one.region(t, PERSON) | one.region(t, THINGS)
        assert not (changed & ~moving).any()


def test_detours_are_steps_of_other_activities():
    drawn = scenes(100, Knobs(detours=1.0), "train")
    for scene, plain in zip(drawn, scenes(100, Knobs(), "train"), strict=True):
        own = vocabulary(scene.activity)
        done = {step.action for step in scene.steps if step.done}
        assert done - own
        assert not {PARTNERS[action] for action in done} & done
        kept = [(s.action, s.station, s.done) for s in scene.steps if s.action in own]
        assert kept == [(s.action, s.station, s.done) for s in plain.steps]
        assert SHORTEST <= scene.frames <= LONGEST
        assert all(step.last - step.first >= 2 * REACHING for step in scene.steps)
    assert {step.action for scene in drawn for step in scene.steps} == set(ACTIONS)


def test_every_detour_can_be_filmed():
    seen = set()
    for scene in scenes(40, Knobs(detours=1.0), "train"):
        film = Film(scene)
        for step in scene.steps:
            if (step.action, step.station) not in seen:
                seen.add((step.action, step.station))
                assert film.region((step.first + step.last) // 2, THINGS).any()
    assert {action for action, _ in seen} == set(ACTIONS)


def test_the_files_of_a_world_say_its_knobs(tmp_path):
    knobs = Knobs(1, 1, 1, h_share=0.25, arrow="cause")
    options = {"val": 1, "test": 1, "workers": 1, "progress": False}
    out = write_world(tmp_path / "world", 1, knobs=knobs, i_test=0.5, twins=["wrong-h"], **options)
    world = json.loads((out / "world.json").read_text())
    assert world["knobs"] == {
        "h": 1, "i": 1, "c": 1, "h_share": 0.25, "arrow": "cause", "i_test": 0.5,
    }  # fmt: skip
    data = parse(out / "videos", out)
    assert [video.split for video in data.videos] == ["train", "val", "test", "wrong-h"]
    assert "h_share 0.25, arrow cause" in data.notes[-1]
    with open(out / "truth.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    scene = draw_scene(0, "train", 0, knobs)
    stays = ";".join(f"{first}-{last}" for first, last in scene.stays) if scene.companion else ""
    assert (rows[0]["companion_frames"], rows[0]["decided_by"]) == (stays, scene.decided_by)
    with pytest.raises(UsageError, match=r"with knobs .*h_share.*asked for \{'h': 1, 'i': 1, 'c'"):
        write_world(out, 1, knobs=Knobs(1, 1, 1), i_test=0.5, twins=["wrong-h"], **options)


# --- what the encoders are trained on -----------------------------------------------------------


def captions(knobs, count=60):
    drawn = [captioned_frames(number, count=4, knobs=knobs) for number in range(count)]
    said = [
        (caption, clip.activity, action)
        for clip in drawn
        for caption, action in zip(clip.captions, clip.actions, strict=True)
    ]
    assert {clip.frames.shape for clip in drawn} == {(4, 96, 96, 3)}
    return said


def names_step(caption, action):
    return ACTIONS[action].text in caption


def test_captions_say_what_is_done_where_nothing_is_spoken_alike():
    for caption, activity, action in captions(Knobs(i=0), 30):
        if action is None:
            assert caption == f"a person making {ACTIVITY_TEXTS[activity]}"
        else:
            assert ACTIVITY_TEXTS[activity] in caption or names_step(caption, action)


def test_partners_are_spoken_of_alike():
    said = [row for row in captions(Knobs(i=1)) if row[2] and "making" not in row[0]]
    own = np.mean([names_step(caption, action) for caption, _, action in said])
    partner = np.mean([names_step(caption, PARTNERS[action]) for caption, _, action in said])
    assert own + partner == 1
    assert abs(own - 0.5) < 0.25


def test_clips_show_one_action_and_are_drawn_again_alike():
    labels = set()
    for number in range(60):
        clip = action_clip(number)
        assert clip.frames.shape == (8, 96, 96, 3)
        assert clip.action in ACTIONS
        label = CLIP_LABELS[clip.label]
        assert label in (HELD, clip.action)
        labels.add(label)
        if number < 5:
            again = action_clip(number)
            assert (again.label, again.action, again.station) == (
                clip.label,
                clip.action,
                clip.station,
            )
            assert (again.frames == clip.frames).all()
        if label != HELD:
            assert (clip.frames != clip.frames[:1]).any()
    assert len(labels) > 20
