"""Several video encoders from one decoding: every store is what it would be alone."""

import dataclasses
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import TINY_VIT
from test_pipeline import content

from pcmci.cache.schema import Status
from pcmci.cache.store import open_store
from pcmci.errors import UsageError
from pcmci.extract import here, side_by_side
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets import load_dataset
from pcmci.extract.pipeline import extract, extract_side_by_side
from pcmci.extract.video.decoding import Decoders

FRAMES = 8


@pytest.fixture(scope="module")
def dataset(tiny_videos):
    return load_dataset("folder", tiny_videos)


@pytest.fixture(scope="module")
def configs(tiny_encoders, tmp_path_factory):
    """One VLM beside two video encoders."""
    vit = tmp_path_factory.mktemp("vit") / "vit.json"
    vit.write_text(json.dumps(TINY_VIT))
    first = ExtractConfig(frames=FRAMES, **tiny_encoders)
    return [first, dataclasses.replace(first, video_encoder=str(vit), video_weights="random:1")]


@pytest.fixture(scope="module")
def alone(dataset, configs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    paths = [folder / f"{k}.zarr" for k in range(len(configs))]
    for path, config in zip(paths, configs, strict=True):
        extract(dataset, path, config, progress=False)
    return [content(path) for path in paths]


@pytest.fixture
def counted(monkeypatch):
    """How often a video is decoded, and how often the VLM is asked."""
    asked = {"decoded": 0}
    submit = Decoders.submit

    def count(self, path):
        asked["decoded"] += 1
        return submit(self, path)

    monkeypatch.setattr(Decoders, "submit", count)
    return asked


def stores(folder, configs, suffix=".zarr"):
    return [(folder / f"{k}{suffix}", config) for k, config in enumerate(configs)]


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_both_stores_are_those_of_two_extractions(
    dataset, configs, alone, tmp_path, counted, suffix
):
    both = stores(tmp_path, configs, suffix)
    summaries = extract_side_by_side(dataset, both, progress=False)
    assert [content(path) for path, _ in both] == alone
    assert counted["decoded"] == 9  # each once: eight films and one that is none
    for summary in summaries:
        assert summary.counts[Status.DONE] == 8
        assert list(summary.failures) == ["broken"]
    again = extract_side_by_side(dataset, both, progress=False)
    assert counted["decoded"] == 9
    assert [summary.videos for summary in again] == [0, 0]


def test_one_encoder_more_takes_the_vlms_half_from_its_sibling(
    dataset, configs, alone, tmp_path, monkeypatch
):
    both = stores(tmp_path, configs)
    extract(dataset, *both[0], progress=False)
    before = content(both[0][0])
    wanted = []
    real = side_by_side.Decoders

    def decoders(count, sampling, inputs, *rest):
        wanted.append(set(inputs))
        return real(count, sampling, inputs, *rest)

    monkeypatch.setattr(side_by_side, "Decoders", decoders)
    extract_side_by_side(dataset, both, progress=False)
    assert content(both[0][0]) == before
    assert content(both[1][0]) == alone[1]
    # `broken` has no half to copy, but it is not to do in the first store: only the second's
    # encoder has work, and the VLM for what nobody has
    assert wanted == [{"1", "vlm"}]


def test_a_video_that_fails_for_one_encoder_fails_for_that_one(
    dataset, configs, alone, tmp_path, monkeypatch
):
    both = stores(tmp_path, configs)
    load = here.Encoders.with_video

    def sick(self, config):
        pair = load(self, config)
        encode = pair.video.encode

        pair.video.encode = lambda clips: encode(clips) * float("nan")
        return pair

    monkeypatch.setattr(here.Encoders, "with_video", sick)
    first, second = extract_side_by_side(dataset, both, progress=False)
    assert content(both[0][0]) == alone[0]
    assert list(first.failures) == ["broken"]
    assert len(second.failures) == 9
    assert second.counts[Status.DONE] == 0


KILLED = """
import sys
from pcmci.cache.writing.writer import StoreWriter
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets import load_dataset
from pcmci.extract.pipeline import extract_side_by_side

put = StoreWriter.put
def told(self, *arguments):
    put(self, *arguments)
    print("put", arguments[0], flush=True)
    sys.stdin.readline()
StoreWriter.put = told

videos, folder, vlm, vit = sys.argv[1:]
first = ExtractConfig(frames=8, vlm=vlm, vlm_weights="random:0",
                      video_encoder="timesformer-tiny", video_weights="random:0")
second = ExtractConfig(frames=8, vlm=vlm, vlm_weights="random:0",
                       video_encoder=vit, video_weights="random:1")
extract_side_by_side(load_dataset("folder", videos),
                     [(f"{folder}/0.zarr", first), (f"{folder}/1.zarr", second)], progress=False)
"""


@pytest.mark.parametrize("puts", [1, 4])
def test_killed_at_any_moment_all_stores_go_on(
    dataset, configs, alone, tiny_videos, tmp_path, puts
):
    child = subprocess.Popen(
        [
            sys.executable, "-c", KILLED, str(tiny_videos), str(tmp_path), configs[0].vlm,
            configs[1].video_encoder,
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for k in range(puts):
        assert child.stdout.readline().startswith("put")
        if k < puts - 1:
            child.stdin.write("go\n")
            child.stdin.flush()
    child.send_signal(signal.SIGKILL)
    child.wait()
    both = stores(tmp_path, configs)
    extract_side_by_side(dataset, both, progress=False)
    assert [content(path) for path, _ in both] == alone


def test_stores_over_another_vlm_are_refused(dataset, configs, tmp_path):
    both = stores(tmp_path, configs)
    other = dataclasses.replace(configs[0], vlm_weights="random:7")
    extract(dataset, both[0][0], other, progress=False)
    with open_store(both[0][0]) as store:
        assert store.spec.vlm.weights == "random:7"
    with pytest.raises(Exception, match=r"vlm.sha256|other settings"):
        extract_side_by_side(dataset, both, progress=False)


def test_the_command_names_the_stores_and_the_next_step(
    pcmci, tiny_videos, configs, tmp_path, alone
):
    names = f"timesformer-tiny,{configs[1].video_encoder}"
    answer = pcmci(
        "extract", "--dataset", "folder", "--videos", str(tiny_videos),
        "--out", str(tmp_path / "films.zarr"), "--frames", "8", "--vlm", configs[0].vlm,
        "--vlm-weights", "random:0", "--video-encoder", names,
        "--video-weights", "random:0,random:1",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    first, second = tmp_path / "films.zarr", tmp_path / "films_vit.zarr"
    assert [content(first), content(second)] == alone
    assert f"--features {first} --features {second}" in answer.out
    with open_store(first) as one, open_store(second) as two:
        assert np.array_equal(one.read("vlm", one.done_rows), two.read("vlm", two.done_rows))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--video-encoder", "kitchen,kitchen"], "one is there twice"),
        (["--video-encoder", "a,b,c", "--video-weights", "x,y"], "2 for 3 video encoders"),
        (["--video-encoder", "kitchen,a/config.json,b/config.json"], "two would fill"),
    ],
)
def test_what_cannot_be_meant(pcmci, tiny_videos, options, says):
    answer = pcmci("extract", "--dataset", "folder", "--videos", str(tiny_videos), *options)
    assert answer.code == 2
    assert says in answer.err
    assert UsageError.exit_code == 2
