"""`pcmci explain`: what a run made of videos, a page each."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pcmci.commands.options import AsJson, Device, RunPath, beside_decoding
from pcmci.commands.showing import print_json
from pcmci.errors import UsageError
from pcmci.heads.config import parse_memory
from pcmci.plain import plain
from pcmci.remote.url import Place, place

if TYPE_CHECKING:
    from pcmci.cache.store import Store
    from pcmci.heads.explaining.explanation import Subject
    from pcmci.heads.training.run import Run
    from pcmci.report.explain import Pictures

TOP = 20
"""Pages of a split, where nothing else is said."""


def explain(
    run: RunPath,
    videos: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ids of the run's store, or video files, or their URLs.", metavar="[VIDEO|ID]..."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Instead of naming videos: those of a split.", show_default=False),
    ] = None,
    wrong: Annotated[
        bool, typer.Option("--wrong", help="Of a split, those that the run got wrong alone.")
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(
            help="Of a split, how many: the most confident first.", min=1, show_default=str(TOP)
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="By which labels a video is wrong: activity or steps.",
            show_default="activity where the run has it",
        ),
    ] = None,
    shown: Annotated[int, typer.Option(help="Likeliest labels a page.", min=1)] = 5,
    neighbours: Annotated[int, typer.Option(help="Training videos a page.", min=1)] = 5,
    out: Annotated[
        Path | None, typer.Option(help="Where the pages go.", show_default="RUN/explain")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="Where the run's store lies now.", show_default="as in training"),
    ] = None,
    films: Annotated[
        str | None,
        typer.Option(
            "--videos",
            help="The folder of the data set's videos, for the pictures.",
            show_default="the data set's own place",
        ),
    ] = None,
    annotations: Annotated[
        str | None,
        typer.Option(help="Its annotations, likewise.", show_default="the data set's own place"),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="For features, as 2G.", show_default="what is free")
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Show what a run made of videos: frames, alignment, attention, the path of the answer, who it
    looks like. A page a video, and an index of several.

    Example: pcmci explain runs/coin_activity_ich_seed0_1a2b3c4d 0wkJHR9gXqU --videos films

    Example: pcmci explain runs/coin_activity_ich_seed0_1a2b3c4d --split test --wrong --top 20
    """
    if bool(videos) == (split is not None):
        raise UsageError("name videos (ids or files), or a split: pcmci explain RUN --split test")
    if split is None:
        for flag, given in (("--wrong", wrong), ("--top", top), ("--labels", labels)):
            if given:
                raise UsageError(f"{flag} goes with --split: videos that are named are all shown")
    budget = parse_memory(memory) if memory else None
    beside_decoding()
    from pcmci.device import choose_device
    from pcmci.heads.explaining.explanation import explain as run_explain
    from pcmci.heads.training.run import load_run

    loaded = load_run(run)
    on = choose_device(device)
    chosen = _choose(loaded, split, wrong, top or TOP, labels)
    asked = list(videos or chosen["shown"])
    if not asked:
        print(
            f"note: no video of {split} is wrong by its {chosen['labels']}; without --wrong the "
            "right ones are shown",
            file=sys.stderr,
        )
    store = _store(loaded, features)
    try:
        subjects, paths, failures = _subjects(loaded, store, asked, str(on))
        found = run_explain(
            loaded, subjects, store, device=on, top=shown, neighbours=neighbours, memory=budget,
            progress=not as_json,
        )  # fmt: skip
        pictures = _pictures(loaded, subjects, paths, films, annotations)
    finally:
        if store is not None:
            store.chunks.close()
    _add_pictures(found, pictures)
    flags = {"--features": features, "--videos": films, "--annotations": annotations}
    pages = _write(loaded, found, pictures, chosen, out or run / "explain", flags)
    found |= {"failures": failures, "pages": pages}
    if chosen:
        found["split"] = {name: value for name, value in chosen.items() if name != "shown"}
    if as_json:
        print_json(found)
    else:
        for page in pages[-1:] if len(pages) > 1 else pages:
            print(plain(page))
        for video, reason in failures.items():
            print(f"pcmci: {plain(video)}: {plain(reason)}", file=sys.stderr)
    if failures:
        raise typer.Exit(1)


def _choose(
    run: Run, split: str | None, wrong: bool, top: int, labels: str | None
) -> dict[str, Any]:
    """What a split has, and which of it is `shown`; nothing where there is no split."""
    if split is None:
        return {}
    from pcmci.heads.explaining.mistakes import answered

    predictions = run.predictions
    by = labels or ("activity" if "activity" in predictions.labels else "steps")
    found = answered(predictions, by, split)
    lost = (predictions.splits == split) & ~predictions.present
    if by == "activity":
        lost &= predictions.labels[by].target >= 0  # without a label it counts nowhere
    shown = [one.video for one in found if one.wrong or not wrong][:top]
    return {
        "split": split,
        "labels": by,
        "wrong": wrong,
        "videos": [dataclasses.asdict(one) | {"wrong": one.wrong} for one in found],
        "without features": int(lost.sum()),
        "shown": shown,
    }


def _store(run: Run, features: str | None) -> Store | None:
    """The run's store, None where it is not at hand and was not named."""
    from pcmci.cache.formats.choose import exists
    from pcmci.cache.store import open_store
    from pcmci.heads.explaining.explanation import check_store

    where = place(features or run.config["store"]["path"])
    if features is None and not exists(where):
        print(
            f"note: the run's store is not at {plain(where)}: no training videos are shown "
            "(--features says where it lies)",
            file=sys.stderr,
        )
        return None
    store = open_store(where)
    try:
        if note := check_store(run, store):
            print(f"note: {plain(note)}", file=sys.stderr)
    except BaseException:
        store.chunks.close()
        raise
    return store


def _subjects(
    run: Run, store: Store | None, asked: Sequence[str], device: str
) -> tuple[list[Subject], dict[str, Place], dict[str, str]]:
    """What was asked for, in its order; the files among it; and those that cannot be read."""
    from pcmci.heads.explaining.explanation import Subject, subjects
    from pcmci.heads.explaining.family import family

    names = list(dict.fromkeys(asked))
    stored = set(store.ids) if store is not None else set[str]()
    files = {name: place(name) for name in names if name not in stored}
    files = {name: at for name, at in files.items() if not isinstance(at, Path) or at.is_file()}
    ids = [name for name in names if name not in files]
    if ids and store is None:
        raise UsageError(
            f"{ids[0]!r} is no file; for an id of the run's store say where that lies: --features"
        )
    found: dict[str, Subject] = {}
    if store is not None:
        families = {name: family(name, store.ids, store.splits) for name in ids}
        found = {one.name: one for one in subjects(store, families)}
    failures: dict[str, str] = {}
    if files:
        from pcmci.extract.encode_files import encode_files

        encoded, lost = encode_files(list(files.values()), run.spec, device=device)
        failures = {name: lost[at] for name, at in files.items() if at in lost}
        readable = [name for name in files if name not in failures]
        for k, name in enumerate(readable):
            found[name] = Subject(name, encoded["vlm"][k], encoded["video"][k])
    return [found[name] for name in names if name in found], files, failures


def _pictures(
    run: Run,
    subjects: Sequence[Subject],
    files: dict[str, Place],
    videos: str | None,
    annotations: str | None,
) -> dict[str, Pictures]:
    """Of every video and its twins, by name."""
    from tqdm import tqdm

    from pcmci.extract.video.strip import FilmStrip, film_strips
    from pcmci.report.explain import Pictures
    from pcmci.report.film import picture

    wanted = [one.name for subject in subjects for one in (subject, *subject.twins)]
    stored = [name for name in dict.fromkeys(wanted) if name not in files]
    paths, why = _paths(run, stored, videos, annotations)
    paths |= {name: files[name] for name in wanted if name in files}
    names = list(paths)
    found = {name: Pictures(why=why.get(name, "")) for name in wanted}
    strips = film_strips([paths[name] for name in names], run.spec)
    for name, strip in tqdm(
        zip(names, strips, strict=True), "pictures", len(names), unit="video", disable=None,
        leave=False,
    ):  # fmt: skip
        if isinstance(strip, FilmStrip):
            sources = [picture(frame) for frame in strip.frames]
            found[name] = Pictures(sources, strip.seconds, note=strip.note)
        else:
            found[name] = Pictures(why=f"{plain(paths[name])}: {plain(strip)}.")
    return found


def _paths(
    run: Run, stored: Sequence[str], videos: str | None, annotations: str | None
) -> tuple[dict[str, Place], dict[str, str]]:
    """Where the files of stored videos lie; and of those that are not at hand, why."""
    from pcmci.extract.datasets import DATASETS, load_dataset

    name = run.spec.dataset
    if not stored:
        return {}, {}
    if name not in DATASETS:
        return {}, dict.fromkeys(stored, f"a data set {name!r} is none whose files are known here.")
    try:
        dataset = load_dataset(name, videos, annotations)
    except UsageError as error:
        if videos is not None or annotations is not None:
            raise
        why = f"{plain(error)}; --videos says where they lie."
        return {}, dict.fromkeys(stored, why)
    at = {video.id: video.path for video in dataset.videos}
    paths = {one: path for one in stored if (path := at.get(one)) is not None}
    lost = [one for one in stored if one not in paths]
    return paths, dict.fromkeys(lost, "its file is not among the videos of the data set.")


def _add_pictures(found: dict[str, Any], pictures: dict[str, Pictures]) -> None:
    """Their times, to the numbers."""
    for entry in found["videos"]:
        for one in (entry, *entry["twins"]):
            seen = pictures[one["video"]]
            one["frames"] = {
                "seconds": list(seen.times) if seen.sources else None,
                "note": seen.note,
                "absent": seen.why,
            }


def _write(
    run: Run,
    found: dict[str, Any],
    pictures: dict[str, Pictures],
    chosen: dict[str, Any],
    out: Path,
    flags: dict[str, str | None],
) -> list[str]:
    """A page a video, and an index of several or of a split; their paths, the index last."""
    from pcmci.report.encoders import planted_note
    from pcmci.report.explain import Pages, file_name

    spec = run.spec
    given = "".join(f" {flag} {shlex.quote(value)}" for flag, value in flags.items() if value)
    pages = Pages(
        explained=found,
        pictures=pictures,
        facts={
            "data set": spec.dataset,
            "VLM": spec.vlm.name,
            "video encoder": spec.video.name,
            "frames a video": str(spec.sampling.frames),
            "made by commit": str(run.config["machine"].get("commit") or "unknown"),
            **(
                {"confounder": planted_note(dataclasses.asdict(spec.planted))}
                if spec.planted
                else {}
            ),
        },
        command=shlex.join(["pcmci", *map(plain, sys.argv[1:])]),
        blank=f"pcmci explain {shlex.quote(plain(run.path))} <video>{plain(given)}",
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = [
            pages.page(entry).write(out / file_name(entry["video"])) for entry in found["videos"]
        ]
        if chosen or len(found["videos"]) > 1:
            written.append(pages.index(chosen or None).write(out / "index.html"))
    except OSError as error:
        raise UsageError(f"--out {out}: cannot write pages there: {error.strerror}") from error
    return [str(path) for path in written]
