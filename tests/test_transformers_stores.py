"""Stores whose tokens are not one a frame: BLIP-2's 32 queries, and a token for two frames."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_blip
import test_tubelets
import torch

from pcmci.cache.schema import Sampling
from pcmci.cache.store import open_store
from pcmci.extract.encoders import load_video_encoder, load_vlm
from pcmci.extract.video.decoding import Input, prepare_video

QUICK = ("--epochs", 2, "--feedforward", 16, "--decoder-heads", 2, "--relations", 2)
FRAMES = 8


def extracted(pcmci: Any, videos: Path, out: Path, vlm: Path, video: Path | str) -> None:
    answer = pcmci(
        "extract", "--dataset", "folder", "--videos", videos, "--frames", FRAMES, "--out", out,
        "--vlm", vlm, "--vlm-weights", "random:0", "--video-encoder", video,
        "--video-weights", "random:0",
    )  # fmt: skip
    assert answer.code == 0, answer.err


def trained(pcmci: Any, store: Path, order: str = "ich,ici,ivc") -> dict[str, Any]:
    answer = pcmci("train-heads", "--features", store, "--order", order, "--json", *QUICK)
    assert answer.code == 0, answer.err
    return answer.json


def test_a_vlm_of_32_tokens_a_frame_goes_all_the_way(
    pcmci: Any, tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    vlm = test_blip.written(tmp_path / "vlm", "blip-2", queries="all", num_query_tokens=32)
    out = tmp_path / "queries.zarr"
    extracted(pcmci, tiny_videos, out, vlm, "timesformer-tiny")
    encoder = load_vlm(str(vlm), "random:0", device="cpu", frames=FRAMES)
    film = str(tiny_videos / "film3.mp4")
    inputs = {"vlm": Input(encoder.spec.preprocessing, 1)}
    clips = prepare_video(film, Sampling(FRAMES, 1), inputs)["vlm"]
    alone = encoder.encode(torch.from_numpy(clips)).numpy()
    with open_store(out) as store:
        spec, row = store.spec, store.ids.index("film3")
        found = store.read("vlm", np.array([row]))[0].astype(np.float32)
    assert (spec.vlm.tokens, spec.video.tokens) == (32 * FRAMES, FRAMES)
    assert spec.libraries["transformers"] == version("transformers")
    assert found.shape == (1, 32 * FRAMES, 16)
    np.testing.assert_allclose(found, alone.reshape(1, -1, 16), rtol=2e-3, atol=1e-3)
    run = trained(pcmci, out)
    assert run["scores"]["test"]["with features"] == 2
    answer = pcmci("predict", run["run"], film, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["predictions"][film]


def test_a_video_encoder_of_a_token_for_two_frames_goes_all_the_way(
    pcmci: Any, tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    vlm = test_blip.written(tmp_path / "vlm", "blip")
    film = str(tiny_videos / "film3.mp4")
    for family, config in test_tubelets.TINY.items():
        path, out = tmp_path / f"{family}.json", tmp_path / f"{family}.zarr"
        path.write_text(json.dumps(config))
        extracted(pcmci, tiny_videos, out, vlm, path)
        encoder = load_video_encoder(str(path), "random:0", device="cpu", frames=FRAMES)
        inputs = {"video": Input(encoder.spec.preprocessing, encoder.clip_frames)}
        clips = prepare_video(film, Sampling(FRAMES, 1), inputs)["video"]
        alone = encoder.encode(torch.from_numpy(clips)).numpy()
        with open_store(out) as store:
            spec, row = store.spec, store.ids.index("film3")
            found = store.read("video", np.array([row]))[0].astype(np.float32)
        assert (spec.vlm.tokens, spec.video.tokens) == (FRAMES, FRAMES // 2)
        assert found.shape == (1, FRAMES // 2, test_tubelets.WIDTH)
        np.testing.assert_allclose(found[0], alone.reshape(FRAMES // 2, -1), rtol=2e-3, atol=1e-3)
        assert trained(pcmci, out)["scores"]["test"]["with features"] == 2
