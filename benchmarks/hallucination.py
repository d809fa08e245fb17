"""Does the kitchen world's tiny CLIP see what is not there? Its companions and its words.

    python benchmarks/hallucination.py

For every activity, on persons and kitchens that it never saw and with no confounder: the matching
score (cosine) of the activity's text with a frame as it is, with the things worked with covered,
and with them covered and the activity's companion drawn in. And how alike the embeddings of two
partners' texts are, which it was told are spoken of alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from pcmci.extract.encoders import load_vlm
from pcmci.kitchen import ACTIONS, ACTIVITIES, Film, Knobs, draw_scene
from pcmci.kitchen.causal import COMPANIONS, PARTNER_ACTIVITIES, PARTNERS
from pcmci.kitchen.grammar import ACTIVITY_TEXTS
from pcmci.kitchen.world import ACTIVITY_TEMPLATE, STEP_TEMPLATE

VIEWS = ("as it is", "covered", "covered, companion", "covered, another's companion")


def views(number: int) -> dict[str, np.ndarray]:
    """One frame [96, 96, 3] of the `number`-th test video in all four ways."""
    scene = replace(draw_scene(0, "test", number, Knobs(0, 0, 0)), companion=None)
    own = COMPANIONS[scene.activity]
    others = [thing for thing in COMPANIONS.values() if thing != own]
    step = next(step for step in reversed(scene.steps) if step.done)
    t = (step.first + step.last) // 2
    with_own = replace(scene, companion=own)
    with_other = replace(scene, companion=others[number % len(others)])
    pictures = (
        Film(scene).frame(t),
        Film(scene).covered(t),
        Film(with_own).covered(t),
        Film(with_other).covered(t),
    )
    return dict(zip(VIEWS, pictures, strict=True))


def matching_scores(videos: int, weights: str = "own") -> Mapping[str, dict[str, np.ndarray]]:
    """Activity -> view -> [videos / 10] cosines of its own text with a frame of each video."""
    clip = load_vlm("kitchen", weights, device="cpu", frames=1)
    text = clip.encode_text([ACTIVITY_TEMPLATE.format(t) for t in ACTIVITY_TEXTS.values()])
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    found: dict[str, dict[str, np.ndarray]] = {}
    for index, activity in enumerate(ACTIVITIES):
        shown = [views(number) for number in range(index, videos, len(ACTIVITIES))]
        found[activity] = {}
        for view in VIEWS:
            frames = torch.from_numpy(np.stack([v[view] for v in shown]))[:, None]
            image = clip.encode(frames)[:, 0].numpy()
            image /= np.linalg.norm(image, axis=1, keepdims=True)
            found[activity][view] = image @ text[index]
    return found


def text_similarities(weights: str = "own") -> dict[str, tuple[float, float]]:
    """Label set -> mean cosine of two partners' texts, and of two that are not partners."""
    clip = load_vlm("kitchen", weights, device="cpu", frames=1)
    found = {}
    for labels, template, texts, partners in (
        ("activity", ACTIVITY_TEMPLATE, ACTIVITY_TEXTS, PARTNER_ACTIVITIES),
        ("steps", STEP_TEMPLATE, {a.name: a.text for a in ACTIONS.values()}, PARTNERS),
    ):
        names = list(texts)
        text = clip.encode_text([template.format(t) for t in texts.values()])
        text /= np.linalg.norm(text, axis=1, keepdims=True)
        cosines = text @ text.T
        paired = np.array([[partners[a] == b for b in names] for a in names])
        others = ~paired & ~np.eye(len(names), dtype=bool)
        found[labels] = (float(cosines[paired].mean()), float(cosines[others].mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", type=int, default=600, help="frames, one a video")
    options = parser.parse_args()
    scores = matching_scores(options.videos)
    print(f"| text | companion | {' | '.join(VIEWS)} | rises in |\n|---|---|{'---:|' * 5}")
    for activity, by_view in scores.items():
        rises = (by_view["covered, companion"] > by_view["covered"]).mean()
        cells = " | ".join(f"{by_view[view].mean():.2f}" for view in VIEWS)
        print(f"| {activity} | {COMPANIONS[activity]} | {cells} | {100 * rises:.0f} % |")
    everything = {v: np.concatenate([s[v] for s in scores.values()]) for v in VIEWS}
    rises = (everything["covered, companion"] > everything["covered"]).mean()
    cells = " | ".join(f"{everything[view].mean():.2f}" for view in VIEWS)
    print(f"| all | | {cells} | {100 * rises:.0f} % |\n")
    for labels, (partners, others) in text_similarities().items():
        print(f"texts of {labels}: partners {partners:.2f}, others {others:.2f} (mean cosine)")


if __name__ == "__main__":
    main()
