"""Phase one on tiny films: done, failed or missing, resumed, and the same bits every time."""

import dataclasses
import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from children import Child
from conftest import TINY_CLIP, TINY_VIT

from pcmci.cache.schema import Sampling, Status
from pcmci.cache.store import open_store
from pcmci.cache.writing.writer import StoreWriter
from pcmci.errors import SpecMismatch, UsageError, WeightsError
from pcmci.extract.batching import Batcher
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets import load_dataset
from pcmci.extract.encode_files import encode_files
from pcmci.extract.pair import Encoders
from pcmci.extract.pipeline import extract
from pcmci.extract.video.decoding import Decoder, prepare_video
from pcmci.extract.video.frames import iter_frames
from pcmci.stopping import StoppedError

FRAMES = 8


@pytest.fixture(scope="module")
def config(tiny_encoders):
    return ExtractConfig(frames=FRAMES, **tiny_encoders)


@pytest.fixture(scope="module")
def dataset(tiny_videos):
    return load_dataset("folder", tiny_videos)


@pytest.fixture(scope="module")
def whole(dataset, config, tmp_path_factory):
    """A store made in one undisturbed run."""
    path = tmp_path_factory.mktemp("stores") / "whole.zarr"
    extract(dataset, path, config, progress=False)
    return path


def content(path):
    with open_store(path) as store:
        return {
            "status": store.status.tolist(),
            "reasons": list(store.reasons),
            "vlm": store.read("vlm", store.done_rows).tobytes(),
            "video": store.read("video", store.done_rows).tobytes(),
            "text": [store.text(name).tobytes() for name in store.spec.label_sets],
            "fingerprint": store.fingerprint,
        }


def test_every_video_ends_as_done_failed_or_missing(whole, dataset):
    with open_store(whole) as store:
        by_status = {
            status: [video for video, s in zip(store.ids, store.status, strict=True) if s == status]
            for status in Status
        }
        reasons = dict(zip(store.ids, store.reasons, strict=True))
    assert by_status[Status.FAILED] == ["broken"]
    assert by_status[Status.MISSING] == ["lost"]
    assert len(by_status[Status.DONE]) == 8
    assert not by_status[Status.PENDING]
    assert reasons["broken"]
    assert reasons["lost"] == "not on disk"


def test_features_are_those_of_the_video_alone(whole, dataset, config):
    """Whoever shared its batches, a video's features are what the encoders make of its frames."""
    encoders = Encoders.load(config)
    with open_store(whole) as store:
        for row in store.done_rows:
            video = dataset.videos[row]
            clips = prepare_video(video.path, store.spec.sampling, encoders.inputs)
            for name, encoder in encoders.named.items():
                alone = encoder.encode(torch.from_numpy(clips[name])).numpy()
                stored = store.read(name, np.array([row]))[0].astype(np.float32)
                np.testing.assert_allclose(
                    stored, alone.reshape(stored.shape), rtol=2e-3, atol=1e-4
                )


def test_real_clips_are_done_or_failed_with_their_reason(shared_videos, config, tmp_path):
    out = tmp_path / "clips.h5"
    clips = load_dataset("folder", shared_videos)
    summary = extract(clips, out, config, progress=False)
    assert set(summary.failures) == {"corrupted"}
    assert "decoding fails at" in summary.failures["corrupted"]
    assert summary.counts[Status.DONE] == summary.videos == 10
    assert summary.frames == 10 * FRAMES
    again = extract(clips, out, config, progress=False)
    assert again.videos == 0
    with open_store(out) as store:
        assert np.isfinite(store.read("video", store.done_rows)).all()


def test_squashed_frames_and_an_image_encoder_go_all_the_way(shared_videos, tmp_path):
    (tmp_path / "films" / "tea").mkdir(parents=True)
    shutil.copy(shared_videos / "vid1.mp4", tmp_path / "films" / "tea")  # wider than high
    squash = {"model_cfg": TINY_CLIP, "preprocess_cfg": {"resize_mode": "squash"}}
    (tmp_path / "clip.json").write_text(json.dumps(squash))
    (tmp_path / "vit.json").write_text(json.dumps(TINY_VIT))
    config = ExtractConfig(
        frames=3, vlm=str(tmp_path / "clip.json"), vlm_weights="random:0",
        video_encoder=str(tmp_path / "vit.json"), video_weights="random:0",
    )  # fmt: skip
    films = load_dataset("folder", tmp_path / "films")
    extract(films, tmp_path / "squash.zarr", config, progress=False)
    (tmp_path / "clip.json").write_text(json.dumps(TINY_CLIP))
    with open_store(tmp_path / "squash.zarr") as store:
        spec = store.spec
        found = {name: store.read(name)[0].astype(np.float32) for name in ("vlm", "video")}
    assert spec.vlm.preprocessing.resize_mode == "squash"
    assert (spec.format_version, spec.video.tokens, spec.video.width) == (2, 3, 24)
    with pytest.raises(
        SpecMismatch, match=r"resize_mode: the store has 'squash', asked for 'shortest'"
    ):
        extract(films, tmp_path / "squash.zarr", config, progress=False)
    (tmp_path / "clip.json").write_text(json.dumps(squash))
    encoders = Encoders.load(config)
    clips = prepare_video(films.videos[0].path, spec.sampling, encoders.inputs)
    for name, encoder in encoders.named.items():
        alone = encoder.encode(torch.from_numpy(clips[name])).numpy()
        np.testing.assert_allclose(found[name], alone.reshape(1, 3, -1), rtol=2e-3, atol=1e-3)


def test_the_same_run_again_does_nothing(whole, dataset, config):
    before = content(whole)
    summary = extract(dataset, whole, config, progress=False)
    assert (summary.videos, summary.frames, summary.failures) == (0, 0, {})
    assert content(whole) == before


def test_retrying_tries_the_failed_alone(dataset, config, whole):
    summary = extract(dataset, whole, config, retry_failed=True, progress=False)
    assert list(summary.failures) == ["broken"]
    assert summary.videos == 0


def test_a_missing_video_that_turns_up_is_done(tiny_videos, config, tmp_path):
    films = tmp_path / "films"
    shutil.copytree(tiny_videos, films)
    out = tmp_path / "store.zarr"
    extract(load_dataset("folder", films), out, config, progress=False)
    shutil.copy(films / "film0.mp4", films / "lost.mp4")
    summary = extract(load_dataset("folder", films), out, config, progress=False)
    assert summary.videos == 1
    with open_store(out) as store:
        twin, found = (store.ids.index(name) for name in ("film0", "lost"))
        features = store.read("vlm", np.array([twin, found]))
        np.testing.assert_array_equal(features[0], features[1])


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_killed_and_started_again_ends_with_the_same_bits(
    dataset, config, whole, tiny_videos, tmp_path, suffix
):
    """SIGKILL when some videos are in, in both formats."""
    out = tmp_path / f"store{suffix}"
    child = Child(extract_three, tiny_videos, out, config)
    for _ in range(3):
        assert child.out.readline().startswith("encoded")
    child.send_signal(signal.SIGKILL)
    child.wait()
    summary = extract(dataset, out, config, progress=False)
    assert 0 < summary.videos < 8
    assert content(out) == content(whole)


def extract_three(videos, out, config):
    """In a child: an extraction that waits to be killed when three videos are in."""
    put, rows = StoreWriter.put, []

    def put_and_wait(writer, row, *features):
        put(writer, row, *features)
        print("encoded", row, flush=True)
        rows.append(row)
        if len(rows) == 3:
            signal.pause()

    StoreWriter.put = put_and_wait
    extract(load_dataset("folder", videos), out, config, progress=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly(dataset, config, monkeypatch, tmp_path, number):
    """What is in flight is stored, the error says how to go on, the handlers are as before."""
    out = tmp_path / "store.zarr"
    handler = signal.getsignal(number)
    decode = Decoder.prepare

    def decode_and_stop(decoder, path):
        if "film2" in str(path):
            os.kill(os.getpid(), number)
            time.sleep(0.05)
        return decode(decoder, path)

    monkeypatch.setattr(Decoder, "prepare", decode_and_stop)
    with pytest.raises(StoppedError, match="the same command goes on") as stopped:
        extract(dataset, out, config, progress=False)
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) is handler
    with open_store(out) as store:
        done = {store.ids[row] for row in store.done_rows}
    assert {"film0", "film1", "film2"} <= done
    monkeypatch.undo()
    extract(dataset, out, config, progress=False)
    with open_store(out) as store:
        assert len(store.done_rows) == 8


def test_another_encoder_is_refused_by_name(dataset, config, whole, tiny_encoders):
    other = ExtractConfig(frames=FRAMES, **{**tiny_encoders, "vlm_weights": "random:1"})
    before = content(whole)
    with pytest.raises(SpecMismatch, match=r"vlm\.(sha256|weights)"):
        extract(dataset, whole, other, progress=False)
    assert content(whole) == before


def test_views_are_other_frames_and_view_0_is_the_uniform_one(dataset, config, whole, tmp_path):
    out = tmp_path / "views.zarr"
    extract(dataset, out, dataclasses.replace(config, views=3), progress=False)
    with open_store(out) as store, open_store(whole) as single:
        rows = store.done_rows
        views = store.read("vlm", rows).astype(np.float32)
        np.testing.assert_allclose(views[:, :1], single.read("vlm", rows), rtol=2e-3, atol=1e-4)
        assert not np.array_equal(views[:, 0], views[:, 1])
        assert not np.array_equal(views[:, 1], views[:, 2])


def test_every_place_gets_its_frame_of_both_encoders(tiny_videos, config):
    encoders = Encoders.load(config)
    path = tiny_videos / "film0.mp4"
    clips = prepare_video(path, Sampling(FRAMES, 2), encoders.inputs)
    for name, encoder in encoders.named.items():
        flat = clips[name].reshape(2 * FRAMES, *clips[name].shape[2:])
        for places, frame in iter_frames(path, FRAMES, 2):
            for place in places:
                np.testing.assert_array_equal(flat[place], encoder.prepare(frame))


def test_an_encoder_that_gives_nan_fails_the_video(dataset, config, monkeypatch, tmp_path):
    encode = Batcher._collect

    def spoiled(self):
        for row, features in encode(self):
            if dataset.videos[row].id == "film4":
                features = np.full_like(features, np.nan)
            yield row, features

    monkeypatch.setattr(Batcher, "_collect", spoiled)
    summary = extract(dataset, tmp_path / "store.zarr", config, progress=False)
    assert "NaN" in summary.failures["film4"]
    with open_store(tmp_path / "store.zarr") as store:
        assert store.status[store.ids.index("film4")] == Status.FAILED


def test_new_files_are_encoded_as_an_extraction_would(whole, tiny_videos):
    with open_store(whole) as store:
        paths = [tiny_videos / f"{video}.mp4" for video in ("film3", "broken", "film1")]
        features, failures = encode_files(paths, store.spec, device="cpu")
        rows = np.array([store.ids.index("film3"), store.ids.index("film1")])
        assert list(failures) == [paths[1]]
        for name in ("vlm", "video"):
            stored = store.read(name, rows)[:, 0].astype(np.float32)
            np.testing.assert_allclose(features[name], stored, rtol=2e-3, atol=1e-4)


def test_encoders_of_other_weights_are_not_used_for_prediction(whole, tiny_videos):
    with open_store(whole) as store:
        spec = store.spec
    other = dataclasses.replace(spec, vlm=dataclasses.replace(spec.vlm, sha256="0" * 64))
    with pytest.raises(WeightsError, match="vlm encoder's weights"):
        encode_files([tiny_videos / "film0.mp4"], other, device="cpu")


def test_a_device_that_is_not_there_is_an_error(dataset, tiny_encoders, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    config = ExtractConfig(frames=FRAMES, device="cuda", **tiny_encoders)
    with pytest.raises(UsageError, match="no CUDA device"):
        extract(dataset, tmp_path / "store.zarr", config)
    assert not list(tmp_path.iterdir())
