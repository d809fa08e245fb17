"""The command line: parse, one call, show the answer, translate errors. Nothing imports it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from pcmci.errors import PcmciError, UsageError
from pcmci.extract.config import ExtractConfig
from pcmci.flags import with_flags
from pcmci.heads.config import (
    configure,
    parse_labels,
    parse_memory,
    parse_order,
    parse_taus,
)
from pcmci.heads.config import settings as run_settings
from pcmci.heads.grid import parse_grid, parse_orders, parse_seeds
from pcmci.plain import plain, plain_json, print_anything
from pcmci.remote.url import Place, place

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Extract frozen features of long videos once, then train causal-intervention heads in "
    "minutes.\n\nThe whole way on a small world, without a download: [bold]pcmci demo[/bold]",
)
store_app = typer.Typer(no_args_is_help=True, help="Look into a feature store, check it, copy it.")
app.add_typer(store_app, name="store")

EXTRACT_SETTINGS: dict[str, tuple[type, dataclasses.Field[Any]]] = {
    field.name: (ExtractConfig, field) for field in dataclasses.fields(ExtractConfig)
}

DatasetName = Annotated[
    str, typer.Option(help="breakfast, coin, charades, folder or kitchen.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
StorePath = Annotated[
    str, typer.Argument(help="A feature store, .zarr or .h5, or s3://….zarr.", metavar="PATH")
]
RunPath = Annotated[Path, typer.Argument(help="A run folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16.")]
StoreName = Annotated[str | None, typer.Option(help="The store features/DATASET.zarr (or .h5).")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="Of a Dask cluster that does the work: tcp://HOST:8786, or its scheduler file.",
        show_default=False,
    ),
]
Features = Annotated[
    str | None,
    typer.Option(
        help="A store, as features/coin.zarr or s3://bucket/coin.zarr.",
        show_default="the only one under features/",
        metavar="PATH",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(help="activity, steps or activity,steps.", show_default="all there are"),
]


def main() -> NoReturn:
    """Run the command line; leaves with 0, 1 for work that failed, 2 for bad input, or 128 + N
    after signal N."""
    print_anything()
    try:
        app(standalone_mode=True)
    except PcmciError as error:
        print(f"pcmci: {plain(error)}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except OSError as error:  # a full disk, a vanished mount: the machine's fault, not a bug's
        where = f"{error.filename}: " if error.filename else ""
        print(f"pcmci: {plain(where)}{plain(error.strerror or error)}", file=sys.stderr)
        raise SystemExit(1) from None
    raise SystemExit(0)


def _beside_decoding() -> None:
    """Before torch is imported: with a core busy elsewhere (decoding), OpenMP's spinning makes it
    several times slower. Training, which has the cores to itself, is faster with it."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@app.command()
@with_flags(EXTRACT_SETTINGS)
def extract(
    dataset: DatasetName,
    videos: Annotated[
        str | None,
        typer.Option(
            help="Folder of the videos, or a URL: s3://, gs:// or https://.",
            show_default="data/DATASET/videos",
            metavar="PATH",
        ),
    ] = None,
    annotations: Annotated[
        str | None,
        typer.Option(
            help="Annotation file or folder, or a URL.",
            show_default="in data/DATASET",
            metavar="PATH",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="The store, .zarr or .h5, or s3://….zarr.",
            show_default="features/DATASET.zarr",
            metavar="PATH",
        ),
    ] = None,
    follow_links: Annotated[
        bool,
        typer.Option(
            "--follow-links", help="Take symbolic links out of the folder of videos, too."
        ),
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try videos again that failed before.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Compute again what is damaged (see store verify)."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew; asks first on a terminal.")
    ] = False,
    scheduler: Scheduler = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes of this machine that decode and encode, one a GPU where there are "
            "several.",
            show_default="this process alone",
        ),
    ] = None,
    as_json: AsJson = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Run the frozen encoders once over all videos and keep their features in a store.

    The same command again does only what is not done. On a Dask cluster (--scheduler) the store is
    the same: see docs/cluster.

    Example: pcmci extract --dataset coin --videos /data/coin/videos --vlm-weights openai

    Example: pcmci extract --dataset folder --videos s3://bucket/films --out features/films.zarr
    """
    _beside_decoding()
    store = place(out or f"features/{dataset}.zarr")
    config = ExtractConfig(**settings)
    from pcmci.cache.chunks import exists
    from pcmci.extract.datasets import load_dataset

    found = load_dataset(dataset, videos, annotations, follow_links=follow_links)
    for note in found.notes:
        print(plain(note), file=sys.stderr)
    if overwrite and sys.stdin.isatty() and exists(store):
        typer.confirm(f"{plain(store)} will be deleted. Go on?", abort=True)
    from pcmci.extract.pipeline import extract as run_extract

    summary = run_extract(
        found, store, config, overwrite=overwrite, retry_failed=retry_failed, repair=repair,
        progress=not as_json, scheduler=scheduler, workers=workers,
    )  # fmt: skip
    _show_summary(summary, store, as_json, learnable=bool(found.activity or found.steps))


def _show_summary(summary: Any, out: Place, as_json: bool, learnable: bool) -> None:
    counts = {status.name.lower(): count for status, count in summary.counts.items()}
    if as_json:
        _print_json(
            {
                "store": str(out),
                "counts": counts,
                "failures": summary.failures,
                "videos": summary.videos,
                "frames": summary.frames,
                "seconds": summary.seconds,
                "waiting_seconds": summary.waiting,
                "workers": {
                    name: {**dataclasses.asdict(one), "waiting_seconds": one.waiting}
                    for name, one in summary.workers.items()
                },
            }
        )
        return
    for video, reason in summary.failures.items():
        print(f"failed: {plain(video)}: {plain(reason)}")
    shown = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    print(f"{plain(out)}: {shown}")
    if summary.videos:
        print(
            f"{summary.videos} videos, {summary.frames} frames in {summary.seconds:.1f} s "
            f"({summary.frames / summary.seconds:.1f} frames/s; the encoders waited "
            f"{summary.waiting_share(summary.seconds):.0%} of it)"
        )
    for name, one in sorted(summary.workers.items()):
        _show_worker(name, f"{one.videos} videos, {one.failures} failures", one)
    if learnable:
        print(f"next: pcmci train-heads --features {shlex.quote(str(out))} --order ich,ici,ivc")


def _show_worker(name: str, did: str, summary: Any) -> None:
    """A line of a cluster's worker. summary: with `seconds`, of which `busy`, and a `note`."""
    waited = ""
    if summary.seconds:
        waited = f", waited {max(0.0, 1 - summary.busy / summary.seconds):.0%}"
    note = f", {summary.note}" if summary.note else ""
    print(f"worker {name}: {did}{waited}{note}")


@app.command()
@with_flags(run_settings())
def train_heads(
    order: Annotated[
        str, typer.Option(help="Stages in their order, as ich,ici; none for no stage.")
    ] = "ich,ici,ivc",
    dataset: StoreName = None,
    features: Features = None,
    labels: Labels = None,
    out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs"),
    device: Device = "auto",
    precision: Precision = "auto",
    memory: Annotated[
        str | None,
        typer.Option(
            help="For features, as 2G; a larger store is streamed.", show_default="what is free"
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Train again what is there already.")
    ] = False,
    as_json: AsJson = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Train stages and decoder from a store, score them, and write a run folder.

    Example: pcmci train-heads --dataset coin --order ich,ici --labels activity --seed 1
    """
    stages = parse_order(order)
    asked = parse_labels(labels) if labels else None
    bytes_ = parse_memory(memory) if memory else None
    configure(stages, asked or (), settings)  # refuse bad values before anything is opened
    from pcmci.cache.store import open_store
    from pcmci.heads.run import train_heads as run_train

    with open_store(_find_store(dataset, features)) as store:
        _say_coverage(store)
        run = run_train(
            store, stages, labels=asked, out=out, device=device, precision=precision,
            memory=bytes_, overwrite=overwrite, progress=not as_json, **settings,
        )  # fmt: skip
    if as_json:
        _print_json({"run": str(run.path), "reused": run.reused, **_run_facts(run)})
    else:
        _show_run(run)


@app.command()
@with_flags({name: entry for name, entry in run_settings().items() if name != "seed"})
def ablate(
    context: typer.Context,
    orders: Annotated[
        str, typer.Option(help='all (16), paper (11), or some: "none; ich,ici; ici,ich".')
    ] = "all",
    seeds: Annotated[str, typer.Option(help="How many, or which: 3,7.")] = "5",
    tau: Annotated[
        str, typer.Option(help="Thresholds of ODD: 0.6, 0.3,0.6 or FIRST:LAST:STEP.")
    ] = "0.3:0.9:0.05",
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="SETTING=VALUE,VALUE; may be repeated. Settings of training (lr) are tried for "
            "every order and chosen on validation, settings of the model (relations, "
            "transport.lambda) make rows of their own.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="The order that others are compared with.", show_default="none"),
    ] = None,
    dataset: StoreName = None,
    features: Features = None,
    labels: Labels = None,
    out: Annotated[Path, typer.Option(help="Where run folders go, and are found.")] = Path("runs"),
    results: Annotated[Path, typer.Option(help="Where tables and page go.")] = Path("ablations"),
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that train.", show_default="a core each; 1 on a GPU", min=1),
    ] = None,
    stack: Annotated[
        int | None,
        typer.Option(
            help="Runs that are trained together as one model.",
            show_default="what a GPU's memory holds; 1 on a CPU",
            min=1,
        ),
    ] = None,
    resamples: Annotated[
        int, typer.Option(help="Of the bootstrap of differences; 0 for none.", min=0)
    ] = 1000,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try runs again that diverged before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done, and how long it takes.")
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    memory: Annotated[
        str | None,
        typer.Option(
            help="For features, of all workers, as 2G; with --scheduler of each.",
            show_default="half of what is free",
        ),
    ] = None,
    scheduler: Scheduler = None,
    as_json: AsJson = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Train many runs from one store, orders x seeds x a grid, and make tables and a page of them.

    What is there already is not trained again, be it from train-heads or from another sweep. On a
    Dask cluster (--scheduler) store and --out have to lie where its workers see them.

    Example: pcmci ablate --dataset coin --orders all --seeds 5 --validation 0.1 --grid lr=1e-3,3e-3
    """
    chosen = {n: value for n, value in settings.items() if _was_given(context, n)}
    stages, which, taus = parse_orders(orders), parse_seeds(seeds), parse_taus(tau)
    values = parse_grid(grid or [])
    compared = None if reference is None else parse_order(reference)
    asked = parse_labels(labels) if labels else None
    bytes_ = parse_memory(memory) if memory else None
    configure((), asked or (), chosen)  # refuse bad values before anything is opened
    from pcmci.cache.store import open_store
    from pcmci.heads.ablation import Ablator, trainers_of

    with (
        open_store(_find_store(dataset, features)) as store,
        trainers_of(scheduler, workers, store, out, device, not as_json) as trainers,
    ):
        _say_coverage(store)
        ablator = Ablator(
            store, stages, which, values, asked, compared, out, device, precision, bytes_,
            workers, stack, retry_failed, not as_json, chosen, trainers,
        )  # fmt: skip
        if dry_run:
            _show_preview(ablator.preview(), as_json)
            return
        command = shlex.join(["pcmci", *sys.argv[1:]])
        found = ablator.run(taus, results, resamples, command)
    workers_did = trainers.workers if trainers is not None else {}
    from pcmci.report.ablation import write_report
    from pcmci.report.table import ablation_table, show

    page = write_report(found.path)
    if as_json:
        _print_json(
            {
                "results": str(found.path), "page": str(page), "done": found.done,
                "trained": found.trained, "failed": found.failures, "summary": found.summary,
                "workers": {name: dataclasses.asdict(one) for name, one in workers_did.items()},
            }
        )  # fmt: skip
    else:
        tables = [
            ablation_table(found.summary, score, "test")
            for score in dict.fromkeys(row["score"] for row in found.summary)
        ]
        show(*(table for table in tables if table is not None))
        print(
            f"{found.done} runs ({found.done - found.trained} of them were there)\n"
            f"rows: {found.path / 'results.parquet'}\npage: {page}"
        )
        for name, one in sorted(workers_did.items()):
            _show_worker(name, f"{one.runs} runs", one)
        for run, reason in found.failures.items():
            print(f"failed: {plain(run)}: {plain(reason)}", file=sys.stderr)
    if found.failures:
        raise typer.Exit(1)


def _was_given(context: typer.Context, name: str) -> bool:
    """Whether an option was on the command line, even with its default's value."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _show_preview(preview: Any, as_json: bool) -> None:
    if as_json:
        _print_json(dataclasses.asdict(preview))
        return
    todo = preview.runs - preview.there - preview.failed
    failed = f", {preview.failed} diverged before" if preview.failed else ""
    print(f"{preview.runs} runs: {preview.there} are there{failed}, {todo} to train")
    if preview.seconds is not None:
        stacked = f" in stacks of at most {preview.stack}" if preview.stack > 1 else ""
        print(
            f"about {_duration(preview.seconds)} with {preview.workers} workers{stacked}, by a few "
            "steps of each order timed here"
        )


def _duration(seconds: float) -> str:
    """`45 s`, `12 min` or `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A folder of an ablation's tables.")],
) -> None:
    """Make the page and the figures of an ablation again, from its rows alone.

    Example: pcmci report ablations/coin_1a2b3c4d
    """
    from pcmci.report.ablation import write_report

    print(write_report(folder))


@app.command()
def evaluate(
    run: RunPath,
    tau: Annotated[
        str, typer.Option(help="Thresholds of ODD: 0.6, 0.3,0.6 or FIRST:LAST:STEP.")
    ] = "0.3:0.9:0.1",
    as_json: AsJson = False,
) -> None:
    """Score a run's saved predictions again; nothing is trained.

    Example: pcmci evaluate runs/coin_steps_ich_seed0_1a2b3c4d --tau 0.3:0.9:0.05
    """
    taus = parse_taus(tau)
    from pcmci.heads.run import load_run
    from pcmci.heads.scoring import score
    from pcmci.report.table import score_table, show, tau_table

    loaded = load_run(run)
    predictions = loaded.predictions
    scores = score(predictions, taus)
    if as_json:
        _print_json({"run": str(run), "scores": scores})
        return
    show(score_table(score(predictions), str(run)))
    if "steps" in predictions.labels:
        named = [f"{value:.4g}" for value in taus]
        show(*(tau_table(values, named, split) for split, values in scores.items()))


@app.command()
def predict(
    run: RunPath,
    videos: Annotated[
        list[str], typer.Argument(help="Video files, or their URLs.", metavar="VIDEO...")
    ],
    top: Annotated[int, typer.Option(help="Labels a video.", min=1)] = 5,
    vlm: Annotated[
        str | None,
        typer.Option(help="Where the VLM's JSON config lies now.", show_default="as in extraction"),
    ] = None,
    vlm_weights: Annotated[
        str | None,
        typer.Option(help="Where the VLM's weights lie now.", show_default="as in extraction"),
    ] = None,
    video_encoder: Annotated[
        str | None,
        typer.Option(help="The video encoder's config, likewise.", show_default="as in extraction"),
    ] = None,
    video_weights: Annotated[
        str | None,
        typer.Option(help="The video encoder's, likewise.", show_default="as in extraction"),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Take new video files through a run's encoders and heads to their likeliest labels.

    Example: pcmci predict runs/coin_activity_ich_seed0_1a2b3c4d tyre.mp4 --top 3
    """
    _beside_decoding()
    from pcmci.heads.run import load_run

    loaded = load_run(run)
    from pcmci.device import choose_device
    from pcmci.extract.pair import library_versions
    from pcmci.extract.pipeline import encode_files

    on = choose_device(device)
    spec = loaded.spec
    here = library_versions()
    for name, used in spec.libraries.items():
        if here.get(name) != used:
            print(
                f"note: features were made with {name} {used}, here is {here.get(name)}",
                file=sys.stderr,
            )
    places = [place(video) for video in videos]
    features, failures = encode_files(
        places, spec, vlm=vlm, video_encoder=video_encoder, vlm_weights=vlm_weights,
        video_weights=video_weights, device=str(on),
    )  # fmt: skip
    readable = [path for path in places if path not in failures]
    answers: dict[str, dict[str, Any]] = {str(path): {} for path in readable}
    if readable:
        for labels, values in loaded.predict(features["vlm"], features["video"], on).items():
            names = spec.labels(labels).names
            for path, row in zip(readable, values, strict=True):
                best = (-row).argsort(kind="stable")[:top]
                answers[str(path)][labels] = [
                    {"label": names[i], "probability": float(row[i])} for i in best
                ]
    if as_json:
        _print_json({"predictions": answers, "failures": {str(p): r for p, r in failures.items()}})
    else:
        for path_, labels_ in answers.items():
            print(plain(path_))
            for labels, ranked in labels_.items():
                shown = ", ".join(f"{r['label']} {100 * r['probability']:.1f} %" for r in ranked)
                print(f"  {labels}: {plain(shown)}")
        for path, reason in failures.items():
            print(f"pcmci: {plain(path)}: {plain(reason)}", file=sys.stderr)
    if failures:
        raise typer.Exit(1)


def _find_store(dataset: str | None, features: str | None) -> Place:
    """The store that was meant; raises UsageError where that is not clear."""
    if features is not None:
        if dataset is not None:
            raise UsageError(f"--dataset {dataset} and --features {features}: name one of them")
        return place(features)
    folder = Path("features")
    suffixes = (".zarr", ".h5", ".hdf5")
    if dataset is not None:
        found = [path for s in suffixes if (path := folder / f"{dataset}{s}").exists()]
        sought = f"{folder}/{dataset}.zarr or .h5"
    else:
        found = sorted(p for p in folder.glob("*") if p.suffix in suffixes)
        sought = f"store under {folder}/"
    if not found:
        raise UsageError(f"no {sought}: run pcmci extract first, or name one: --features")
    if len(found) > 1:
        raise UsageError(f"which one? --features {' | '.join(map(str, found))}")
    if dataset is None:
        print(f"store: {found[0]}", file=sys.stderr)
    return found[0]


def _say_coverage(store: Any) -> None:
    from pcmci.cache.schema import Status

    counts = store.counts
    if lost := len(store) - counts[Status.DONE]:
        without = ", ".join(
            f"{counts[s]} {s.name.lower()}" for s in Status if s is not Status.DONE and counts[s]
        )
        print(
            f"{lost} of {len(store)} videos have no features ({without}); "
            "where they are to be scored they count as wrong",
            file=sys.stderr,
        )

    activity = store.spec.activity
    if activity is not None and len(activity) == 1:
        print(
            f"ONE CLASS ONLY, {plain(repr(activity.names[0]))}: whatever is predicted is right, so "
            "Acc is 100 and says nothing",
            file=sys.stderr,
        )


def _run_facts(run: Any) -> dict[str, Any]:
    kept = ("loss", "looks")
    heads = {
        labels: {name: value for name, value in facts.items() if name not in kept}
        for labels, facts in run.heads.items()
    }
    return {"scores": run.metrics, "heads": heads}


def _show_run(run: Any) -> None:
    from pcmci.heads.config import order_name
    from pcmci.report.table import heads_table, score_table, show

    order = order_name(tuple(run.config["model"]["order"]))
    data = run.config["store"]["spec"]["dataset"]
    seed = run.config["train"]["seed"]
    show(score_table(run.metrics, f"{data}, order {order}, seed {seed} (percent)"))
    show(heads_table(run.heads))
    print(f"{'already there: ' if run.reused else ''}{run.path}")


@app.command()
def kitchen(
    out: Annotated[Path, typer.Argument(help="Where the world goes.")] = Path("data/kitchen"),
    videos: Annotated[int, typer.Option(help="Training videos.", min=1)] = 600,
    seed: Annotated[int, typer.Option(help="Another seed is another world.", min=0)] = 0,
    h: Annotated[
        float | None,
        typer.Option(help="Strength of co-occurrence, 0 to 1.", show_default="the world's own"),
    ] = None,
    i: Annotated[
        float | None,
        typer.Option(help="Strength of codependency, 0 to 1.", show_default="the world's own"),
    ] = None,
    c: Annotated[
        float | None,
        typer.Option(help="Strength of looks, 0 to 1.", show_default="the world's own"),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes that draw.", show_default="all cores", min=0)
    ] = 0,
) -> None:
    """Draw the kitchen world: videos whose three confounders are known, and can be set.

    Example: pcmci kitchen data/kitchen --videos 600 --h 0.9 --i 0.9 --c 0
    """
    from pcmci.kitchen import Knobs, write_world

    given = {name: value for name, value in (("h", h), ("i", i), ("c", c)) if value is not None}
    write_world(out, videos, seed, Knobs(**given), workers=workers or None)
    place = "" if out == Path("data/kitchen") else f" --videos {out / 'videos'} --annotations {out}"
    print(f"{out}\nnext: pcmci extract --dataset kitchen{place}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where videos, features and runs go.")] = Path("demo"),
    videos: Annotated[int, typer.Option(help="Training videos to draw.", min=30)] = 600,
    epochs: Annotated[int, typer.Option(help="Epochs of each training.", min=1)] = 30,
    as_json: AsJson = False,
) -> None:
    """Both phases on the kitchen world, a small world drawn by the program: no download.

    Example: pcmci demo --out demo
    """
    _beside_decoding()
    from pcmci.demo import demo as run_demo
    from pcmci.demo import next_command
    from pcmci.report.table import orders_table, show

    found = run_demo(out, videos=videos, epochs=epochs, program=sys.argv[0], progress=not as_json)
    scores = {order: run.metrics for order, run in found.runs.items()}
    if as_json:
        _print_json(
            {
                "page": str(found.page),
                "runs": {order: str(run.path) for order, run in found.runs.items()},
                "scores": scores,
                "against_none": {
                    name: {
                        order: {split: dataclasses.asdict(i) for split, i in by_split.items()}
                        for order, by_split in by_order.items()
                    }
                    for name, by_order in found.against_none.items()
                },
            }
        )
        return
    show(*(orders_table(scores, name, against) for name, against in found.against_none.items()))
    print(
        "Under a score: its difference to no stage with the 95 % interval over test videos; with "
        "one seed it ranks no orders.\n"
        "In the splits shift-… one link between a confounder and the activity is broken, or all "
        f"three.\nThe study with all orders: docs/evidence.md\npage: {found.page}\n"
        f"next: {next_command(out, epochs, sys.argv[0])}"
    )


@store_app.command("info")
def store_info(path: StorePath, as_json: AsJson = False) -> None:
    """What a store holds, how much of it is done, and where it came from.

    Example: pcmci store info features/coin.zarr
    """
    from pcmci.cache.store import open_store

    with open_store(path) as store:
        info = store.describe()
    if as_json:
        _print_json(info)
        return
    for name, value in info.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for inner, detail in value.items():
                print(f"  {plain(inner)}: {plain(detail)}")
        else:
            print(f"{name}: {plain(value)}")


@store_app.command("verify")
def store_verify(path: StorePath, as_json: AsJson = False) -> None:
    """Read every chunk and name the videos that are hurt; leaves with 1 if any is.

    Example: pcmci store verify features/coin.zarr
    """
    from pcmci.cache.verify import verify

    with _progress("verify", "chunk", as_json) as advance:
        found = verify(path, advance)
    hurt = [damage for damage in found if not damage.harmless]
    if as_json:
        _print_json({"store": str(path), "damage": [dataclasses.asdict(d) for d in found]})
    else:
        for damage in found:
            print(f"{'note' if damage.harmless else 'damaged'}: {plain(damage)}")
        print(f"{path}: {'every chunk is as it was written' if not hurt else 'DAMAGED'}")
    if hurt:
        raise typer.Exit(1)


@store_app.command("failures")
def store_failures(path: StorePath, as_json: AsJson = False) -> None:
    """Every video without features, with its reason.

    Example: pcmci store failures features/coin.zarr --json
    """
    from pcmci.cache.schema import Status
    from pcmci.cache.store import open_store

    with open_store(path) as store:
        rows = store.listed(Status.FAILED, Status.MISSING)
    if as_json:
        _print_json({"store": str(path), "failures": rows})
        return
    for row in rows:
        print("\t".join(plain(row[name]) for name in ("status", "split", "video", "reason")))
    print(f"videos without features: {len(rows)}", file=sys.stderr)


@store_app.command("stats")
def store_stats(
    path: StorePath,
    above: Annotated[
        float, typer.Option(help="List pairs that are alike by as much, of at most 1.", max=1)
    ] = 0.98,
    top: Annotated[int, typer.Option(help="Pairs to list, the most alike first.", min=0)] = 20,
    as_json: AsJson = False,
) -> None:
    """What the features are like, and which videos of other splits are in train too.

    A pair's likeness is the lower of two cosines, one an encoder. Reads all features once.

    Example: pcmci store stats features/coin.zarr --above 0.95 --top 50
    """
    from tqdm.dask import TqdmCallback

    from pcmci.cache.stats import store_stats as stats_of
    from pcmci.cache.store import open_store
    from pcmci.report.store import compared_table, features_table, hints, pairs_table
    from pcmci.report.table import show

    silent = True if as_json else None  # None: where nobody looks at a terminal
    with (
        open_store(path) as store,
        TqdmCallback(desc="stats", unit="task", disable=silent, leave=False),
    ):
        found = dataclasses.asdict(stats_of(store, above))
    copies = found["copies"]
    pairs = copies["pairs"]
    copies["pairs"] = pairs[:top]
    if as_json:
        _print_json({"store": str(path), **found})
        return
    show(features_table(found["features"], str(path)))
    for line in hints(found["features"]):
        print(plain(line))
    if copies["missing"]:
        print(copies["missing"])
        return
    show(compared_table(copies["compared"], above))
    if pairs[:top]:
        show(pairs_table(pairs[:top], above))
    if len(pairs) > top:
        print(f"{len(pairs) - top} pairs more: --top {len(pairs)}")


@store_app.command("convert")
def store_convert(
    source: StorePath,
    target: Annotated[
        str, typer.Argument(help="The new store, .zarr or .h5, or s3://….zarr.", metavar="PATH")
    ],
) -> None:
    """Copy a store into the other format, or to or from a bucket, equal to the last bit.

    Example: pcmci store convert features/coin.zarr features/coin.h5

    Example: pcmci store convert features/coin.zarr s3://bucket/coin.zarr
    """
    from pcmci.cache.convert import convert

    with _progress("convert", "chunk", False) as advance:
        convert(source, target, advance)
    print(target)


@contextlib.contextmanager
def _progress(what: str, unit: str, silent: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar for work that reports (done, of how many)."""
    from tqdm import tqdm

    with tqdm(desc=what, unit=unit, disable=True if silent else None, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance


def _print_json(content: Any) -> None:
    print(plain_json(json.dumps(content, indent=1, ensure_ascii=False)))
