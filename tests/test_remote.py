"""Videos on servers: the same features as from local files, and every trouble in one line."""

import contextlib
import resource
import shutil
import signal
import socket
import sys
from pathlib import Path

import numpy as np
import obstore
import pytest
from children import Child
from servers import bucket, objects, upload, web_server
from test_pipeline import extract_three

from pcmci.cache.schema import Preprocessing, Sampling, Status
from pcmci.cache.store import open_store
from pcmci.errors import PcmciError, RemoteError, StoreError, UsageError, VideoError
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets import load_dataset
from pcmci.extract.datasets.files import VideoTree, list_files
from pcmci.extract.pipeline import extract
from pcmci.extract.video.decoding import Decoder, Input
from pcmci.heads.training.run import load_run
from pcmci.remote.url import place


@pytest.fixture(scope="module")
def config(tiny_encoders):
    return ExtractConfig(frames=8, **tiny_encoders)


@pytest.fixture(scope="module")
def local(tiny_videos, config, tmp_path_factory):
    """The store of the local films."""
    path = tmp_path_factory.mktemp("stores") / "local.zarr"
    extract(load_dataset("folder", tiny_videos), path, config, progress=False)
    return path


def digest(path):
    with open_store(path) as store:
        return store.content_digest


# --- places ---------------------------------------------------------------------------------------


def test_a_url_is_taken_apart_and_put_together():
    url = place("S3://bucket/a/b c%20.mp4/")
    assert (url.scheme, url.bucket, url.key) == ("s3", "bucket", "a/b c%20.mp4")
    assert (url.name, url.stem, url.suffix) == ("b c%20.mp4", "b c%20", ".mp4")
    assert str(url.parent / "x.zarr") == "s3://bucket/a/x.zarr"
    assert str(url.with_name("é.csv")) == "s3://bucket/a/é.csv"
    assert str(place("s3://bucket") / "x") == "s3://bucket/x"
    page = place("https://host:80/a%20b/f.mp4?signature=x#y")
    assert (page.name, page.suffix, page.bucket) == ("f.mp4", ".mp4", "host:80")
    assert str(page.parent / "ü 1.mp4").startswith("https://host:80/a%20b/%C3%BC%201.mp4?sig")


def test_paths_stay_paths(tmp_path):
    assert place(str(tmp_path)) == place(tmp_path) == tmp_path
    assert str(place("c:/films")) == "c:/films"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ftp://host/x", "URLs begin with s3://"),
        ("s3:/bucket/x", "takes a slash away"),
        ("s3:///x", "right would be s3://bucket"),
        ("https://me:hunter2@host/x", "no password"),
    ],
)
def test_a_url_that_cannot_be_used(text, message):
    with pytest.raises(UsageError, match=message) as error:
        place(text)
    assert "hunter2" not in str(error.value)


# --- what lies there ------------------------------------------------------------------------------


def test_objects_are_listed_with_any_name_and_nothing_hidden(s3):
    names = ["a b%20c.mp4", "ä~#?x.MP4", "deep/er/plus+.mkv", "[1]{2}.webm"]
    for name in [*names, ".hidden.mp4", "deep/.git/x.mp4", "notes.txt"]:
        obstore.put(bucket(s3), f"prefix/{name}", name.encode())
    obstore.put(bucket(s3), "prefix-not/other.mp4", b"")
    found = list_files(place(f"s3://{s3}/prefix"), {".mp4", ".mkv", ".webm"})
    files = found.files
    assert sorted(files) == sorted(names)
    assert found.notes == ()
    for name, url in files.items():
        assert url.is_file()
        assert url.read(100) == name.encode()
        assert url.read(3) == name.encode()[:3]
    assert place(f"s3://{s3}").is_dir()
    assert not (place(f"s3://{s3}") / "pref").exists()


def test_a_folder_in_a_bucket_is_read_in_every_spelling_too(s3):
    root = f"s3://{s3}/films"
    for name in ("Train/tea/a.wmv", "Testing/milk/b.MTS", "Testing/milk/notes.txt"):
        obstore.put(bucket(s3), f"films/{name}", b"")
    dataset = load_dataset("folder", root, follow_links=True)
    found = [(video.id, video.split, str(video.path)) for video in dataset.videos]
    assert found == [
        ("Testing__milk__b", "test", f"{root}/Testing/milk/b.MTS"),
        ("Train__tea__a", "train", f"{root}/Train/tea/a.wmv"),
    ]
    assert any("1 .txt: Testing/milk/notes.txt" in note for note in dataset.notes)
    table = f"Video;Split;Steps\n{root}/train/TEA/a;Training;pour\nTesting\\milk\\b.MTS;test;stir\n"
    obstore.put(bucket(s3), "mine.csv", table.encode("utf-16"))
    dataset = load_dataset("folder", root, f"s3://{s3}/mine.csv")
    assert [str(video.path) for video in dataset.videos] == [found[1][2], found[0][2]]
    assert any("train/TEA/a is Train/tea/a.wmv" in note for note in dataset.notes)


def test_a_web_folder_is_listed_through_its_pages(tmp_path):
    names = ["a b%20c.mp4", "ä~#x.mp4", "deep/er/plus+.mp4", "q?x=1.mp4"]
    for name in [*names, ".hidden.mp4", "notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    with web_server(tmp_path) as (url, _):
        tree = VideoTree(place(f"{url}/"))
        assert sorted(tree.files) == sorted(names)
        for name, film in tree.files.items():
            assert film.is_file()
            assert film.read(100) == name.encode()
            assert film.read(2) == name.encode()[:2]
        assert not place(f"{url}/no.csv").exists()


# --- videos ---------------------------------------------------------------------------------------


def check_like_local(path, local):
    """The same but for what is lost or broken, whose words may differ."""
    assert digest(path) == digest(local)
    with open_store(path) as store, open_store(local) as expected:
        assert store.reasons == expected.reasons
        assert store.counts[Status.DONE] == 8
        for array in ("vlm", "video"):
            assert store.read(array).tobytes() == expected.read(array).tobytes()


def test_features_of_videos_in_a_bucket_are_those_of_local_ones(
    pcmci, s3, tiny_videos, tiny_encoders, local, tmp_path, monkeypatch
):
    upload(tiny_videos, s3, "my films")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    out = tmp_path / "store.zarr"
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in tiny_encoders.items()]
    answer = pcmci(
        "extract", "--dataset", "folder", "--videos", f"s3://{s3}/my films/", "--out", out,
        "--frames", 8, *flags,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    check_like_local(out, local)
    assert list(scratch.iterdir()) == []


def test_features_of_videos_on_a_web_server_are_those_of_local_ones(
    tiny_videos, config, local, tmp_path
):
    with web_server(tiny_videos) as (url, trouble):
        dataset = load_dataset("folder", url)
        trouble += [503, 500]  # the first film: the third try has it
        out = tmp_path / "store.zarr"
        extract(dataset, out, config, progress=False)
    check_like_local(out, local)


def test_an_annotation_in_a_bucket(s3, coin_json, tmp_path):
    obstore.put(bucket(s3), "coin/COIN.json.gz", coin_json.read_bytes())
    (tmp_path / "8NaVGEccgc.mp4").write_bytes(b"")
    known = next(iter(load_coin_ids(coin_json)))
    (tmp_path / f"{known}.mp4").write_bytes(b"")
    there = load_dataset("coin", tmp_path, f"s3://{s3}/coin/COIN.json.gz")
    assert there.videos == load_dataset("coin", tmp_path, coin_json).videos


def load_coin_ids(path):
    import gzip
    import json

    return json.loads(gzip.decompress(path.read_bytes()))["database"]


def test_what_is_gone_after_the_listing_fails_with_its_reason(s3, tiny_videos, config, tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    for name in ("film0.mp4", "film1.mp4"):
        shutil.copy(tiny_videos / name, films)
    upload(films, s3, "few")
    dataset = load_dataset("folder", f"s3://{s3}/few")
    obstore.delete(bucket(s3), "few/film0.mp4")
    summary = extract(dataset, tmp_path / "few.zarr", config, progress=False)
    assert summary.failures == {"film0": "cannot be downloaded: it is not there"}
    assert summary.counts[Status.DONE] == 1


def test_a_web_server_in_trouble_is_a_reason(tiny_videos, config, tmp_path):
    with web_server(tiny_videos) as (url, trouble):
        dataset = load_dataset("folder", url)
        trouble += [500] * 3
        summary = extract(dataset, tmp_path / "s.zarr", config, progress=False)
    assert summary.failures["film0"] == "cannot be downloaded: the server answers 500"
    assert set(summary.failures) == {"film0", "broken"}


@pytest.fixture
def decoder(config, tmp_path, monkeypatch):
    """A decoder with all the time it wants, whose temporary files go to tmp_path / "scratch"."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    inputs = {"vlm": Input(Preprocessing(8, 8, "bicubic", (0.5,) * 3, (0.5,) * 3), 1)}
    with contextlib.closing(Decoder(Sampling(4), inputs, 600)) as decoder:
        yield decoder
    assert list(scratch.iterdir()) == []


def test_a_server_that_says_nothing_costs_its_video_the_time_of_one(decoder, tiny_videos):
    with web_server(tiny_videos) as (url, trouble):
        film = place(f"{url}/film0.mp4")
        assert decoder.prepare(film)["vlm"].shape == (4, 1, 8, 8, 3)
        decoder._seconds = 1
        trouble += [0]
        with pytest.raises(VideoError, match="downloading and decoding it take longer than 1 s"):
            decoder.prepare(film)
        decoder._seconds = 600
        assert decoder.prepare(film)["vlm"].shape == (4, 1, 8, 8, 3)


def test_no_room_for_a_download_is_no_fault_of_the_video(decoder, tiny_videos):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with web_server(tiny_videos) as (url, _):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the decoder's process inherits it
        try:
            with pytest.raises(PcmciError, match="TMPDIR names another folder") as error:
                decoder.prepare(place(f"{url}/film0.mp4"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not isinstance(error.value, VideoError)


def test_new_videos_are_predicted_by_url(pcmci, s3, local, tiny_videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = ("--epochs", 1, "--feedforward", 16, "--decoder-heads", 2, "--relations", 2)
    run = pcmci("train-heads", "--features", local, "--order", "none", "--json", *quick).json["run"]
    upload(tiny_videos, s3, "new")
    films = [f"s3://{s3}/new/film3.mp4", f"s3://{s3}/new/none.mp4"]
    answer = pcmci("predict", run, *films, "--json")
    assert answer.code == 1
    assert answer.json["failures"] == {films[1]: "cannot be downloaded: it is not there"}
    here = pcmci("predict", run, tiny_videos / "film3.mp4", "--json").json["predictions"]
    assert answer.json["predictions"][films[0]] == here[str(tiny_videos / "film3.mp4")]


# --- stores ---------------------------------------------------------------------------------------


def test_both_phases_on_a_store_in_a_bucket(
    pcmci, s3, tiny_videos, tiny_encoders, local, tmp_path, monkeypatch
):
    """Made there, gone on with, looked into, checked, trained from and copied, by the commands."""
    monkeypatch.chdir(tmp_path)
    out = f"s3://{s3}/features/films.zarr"
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in tiny_encoders.items()]
    command = (
        "extract", "--dataset", "folder", "--videos", tiny_videos, "--out", out, "--frames", 8,
        "--json", *flags,
    )  # fmt: skip
    answer = pcmci(*command)
    assert answer.code == 0, answer.err
    assert answer.json["store"] == out
    check_like_local(out, local)
    assert pcmci(*command).json["videos"] == 0
    assert sorted({name.split("/")[0] for name in objects(s3, "features")}) == ["films.zarr"]

    info = pcmci("store", "info", out, "--json").json
    assert info["path"] == out
    assert info["content"] == digest(local)
    assert pcmci("store", "verify", out).code == 0
    assert "broken" in pcmci("store", "failures", out).out
    copy = tmp_path / "copy.h5"
    assert pcmci("store", "convert", out, copy).code == 0
    assert digest(copy) == digest(local)
    assert "a store under a URL is a .zarr" in said(pcmci, "store", "convert", copy, out + ".h5")

    quick = ("--epochs", 2, "--feedforward", 16, "--decoder-heads", 2, "--relations", 2)
    found = []
    for store, runs in ((out, "there"), (local, "here")):
        answer = pcmci(
            "train-heads", "--features", store, "--order", "ich,ici", "--out", runs, "--json",
            *quick,
        )  # fmt: skip
        assert answer.code == 0, answer.err
        found.append(load_run(answer.json["run"]).predictions)
    assert set(found[0].labels) == {"activity", "steps"}
    for labels, predicted in found[0].labels.items():
        np.testing.assert_array_equal(predicted.logits, found[1].labels[labels].logits)
    plans = list((Path("there") / "plans").glob("*.npy"))
    assert len(plans) == 2  # of activity and steps


def test_an_extraction_that_was_killed_ends_with_the_same_bits(
    s3, tiny_videos, config, local, monkeypatch
):
    """SIGKILL of a process that writes to the bucket, when some videos are in."""
    out = f"s3://{s3}/features/films.zarr"
    child = Child(extract_three, tiny_videos, out, config)
    for _ in range(3):
        assert child.out.readline().startswith("encoded")
    with pytest.raises(StoreError, match=f"being written by process {child.pid}"):
        extract(load_dataset("folder", tiny_videos), out, config, progress=False)
    child.send_signal(signal.SIGKILL)
    child.wait()
    summary = extract(load_dataset("folder", tiny_videos), out, config, progress=False)
    assert 0 < summary.videos < 8
    check_like_local(out, local)


# --- servers that do not answer -------------------------------------------------------------------


def said(pcmci, *arguments):
    """The one line of a command that fails."""
    answer = pcmci(*arguments)
    assert answer.code in (1, 2)
    assert "Traceback" not in answer.err
    assert "secret" not in answer.err
    [line] = answer.err.splitlines()
    return line


@pytest.fixture
def closed_port():
    """Nobody listens there, and nobody else can have it meanwhile."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield one.getsockname()[1]


def test_a_server_that_cannot_be_reached_is_one_line(pcmci, s3, monkeypatch, closed_port):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port}")
    line = said(pcmci, "extract", "--dataset", "folder", "--videos", f"s3://{s3}/x")
    assert f"s3://{s3}/x cannot be" in line
    assert "the server cannot be reached" in line
    web = f"http://127.0.0.1:{closed_port}/films"
    line = said(pcmci, "extract", "--dataset", "folder", "--videos", web)
    assert f"{web} cannot be" in line
    assert "the server cannot be reached" in line
    store = f"s3://{s3}/x.zarr"
    for command in ("info", "verify", "failures"):
        assert "the server cannot be reached" in said(pcmci, "store", command, store)
    line = said(pcmci, "train-heads", "--features", store)
    assert f"{store}/zarr.json cannot be read: the server cannot be reached" in line


def test_a_store_that_cannot_be_reached_is_found_out_first(
    s3, tiny_videos, config, monkeypatch, tmp_path, closed_port
):
    dataset = load_dataset("folder", tiny_videos)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setattr("pcmci.extract.pipeline.Encoders.load", None)
    with pytest.raises(StoreError, match="the server cannot be reached"):
        extract(dataset, f"s3://{s3}/x.zarr", config, progress=False)


def test_a_bucket_and_a_folder_that_are_not_there(pcmci, s3):
    line = said(pcmci, "extract", "--dataset", "folder", "--videos", "s3://no-such-bucket/x")
    assert "there is no such bucket" in line
    line = said(pcmci, "extract", "--dataset", "folder", "--videos", f"s3://{s3}/nothing")
    assert f"no folder of videos at s3://{s3}/nothing" in line


def test_an_endpoint_that_is_not_allowed_says_what_allows_it(s3, monkeypatch):
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(RemoteError, match="AWS_ALLOW_HTTP"):
        place(f"s3://{s3}/x").is_dir()


@pytest.mark.parametrize(
    ("module", "url"), [("obstore", "s3://films/x"), ("aiohttp", "https://localhost/x")]
)
def test_without_the_extra_one_line_says_how_to_get_it(pcmci, monkeypatch, module, url):
    monkeypatch.setitem(sys.modules, module, None)
    line = said(pcmci, "extract", "--dataset", "folder", "--videos", url)
    assert line == f"pcmci: {url}: URLs need {module}: pip install 'pcmci[remote]'"
