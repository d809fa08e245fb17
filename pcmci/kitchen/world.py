"""A kitchen world: which videos it has, and writing them, with annotations and the truth.

DIR/videos/<split>/<id>.mp4    H.264, 96 x 96, 10 frames a second
DIR/annotations.csv            a row a video: who, where, what, the frames of every step
DIR/truth.csv                  a row a video: what it drew for H, I and C
DIR/world.json                 what the world was made from; written last
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import multiprocessing
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
from tqdm import tqdm

from pcmci.errors import PcmciError, UsageError
from pcmci.kitchen.actions import ACTIONS
from pcmci.kitchen.causal import (
    CAUSE,
    LINKS,
    SHIFTS,
    TWINS,
    WRONG,
    Knobs,
    Scene,
    draw_scene,
    misled,
    performed_otherwise,
    stream,
)
from pcmci.kitchen.film import SIZE, Film
from pcmci.kitchen.grammar import ACTIVITIES, ACTIVITY_TEXTS, FPS

ACTIVITY_TEMPLATE = "a person making {}"
STEP_TEMPLATE = "a person doing: {}"

SPEC, UNFINISHED = "world.json", "world.unfinished.json"

ENCODING = {"preset": "veryfast", "crf": "35", "mbtree": "0", "threads": "1"}
"""x264's settings. One thread: with several its bits depend on the machine. Without its
macroblock tree: with it they depend on what lay in memory before."""


@dataclass(frozen=True)
class World:
    """What a world is made from.

    videos, val, test: how many videos these splits have; every twin split has as many as `test`.
        A world with more training videos begins with those of the smaller one, and its other
        splits are the same.
    h_test, i_test, c_test: strengths in the test and its twins; None: as in training.
    twins: of TWINS, the splits whose videos are those of the test with something changed.
    Raises UsageError for a split without videos, or for no such strength or twins.
    """

    videos: int = 600
    val: int = 60
    test: int = 120
    seed: int = 0
    knobs: Knobs = field(default_factory=Knobs)
    h_test: float | None = None
    i_test: float | None = None
    c_test: float | None = None
    twins: tuple[str, ...] = tuple(SHIFTS)

    def __post_init__(self) -> None:
        for name in ("videos", "val", "test"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; a split needs a video")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; a seed is 0 or more")
        for name in self.twins:
            if name not in TWINS:
                raise UsageError(
                    f"no twins of the test are called {name!r}; {', '.join(TWINS)} are"
                )
        self.knobs_of("test")

    @property
    def splits(self) -> dict[str, int]:
        """Videos of every split."""
        own = {"train": self.videos, "val": self.val, "test": self.test}
        return own | {name: self.test for name in TWINS if name in self.twins}

    def knobs_of(self, split: str) -> Knobs:
        """The knobs that a split is drawn with."""
        if split in ("train", "val"):
            return self.knobs
        links = SHIFTS.get(split, "")
        return self.knobs.with_strengths(self.test_strengths).without(links)

    @property
    def test_strengths(self) -> dict[str, float]:
        """Link to its strength in the test, of those that it has to itself."""
        given = {link: getattr(self, f"{link}_test") for link in LINKS}
        return {link: strength for link, strength in given.items() if strength is not None}

    def clips(self) -> Iterator[Clip]:
        """All videos of the world, split by split."""
        for split, count in self.splits.items():
            for number in range(count):
                yield Clip(self, split, number)


@dataclass(frozen=True)
class Clip:
    """One video of a world: the `number`-th of its split. Not drawn before `scene` is asked."""

    world: World
    split: str
    number: int

    @property
    def scene(self) -> Scene:
        """What it shows."""
        seed, knobs = self.world.seed, self.world.knobs_of(self.split)
        scene = draw_scene(seed, self.source, self.number, knobs)
        if link := WRONG.get(self.split):
            return misled(scene, link, stream(seed, "test", self.number, self.split))
        if self.split == CAUSE:
            return performed_otherwise(scene, knobs, stream(seed, "test", self.number, CAUSE))
        return scene

    @property
    def source(self) -> str:
        """The split whose draw it is: `test` for a twin."""
        return "test" if self.is_twin else self.split

    @property
    def is_twin(self) -> bool:
        return self.split in TWINS


def name_of(scene: Scene) -> str:
    """The id of a video without its shift: `P08003_cam2_tea`."""
    return f"{scene.person.name}_{scene.camera.name}_{scene.activity}"


def write_world(
    out: Path,
    videos: int = 600,
    seed: int = 0,
    knobs: Knobs | None = None,
    *,
    val: int = 60,
    test: int = 120,
    h_test: float | None = None,
    i_test: float | None = None,
    c_test: float | None = None,
    twins: Iterable[str] = tuple(SHIFTS),
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a world under `out` and return `out`; goes on where it was interrupted.

    videos to twins: see `World`.
    workers: processes that draw and encode, all cores by default; with 1 no process is started.
        They import `__main__` anew, so that a script needs its `if __name__ == "__main__"`.
    Raises UsageError where `out` holds something else, or a world made from other values.
    """
    world = World(videos, val, test, seed, knobs or Knobs(), h_test, i_test, c_test, tuple(twins))
    if workers is not None and workers < 1:
        raise UsageError(f"workers is {workers}; it takes one at least")
    before = _claim(out, _recipe(world))
    scenes = [(clip, clip.scene) for clip in world.clips()]
    rows = [(_video_id(clip, scene), clip, scene) for clip, scene in scenes]
    # a video and its twins go to one worker, which copies those that are the same
    families: dict[tuple[str, int], list[tuple[Path, Scene]]] = {}
    for video, clip, scene in rows:
        path = out / "videos" / clip.split / f"{video}.mp4"
        families.setdefault((clip.source, clip.number), []).append((path, scene))
    todo = [family for family in families.values() if not all(p.exists() for p, _ in family)]
    if not todo and (out / SPEC).exists():
        return out
    spec = _recipe(world) | _versions()
    _agree(out, before, spec)
    _write_text(out / UNFINISHED, json.dumps(spec, indent=1) + "\n")
    (out / SPEC).unlink(missing_ok=True)
    for split in world.splits:
        (out / "videos" / split).mkdir(parents=True, exist_ok=True)
    done = len(rows) - sum(map(len, todo))
    with tqdm(
        total=len(rows), initial=done, desc="kitchen", unit="video", disable=not progress
    ) as bar:
        for written in _film_all(todo, workers or os.cpu_count() or 1):
            bar.update(written)
    _write_csv(out / "annotations.csv", (_annotation(*row) for row in rows))
    _write_csv(out / "truth.csv", (_truth(*row) for row in rows))
    spec["x264"] = _x264(families["train", 0][0][0])
    _write_text(out / SPEC, json.dumps(spec, indent=1) + "\n")
    (out / UNFINISHED).unlink(missing_ok=True)
    return out


def training_videos(out: Path) -> int | None:
    """Of the world under `out`, be it finished or not; None where there is none."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return int(_splits_of(out)["train"])
    return None


def twins_of(out: Path) -> tuple[str, ...] | None:
    """The splits of twins that the world under `out` has; None where there is none."""
    splits = _splits_of(out)
    return tuple(name for name in TWINS if name in splits) if splits else None


def _splits_of(out: Path) -> dict[str, Any]:
    for name in (SPEC, UNFINISHED):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            return dict(json.loads((out / name).read_text())["splits"])
    return {}


def write_video(path: Path, frames: Iterable[Any]) -> None:
    """Frames ([96, 96, 3] uint8 each) to an H.264 file, which appears when it is whole."""
    unfinished = path.with_suffix(".unfinished")
    with av.open(str(unfinished), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=ENCODING)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    unfinished.replace(path)


def _film_all(families: list[list[tuple[Path, Scene]]], workers: int) -> Iterator[int]:
    """Film every family; yields the videos of each as it is done."""
    if workers == 1:
        yield from map(_film_family, families)
        return
    # spawned, for a fork of a process with threads (torch's, tqdm's) may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(_film_family, family) for family in families]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise PcmciError(
                "a process that draws the kitchen world died; a script that writes one needs "
                'its `if __name__ == "__main__"`, or workers=1'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _film_family(family: list[tuple[Path, Scene]]) -> int:
    filmed: list[tuple[Path, Scene]] = []
    for path, scene in family:
        if not path.exists():
            same = next((there for there, other in filmed if other == scene), None)
            if same is None:
                film = Film(scene)
                write_video(path, map(film.frame, range(scene.frames)))
            else:
                unfinished = path.with_suffix(".unfinished")
                shutil.copyfile(same, unfinished)
                unfinished.replace(path)
        filmed.append((path, scene))
    return len(family)


def _video_id(clip: Clip, scene: Scene) -> str:
    return f"{_twin_of(clip, scene)}_{clip.split}" if clip.is_twin else name_of(scene)


def _twin_of(clip: Clip, scene: Scene) -> str:
    """The id of the test video; a causal twin shows another activity than that of its name."""
    own = ACTIVITIES[clip.number % len(ACTIVITIES)]
    return name_of(dataclasses.replace(scene, activity=own))


def _annotation(video: str, clip: Clip, scene: Scene) -> dict[str, str | int]:
    return {
        "video": video,
        "split": clip.split,
        "person": scene.person.name,
        "kitchen": scene.kitchen.name,
        "camera": scene.camera.name,
        "frames": scene.frames,
        "activity": scene.activity,
        "steps": ";".join(
            f"{step.action}:{step.first}-{step.last}" for step in scene.steps if step.done
        ),
    }


def _truth(video: str, clip: Clip, scene: Scene) -> dict[str, str | int]:
    knobs, own = clip.world.knobs, {}
    if knobs.h_share < 1:
        stays = scene.stays if scene.companion else ()
        own["companion_frames"] = ";".join(f"{first}-{last}" for first, last in stays)
    if knobs.arrow == "cause":
        own["decided_by"] = scene.decided_by
    return {
        "video": video,
        "split": clip.split,
        "twin_of": _twin_of(clip, scene) if clip.is_twin else "",
        "companion": scene.companion or "",
        "pictures": ";".join(
            f"{picture}:{step.first}-{step.last}"
            for picture, step in zip(scene.pictures, scene.steps, strict=True)
        ),
        **dataclasses.asdict(scene.looks),
        "considered": ";".join(
            f"{step.action}:{step.first}-{step.last}" for step in scene.steps if not step.done
        ),
        **own,
    }


def _claim(out: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """The spec that stands in `out` already, {} for none. Raises UsageError where it is another."""
    there = next((out / name for name in (SPEC, UNFINISHED) if (out / name).exists()), None)
    if there is None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"{out} is not empty and holds no kitchen world: name a new folder")
        out.mkdir(parents=True, exist_ok=True)
        return {}
    try:
        before = dict(json.loads(there.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{there} cannot be read: {error}") from error
    _agree(out, before, recipe)
    return before


def _agree(out: Path, before: dict[str, Any], asked: dict[str, Any]) -> None:
    for key, value in asked.items():
        if before and before.get(key) != value:
            raise UsageError(
                f"{out} holds a kitchen world with {key} {before.get(key)!r}, asked for {value!r}: "
                "name a new folder, or remove this one"
            )


def _recipe(world: World) -> dict[str, Any]:
    """What decides every frame and every label, as it reads back from JSON."""
    return {
        "format": 1,
        "seed": world.seed,
        "knobs": _asked(world),
        "splits": world.splits,
        "size": SIZE,
        "fps": FPS,
        "encoding": ENCODING,
        "activity": {
            "template": ACTIVITY_TEMPLATE,
            "texts": ACTIVITY_TEXTS,
        },
        "steps": {
            "template": STEP_TEMPLATE,
            "texts": {name: action.text for name, action in ACTIONS.items()},
        },
    }


def _asked(world: World) -> dict[str, float | str]:
    """The three strengths, and every other knob that does not stand where it stands by itself, so
    that a world of the first version is still the world that it was."""
    usual, given = dataclasses.asdict(Knobs()), dataclasses.asdict(world.knobs)
    turned = {name: given[name] for name in given if name in LINKS or given[name] != usual[name]}
    return turned | {f"{link}_test": value for link, value in world.test_strengths.items()}


def _versions() -> dict[str, Any]:
    """What the bits of the files depend on besides."""
    libraries = {name: ".".join(map(str, v)) for name, v in av.library_versions.items()}
    return {"av": av.__version__, "ffmpeg": av.ffmpeg_version_info, "libraries": libraries}


def _x264(path: Path) -> str:
    """The encoder's name and version, which it writes into every file."""
    found = re.search(rb"x264 - core [ -~]+? - H\.264", path.read_bytes())
    return found[0].decode().removesuffix(" - H.264") if found else "unknown"


def _write_csv(path: Path, rows: Iterable[dict[str, str | int]]) -> None:
    text = io.StringIO(newline="")
    rows = list(rows)
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write_text(path, text.getvalue())


def _write_text(path: Path, text: str) -> None:
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(text)
    unfinished.replace(path)
