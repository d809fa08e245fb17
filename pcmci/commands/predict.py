"""`pcmci predict`: what a run thinks of new videos."""

from __future__ import annotations

import math
import sys
from typing import Annotated, Any

import typer

from pcmci.commands.options import (
    AsJson,
    Device,
    RunPath,
    beside_decoding,
)
from pcmci.commands.showing import print_json
from pcmci.plain import plain
from pcmci.remote.url import place


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
    video_encoder: Annotated[
        str | None,
        typer.Option(help="The video encoder's config, likewise.", show_default="as in extraction"),
    ] = None,
    vlm_weights: Annotated[
        str | None,
        typer.Option(help="Where the VLM's weights lie now.", show_default="as in extraction"),
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
    beside_decoding()
    from pcmci.heads.training.run import load_run

    loaded = load_run(run)
    from pcmci.device import choose_device
    from pcmci.extract.encode_files import encode_files
    from pcmci.extract.pair import library_versions

    on = choose_device(device)
    spec = loaded.spec
    here = library_versions(spec.libraries)
    for name, used in spec.libraries.items():
        if here.get(name) != used:
            print(
                f"note: features were made with {name} {used}, here is {here.get(name)}",
                file=sys.stderr,
            )
    places = [place(video) for video in videos]
    features, failures = encode_files(
        places,
        spec,
        vlm=vlm,
        video_encoder=video_encoder,
        vlm_weights=vlm_weights,
        video_weights=video_weights,
        device=str(on),
    )
    readable = [path for path in places if path not in failures]
    answers: dict[str, dict[str, Any]] = {str(path): {} for path in readable}
    experts: dict[str, dict[str, Any]] = {}
    if readable:
        for labels, answer in loaded.ask(features["vlm"], features["video"], on).items():
            names = spec.labels(labels).names
            for m, film in enumerate(map(str, readable)):
                answers[film][labels] = _likeliest(answer.probabilities[m], names, top)
                if answer.voices:
                    experts.setdefault(film, {})[labels] = {
                        "disagreement": _defined(answer.disagreement[m]),
                        "experts": {
                            voice: _likeliest(answer.said[m, e], names, top)
                            for e, voice in enumerate(answer.voices)
                        },
                    }
    if as_json:
        shown = {"predictions": answers, "failures": {str(p): r for p, r in failures.items()}}
        print_json(shown | ({"experts": experts} if experts else {}))
    else:
        for path_, labels_ in answers.items():
            print(plain(path_))
            for labels, ranked in labels_.items():
                print(f"  {labels}: {_spoken(ranked)}")
                if path_ in experts:
                    _print_experts(experts[path_][labels])
        for path, reason in failures.items():
            print(f"pcmci: {plain(path)}: {plain(reason)}", file=sys.stderr)
    if failures:
        raise typer.Exit(1)


def _likeliest(probabilities: Any, names: Any, top: int) -> list[dict[str, Any]]:
    best = (-probabilities).argsort(kind="stable")[:top]
    return [{"label": names[i], "probability": float(probabilities[i])} for i in best]


def _spoken(ranked: list[dict[str, Any]]) -> str:
    return ", ".join(f"{r['label']} {100 * r['probability']:.1f} %" for r in ranked)


def _print_experts(of: dict[str, Any]) -> None:
    for voice, ranked in of["experts"].items():
        print(f"    {voice}: {_spoken(ranked)}")
    if of["disagreement"] is not None:
        print(f"    disagreement: {of['disagreement']:.3f} (0 all say the same, 1 all differ)")


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
