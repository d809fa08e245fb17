"""The encoders that come with the package: small, loaded as any other, better than chance, and
misled by what their training made them believe."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression

from pcmci.errors import WeightsError
from pcmci.extract.config import ExtractConfig
from pcmci.extract.encoders import clip_source, load_video_encoder, load_vlm
from pcmci.extract.encoders.weights import SHIPPED_FOLDER, state_dict_sha256
from pcmci.kitchen import ACTIONS, ACTIVITIES, CLIP_LABELS, Knobs, action_clip, captioned_frames
from pcmci.kitchen.causal import PARTNERS
from pcmci.kitchen.grammar import ACTIVITY_TEXTS
from pcmci.kitchen.world import ACTIVITY_TEMPLATE, STEP_TEMPLATE

UNSEEN = 2_000_000_000
"""Training and its measurements stay below this number."""


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def clip():
    return load_vlm("kitchen", "own", device="cpu", frames=16)


@pytest.fixture(scope="module")
def timesformer():
    return load_video_encoder("kitchen", "own", device="cpu", frames=16)


@pytest.fixture(scope="module")
def plain_frames():
    """60 videos, 4 frames each, without any confounder."""
    return [captioned_frames(UNSEEN + k, 4, knobs=Knobs(0, 0, 0)) for k in range(60)]


def images(clip, videos) -> np.ndarray:
    frames = torch.from_numpy(np.concatenate([video.frames for video in videos]))[:, None]
    return unit(clip.encode(frames)[:, 0].numpy())


def test_all_of_them_are_small():
    largest = max(path.stat().st_size for path in SHIPPED_FOLDER.iterdir())
    assert largest < 3.5e6


def test_clip_names_activities_and_steps_far_better_than_chance(clip, plain_frames):
    shown = images(clip, plain_frames)
    text = unit(clip.encode_text([ACTIVITY_TEMPLATE.format(t) for t in ACTIVITY_TEXTS.values()]))
    truth = [ACTIVITIES.index(video.activity) for video in plain_frames for _ in video.frames]
    assert (np.argmax(shown @ text.T, 1) == truth).mean() > 3 / len(ACTIVITIES)

    text = unit(clip.encode_text([STEP_TEMPLATE.format(a.text) for a in ACTIONS.values()]))
    said = [action for video in plain_frames for action in video.actions]
    best = np.argmax(shown @ text.T, 1)
    names = list(ACTIONS)
    right = [names[b] == a for b, a in zip(best, said, strict=True) if a]
    assert np.mean(right) > 5 / len(ACTIONS)


def test_partners_sound_alike_to_it(clip):
    names = list(ACTIONS)
    text = unit(clip.encode_text([STEP_TEMPLATE.format(a.text) for a in ACTIONS.values()]))
    cosines = text @ text.T
    partner = np.array([[PARTNERS[a] == b for b in names] for a in names])
    others = ~partner & ~np.eye(len(names), dtype=bool)
    assert cosines[partner].mean() > cosines[others].mean() + 0.2


def test_it_hallucinates_from_its_training_and_not_by_its_architecture():
    from hallucination import matching_scores

    def rise(weights: str) -> float:
        scores = matching_scores(60, weights).values()
        with_own = np.concatenate([s["covered, companion"] for s in scores])
        with_other = np.concatenate([s["covered, another's companion"] for s in scores])
        plain = np.concatenate([s["covered"] for s in scores])
        assert weights != "own" or (with_own > plain).mean() > 0.6
        return float((with_own - with_other).mean())

    assert rise("own") > 10 * abs(rise("random:0"))


def test_the_video_encoder_tells_actions_apart(timesformer):
    clips = [action_clip(UNSEEN + k) for k in range(360)]
    shown = np.concatenate(
        [
            timesformer.encode(torch.from_numpy(np.stack([c.frames for c in clips[k : k + 40]])))
            .mean(1)
            .numpy()
            for k in range(0, len(clips), 40)
        ]
    )
    labels = np.array([clip.label for clip in clips])
    probe = LogisticRegression(C=1.0, max_iter=500).fit(shown[:240], labels[:240])
    assert probe.score(shown[240:], labels[240:]) > 8 / len(CLIP_LABELS)


def test_what_training_measured_is_true_of_what_ships(clip, timesformer):
    others = [path.name.split(".quality")[0] for path in SHIPPED_FOLDER.glob("clip-*.quality.json")]
    models = [("clip", clip), ("timesformer", timesformer), *((other, clip) for other in others)]
    for name, encoder in models:
        quality = json.loads((SHIPPED_FOLDER / f"{name}.quality.json").read_text())
        shipped = load_file(SHIPPED_FOLDER / f"{name}.safetensors")
        assert quality["sha256"] == state_dict_sha256(shipped)
        assert quality["parameters"] == encoder.spec.parameters


def test_auto_is_the_embedded_default_of_the_world_and_the_papers_elsewhere():
    kitchen = ExtractConfig().resolved("kitchen")
    assert (kitchen.vlm, kitchen.vlm_weights) == ("kitchen", "own")
    assert (kitchen.video_encoder, kitchen.video_weights) == ("kitchen", "own")
    coin = ExtractConfig().resolved("coin")
    assert (coin.vlm, coin.vlm_weights) == ("ViT-B-16-quickgelu", "openai")
    assert coin.video_weights == "facebook/timesformer-base-finetuned-k400"
    mixed = ExtractConfig(vlm="kitchen", video_weights="mine.pyth").resolved("coin")
    assert (mixed.vlm, mixed.vlm_weights) == ("kitchen", "own")
    assert (mixed.video_encoder, mixed.video_weights) == ("timesformer-base", "mine.pyth")


def test_a_clip_of_another_pretraining_has_a_name_of_its_own(tmp_path, monkeypatch):
    for name in ("clip.json", "clip.bpe.gz", "clip.safetensors"):
        (tmp_path / name).write_bytes((SHIPPED_FOLDER / name).read_bytes())
    state = load_file(tmp_path / "clip.safetensors")
    save_file({key: 2 * tensor for key, tensor in state.items()}, tmp_path / "clip-h0.safetensors")
    monkeypatch.setattr(clip_source, "SHIPPED_FOLDER", tmp_path)
    asked = ExtractConfig(vlm="kitchen:h0").resolved("kitchen")
    assert (asked.vlm, asked.vlm_weights) == ("kitchen:h0", "own")
    spec, usual = (load_vlm(name, device="cpu").spec for name in ("kitchen:h0", "kitchen"))
    assert (spec.name, spec.weights) == ("kitchen:h0", "own")
    assert spec.sha256 != usual.sha256
    for name in ("kitchen:h3", "kitchen:", "kitchen:/../../clip"):
        with pytest.raises(WeightsError, match="kitchen, kitchen:h0 come with pcmci"):
            load_vlm(name, device="cpu")


def test_only_the_shipped_model_brings_weights_along():
    with pytest.raises(WeightsError, match="timesformer-base brings no weights of its own"):
        load_video_encoder("timesformer-base", "own", device="cpu", frames=8)
