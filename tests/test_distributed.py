"""An extraction on a Dask cluster: the same bits, whoever computes, dies, comes or goes."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import dask
import pytest
from children import Child, forkserver
from children import command as run_command
from clusters import (
    Deadly,
    Lacks,
    Other,
    Sick,
    Slow,
    Stillborn,
    all_ready,
    kill,
    local_client,
    refused,
    work_waits_for,
)
from films import hurt_packets
from servers import upload
from test_frames import Film

from pcmci.cache.schema import Status
from pcmci.cache.store import open_store
from pcmci.cluster.connect import visible_gpus, worker_specs
from pcmci.cluster.dispatch import Dispatcher
from pcmci.errors import ClusterError, NoWorker, SpecMismatch
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets import load_dataset
from pcmci.extract.distributed import ClusterExtraction
from pcmci.extract.pipeline import extract
from pcmci.remote.url import place

FRAMES = 8


@pytest.fixture(scope="module")
def config(tiny_encoders):
    """Batches of one video, so that none is half empty."""
    return ExtractConfig(frames=FRAMES, device="cpu", **tiny_encoders).resolved("folder")


@pytest.fixture(scope="module")
def dataset(tiny_videos):
    return load_dataset("folder", tiny_videos)


@pytest.fixture(scope="module")
def whole(dataset, config, tmp_path_factory):
    """A store made by one process."""
    path = tmp_path_factory.mktemp("stores") / "whole.zarr"
    extract(dataset, path, config, progress=False)
    return path


@pytest.fixture(scope="module")
def cluster():
    """Two workers, for the tests that leave them as they were."""
    with local_client(2) as client:
        yield client


def content(path):
    with open_store(path) as store:
        return store.content_digest, store.reasons, store.read("vlm", store.done_rows).tobytes()


@contextlib.contextmanager
def processes():
    """Starts `dask scheduler` and `dask worker` as their commands do, and ends them."""
    started = []

    def start(command, *options):
        arguments = [sys.executable, "-m", "dask", command, "--no-dashboard", *map(str, options)]
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        started.append(subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL))
        if "--scheduler-file" in options:
            file = options[options.index("--scheduler-file") + 1]
            while not file.exists():  # a worker that finds none gives up after a while
                assert started[-1].poll() is None
                time.sleep(0.05)
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()  # a worker goes with its nanny
        for process in started:
            process.wait()


def on(client, dataset, out, config, *, progress=False, retry_failed=False, wait=60.0):
    extraction = ClusterExtraction(client, dataset, out, config, progress, wait)
    return extraction.run(overwrite=False, retry_failed=retry_failed, repair=False)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_store_is_that_of_one_process(workers, dataset, config, whole, tmp_path):
    out = tmp_path / "store.zarr"
    with local_client(workers) as client:
        summary = on(client, dataset, out, config)
    assert content(out) == content(whole)
    assert set(summary.failures) == {"broken"}
    assert sum(one.videos for one in summary.workers.values()) == summary.videos == 8
    assert sum(one.failures for one in summary.workers.values()) == 1
    assert set(summary.workers) <= {str(index) for index in range(workers)}


def test_hdf5_views_and_padded_batches(cluster, dataset, config, tmp_path):
    """Batches of 24 frames hold one and a half of these videos."""
    config = dataclasses.replace(config, views=2, batch_frames=24)
    extract(dataset, tmp_path / "local.h5", config, progress=False)
    on(cluster, dataset, tmp_path / "cluster.h5", config)
    assert content(tmp_path / "local.h5") == content(tmp_path / "cluster.h5")


def test_damaged_videos_are_taken_where_that_is_asked_for(cluster, config, tmp_path):
    """By a cluster as by one process; into a store that did not take them before, too."""
    folder = tmp_path / "films"
    for k in range(4):
        label = folder / ("tea" if k % 2 else "coffee")
        label.mkdir(parents=True, exist_ok=True)
        film = Film("mpeg4", gop=12, size=(48, 48)).write(label / f"film{k}.avi")
        if k == 1:
            hurt_packets(film, film, [30])
    dataset = load_dataset("folder", folder)
    taking = dataclasses.replace(config, damaged="frames")
    extract(dataset, tmp_path / "local.zarr", taking, progress=False)
    out = tmp_path / "cluster.zarr"
    assert len(on(cluster, dataset, out, config).failures) == 1
    summary = on(cluster, dataset, out, taking, retry_failed=True)
    assert summary.videos == 1
    assert len(summary.replaced) == 1
    assert content(out) == content(tmp_path / "local.zarr")
    on(cluster, dataset, tmp_path / "new.zarr", taking)
    assert content(tmp_path / "new.zarr") == content(tmp_path / "local.zarr")


def test_again_does_nothing_and_failed_ones_are_tried_when_asked(
    cluster, dataset, config, whole, tmp_path
):
    out = tmp_path / "store.zarr"
    on(cluster, dataset, out, config)
    assert on(cluster, dataset, out, config).videos == 0
    assert list(on(cluster, dataset, out, config, retry_failed=True).failures) == ["broken"]
    assert content(out) == content(whole)


def test_other_settings_than_the_stores_are_refused(cluster, dataset, config, whole):
    before = content(whole)
    with pytest.raises(SpecMismatch, match=r"sampling\.frames: the store has 8, asked for 4"):
        on(cluster, dataset, whole, dataclasses.replace(config, frames=4))
    with pytest.raises(NoWorker, match=r"vlm\.sha256: the store has .*, the worker"):
        on(cluster, dataset, whole, dataclasses.replace(config, vlm_weights="random:1"))
    assert content(whole) == before


def test_weights_that_no_worker_has_are_named(cluster, dataset, config, tmp_path):
    missing = str(tmp_path / "no.pt")
    with pytest.raises(NoWorker, match=r"no\.pt"):
        on(cluster, dataset, tmp_path / "a.zarr", dataclasses.replace(config, vlm_weights=missing))
    assert not (tmp_path / "a.zarr").exists()


def test_videos_that_a_worker_does_not_see_are_not_failed(cluster, dataset, config, tmp_path):
    """As on a cluster whose nodes do not mount the videos: nothing is recorded of them."""
    elsewhere = dataclasses.replace(
        dataset,
        videos=tuple(
            dataclasses.replace(video, path=tmp_path / "elsewhere" / f"{video.id}.mp4")
            for video in dataset.videos
        ),
    )
    with pytest.raises(NoWorker, match=r"it does not see .*elsewhere"):
        on(cluster, elsewhere, tmp_path / "a.zarr", config)
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize("what", ["library", "weights"])
def test_a_worker_that_differs_gets_no_work(what, dataset, config, whole, tmp_path):
    """The store exists, so it is the store that says who differs."""
    out = tmp_path / "store.zarr"
    extract(load_dataset("folder", dataset.videos[0].path.parent), out, config, progress=False)
    with local_client(2, Other("0", what)) as client, work_waits_for(refused("0")):
        summary = on(client, dataset, out, config, retry_failed=True)
    field = "libraries.torch" if what == "library" else "vlm.sha256"
    assert summary.workers["0"].note.startswith(f"got no work: {field}: the store has")
    assert summary.workers["0"].videos == summary.workers["0"].failures == 0
    assert summary.workers["1"].failures == 1
    assert content(out) == content(whole)


def test_a_killed_worker_costs_nothing(dataset, config, whole, tmp_path, monkeypatch):
    """SIGKILL when it has got tasks; they are done by the other one, or by it when it is back."""
    from pcmci.extract.intake import Intake

    out = tmp_path / "store.zarr"
    with local_client(2) as client:
        take, submit, taken, killed = Intake.take, Dispatcher._submit, [], []

        def take_and_note(intake, row, vlm, video):
            take(intake, row, vlm, video)
            taken.append(row)

        def submit_and_kill(dispatcher, address, function, items):
            submit(dispatcher, address, function, items)
            if items and not killed:
                killed.append(dispatcher._processes[address].member.name)
                assert kill(client, address)

        monkeypatch.setattr(Intake, "take", take_and_note)
        monkeypatch.setattr(Dispatcher, "_submit", submit_and_kill)
        summary = on(client, dataset, out, config)
    assert summary.workers[killed[0]].note == "died once"
    assert sorted(taken) == sorted(set(taken))
    assert content(out) == content(whole)


def test_workers_that_are_told_to_go_are_no_deaths(dataset, config, whole, tmp_path, monkeypatch):
    """SIGTERM, as at the end of a job's time; another worker comes."""
    from pcmci.extract.intake import Intake

    out, file = tmp_path / "store.zarr", tmp_path / "scheduler.json"
    with processes() as start:
        start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", file)
        worker = ["worker", "--nthreads", "2", "--scheduler-file", file, "--name"]
        there = [start(*worker, "w0")]
        take, feed = Intake.take, Dispatcher._feed

        def feed_and_wait(dispatcher):
            """Two tasks of four, and the ninth when the one that had these has gone."""
            dispatcher._tasks_a_worker = 2
            if dispatcher.members["w0"].left or not (dispatcher._in_flight() or there[1:]):
                feed(dispatcher)

        monkeypatch.setattr(Dispatcher, "_feed", feed_and_wait)

        def take_and_go_on(intake, row, vlm, video):
            take(intake, row, vlm, video)
            if len(there) < 2:
                there.append(start(*worker, f"w{len(there)}"))
                there[-2].terminate()
                there[-2].wait()

        monkeypatch.setattr(Intake, "take", take_and_go_on)
        summary = extract(dataset, out, config, progress=False, scheduler=str(file))
    assert set(summary.failures) == {"broken"}
    assert summary.workers["w0"].note == "left"
    assert not any(one.deaths for one in summary.workers.values())
    assert content(out) == content(whole)


def test_a_client_that_was_cut_off_ends_the_run(cluster, dataset, config, whole, tmp_path):
    """It connects again by itself, and the scheduler has forgotten its tasks: nobody would come."""
    from pcmci.extract.intake import Intake

    out, take, cut = tmp_path / "store.zarr", Intake.take, []

    def take_and_cut(intake, row, vlm, video):
        take(intake, row, vlm, video)
        if not cut:
            cut.append(cluster.scheduler_comm)
            cluster.loop.add_callback(cut[0].comm.abort)
            # as when the writer waits for the disk
            while cluster.scheduler_comm in (None, *cut) or cluster.status != "running":
                time.sleep(0.01)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Intake, "take", take_and_cut)
        with pytest.raises(ClusterError, match="lost"):
            on(cluster, dataset, out, config)
    on(cluster, dataset, out, config)
    assert content(out) == content(whole)


def test_a_video_that_kills_its_workers_fails_and_no_other(dataset, config, whole, tmp_path):
    out = tmp_path / "store.zarr"
    with local_client(2, Deadly("film3")) as client:
        summary = on(client, dataset, out, config)
        assert "killed" in summary.failures.pop("film3")
        assert set(summary.failures) == {"broken"}
        assert "died" in "".join(one.note for one in summary.workers.values())
    with open_store(out) as store:
        row = store.ids.index("film3")
        assert store.status[row] == Status.FAILED
        assert store.reasons[row] == "3 workers were killed at it (out of memory?)"
        assert len(store.done_rows) == 7
    extract(dataset, out, config, retry_failed=True, progress=False)
    assert content(out) == content(whole)


def test_a_sick_worker_is_left_out(dataset, config, whole, tmp_path):
    out = tmp_path / "store.zarr"
    with local_client(2, Sick("1")) as client, work_waits_for(all_ready(2)):
        summary = on(client, dataset, out, config)
    assert summary.workers["1"].note == (
        "got no work: RuntimeError: CUDA error: an illegal memory access was encountered"
    )
    assert content(out) == content(whole)


def test_where_all_are_sick_the_run_ends_and_goes_on_later(dataset, config, whole, tmp_path):
    out = tmp_path / "store.zarr"
    with local_client(1, Sick("0")) as client, pytest.raises(NoWorker, match="illegal memory"):
        on(client, dataset, out, config)
    extract(dataset, out, config, progress=False)
    assert content(out) == content(whole)


@pytest.mark.parametrize("stored", [False, True])
def test_workers_that_are_killed_while_they_load_are_waited_for(
    stored, dataset, config, whole, tmp_path, capsys
):
    """More often than anything is counted to; before the store is made, and where there is one."""
    out, marks = tmp_path / "store.zarr", tmp_path / "killed"
    marks.mkdir()
    if stored:
        shutil.copytree(whole, out)
    with local_client(2, Stillborn(times=7, folder=marks)) as client:
        summary = on(client, dataset, out, config, progress=True, retry_failed=True)
    assert len(list(marks.iterdir())) == 7
    assert "ended before they had work (killed, or out of memory?)" in capsys.readouterr().err
    assert set(summary.failures) == {"broken"}
    assert content(out) == content(whole)


@pytest.mark.parametrize("how", [3, signal.SIGSEGV])
def test_workers_that_end_by_themselves_end_the_run(how, dataset, config, tmp_path):
    """With the reason, and long before the time that killed ones are waited for."""
    cause = "exit status 3" if how == 3 else "SIGSEGV"
    with (
        local_client(2, Stillborn(how=how)) as client,
        pytest.raises(ClusterError, match=f"ended by itself before it had work, with {cause}"),
    ):
        on(client, dataset, tmp_path / "a.zarr", config)
    assert not (tmp_path / "a.zarr").exists()


def test_a_worker_whose_import_fails_gets_no_work(dataset, config, whole, tmp_path):
    """Where all are so, that is the error, and none of them ends of it."""
    out, lacking = tmp_path / "store.zarr", "pcmci.extract.station"
    with local_client(2, Lacks(lacking, "1")) as client, work_waits_for(refused("1")):
        summary = on(client, dataset, out, config)
    assert summary.workers["1"].note.startswith("got no work: ModuleNotFoundError: import of pcmci")
    assert content(out) == content(whole)
    with (
        local_client(2, Lacks(lacking)) as client,
        pytest.raises(NoWorker, match=r"ModuleNotFoundError: import of pcmci\.extract\.station"),
    ):
        on(client, dataset, tmp_path / "none.zarr", config)


def test_where_workers_are_killed_all_the_time_the_wait_has_an_end(dataset, config, tmp_path):
    with (
        local_client(1, Stillborn()) as client,
        pytest.raises(ClusterError, match=r"for 0 s: .*out of memory.*--wait-workers MINUTES"),
    ):
        on(client, dataset, tmp_path / "a.zarr", config, wait=0)
    assert not (tmp_path / "a.zarr").exists()


def test_where_nobody_comes_the_wait_has_an_end(dataset, config, tmp_path, capsys):
    out = tmp_path / "a.zarr"
    with local_client(1) as client:
        client.cluster.scale(0)
        while client.scheduler_info(n_workers=-1)["workers"]:
            time.sleep(0.05)
        with pytest.raises(ClusterError, match="used for 3 s: no worker is there; the same"):
            on(client, dataset, out, config, progress=True, wait=0.05)
    assert "no worker is there: waiting for one, 3 s at most" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, 3])
def test_a_worker_that_dies_of_the_encoders_stops_no_other(how, dataset, config, whole, tmp_path):
    out = tmp_path / "store.zarr"
    with local_client(2, Stillborn("1", how)) as client:
        summary = on(client, dataset, out, config)
    assert summary.workers["0"].videos == 8
    assert content(out) == content(whole)


def test_workers_come_and_go(dataset, config, whole, tmp_path, monkeypatch):
    """None is there at first; then one, then three, then one."""
    from pcmci.extract.intake import Intake

    out = tmp_path / "store.zarr"
    with local_client(1, Slow(0.2)) as client:
        client.cluster.new_spec = worker_specs(1, [])[0]
        client.cluster.scale(0)
        while client.scheduler_info(n_workers=-1)["workers"]:
            time.sleep(0.05)

        def say(line):
            if line.startswith("no worker is there"):
                client.cluster.scale(1)

        monkeypatch.setattr("pcmci.extract.distributed.sayer", lambda progress: say)
        take, taken = Intake.take, []

        def take_and_scale(intake, row, vlm, video):
            take(intake, row, vlm, video)
            taken.append(row)
            if len(taken) in (1, 4):
                client.cluster.scale(3 if len(taken) == 1 else 1)

        monkeypatch.setattr(Intake, "take", take_and_scale)
        summary = on(client, dataset, out, config)
    assert set(summary.failures) == {"broken"}
    assert sorted(taken) == sorted(set(taken))
    assert content(out) == content(whole)


STILL_AT_IT = """
import os, time

def dask_setup(worker):
    from pcmci.extract.station import Station

    encode = Station.encode

    def waiting(station, token, videos):
        while any(os.path.basename(path) == {film!r} for _, path in videos):
            if os.path.exists({until!r}):
                break
            time.sleep(0.01)
        return encode(station, token, videos)

    Station.encode = waiting
"""
"""A worker that is not through with the task of one film until a file is there; it has a thread for
the others."""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lost_scheduler_ends_the_run_and_the_next_goes_on(
    number, dataset, config, whole, tmp_path, monkeypatch, pcmci
):
    """A real scheduler and a real worker, as their commands start them; the scheduler is killed."""
    from pcmci.extract.intake import Intake

    out, file, lost = (tmp_path / name for name in ("store.zarr", "scheduler.json", "lost"))
    waits = tmp_path / "waits.py"  # else all may have been sent before the second is taken
    film = [video.path for video in dataset.videos if video.path][-1]
    waits.write_text(STILL_AT_IT.format(film=film.name, until=str(lost)))
    with processes() as start:
        there = "--scheduler-file", file
        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0", *there)
        start("worker", "--nthreads", "2", "--preload", waits, *there)
        take, taken = Intake.take, []

        def take_and_kill(intake, row, vlm, video):
            take(intake, row, vlm, video)
            taken.append(row)
            if len(taken) == 2:
                scheduler.send_signal(number)

        monkeypatch.setattr(Intake, "take", take_and_kill)
        with pytest.raises(ClusterError, match="the same command goes on from here"):
            extract(dataset, out, config, progress=False, scheduler=str(file))
        lost.touch()
    monkeypatch.undo()
    with open_store(out) as store:
        assert set(taken) <= set(store.done_rows.tolist())
    extract(dataset, out, config, progress=False)
    assert content(out) == content(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly(number, dataset, config, whole, tiny_videos, tmp_path):
    """Of the whole process group, as a terminal's and a job's are."""
    out = tmp_path / "store.zarr"
    settings = ["--frames", FRAMES, "--vlm", config.vlm, "--vlm-weights", config.vlm_weights]
    settings += ["--video-encoder", config.video_encoder, "--video-weights", config.video_weights]
    command = ["extract", "--dataset", "folder", "--videos", tiny_videos, "--out", out]
    child = Child(waits_for_its_signal, *command, *settings, "--workers", 1)
    assert child.out.readline() == "taken\n"
    child.send_signal(number, to_all=True)
    code, said = child.wait()
    assert code == 128 + number, said
    assert "the same command goes on from here" in said
    assert "Traceback" not in said
    with open_store(out) as store:
        assert len(store.done_rows) >= 1
    extract(dataset, out, config, progress=False)
    assert content(out) == content(whole)


def waits_for_its_signal(*arguments):
    """In a child: `pcmci`, which takes a video and goes on when it was told to stop."""
    from pcmci.extract.intake import Intake

    take = Intake.take

    def take_and_wait(intake, row, vlm, video):
        take(intake, row, vlm, video)
        print("taken", flush=True)
        while not intake.stop.number:
            time.sleep(0.01)

    Intake.take = take_and_wait
    run_command(*arguments)


def test_the_command_says_what_each_worker_did(pcmci, config, tiny_videos, tmp_path):
    """The whole way, with processes that start as a user's do."""
    command = ["extract", "--dataset", "folder", "--videos", tiny_videos]
    command += ["--frames", FRAMES, "--vlm", config.vlm, "--vlm-weights", config.vlm_weights]
    command += ["--video-encoder", config.video_encoder, "--video-weights", config.video_weights]
    answer = pcmci(*command, "--out", tmp_path / "a.zarr", "--workers", 1)
    assert answer.code == 0, answer.err
    assert "worker 0: 8 videos, 1 failures, waited" in answer.out
    assert "dashboard: " in answer.err
    assert "1 workers | cpu fp32 | vlm" in answer.err
    forkserver()
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        answer = pcmci(*command, "--out", tmp_path / "a.zarr", "--workers", 1, "--json")
    assert json.loads(answer.out)["counts"] == {"pending": 0, "done": 8, "failed": 1, "missing": 1}


def test_from_a_bucket_to_a_bucket(s3, config, whole, tiny_videos):
    """Workers download; the client alone writes."""
    upload(tiny_videos, s3, "films")
    films, out = load_dataset("folder", place(f"s3://{s3}/films")), place(f"s3://{s3}/store.zarr")
    access = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    with local_client(2, environment=access) as client:
        assert on(client, films, out, config).videos == 8
    assert content(out)[0] == content(whole)[0]
    assert extract(films, out, config, progress=False).videos == 0


def test_two_extractions_share_workers(cluster, dataset, config, whole, tmp_path):
    """With other settings, at the same time; neither takes the other's encoders away."""
    other = dataclasses.replace(config, vlm_weights="random:7")
    alone, beside = tmp_path / "alone.zarr", tmp_path / "beside.zarr"
    extract(dataset, alone, other, progress=False)
    with ThreadPoolExecutor(1) as thread:
        second = thread.submit(on, cluster, dataset, beside, other)
        on(cluster, dataset, tmp_path / "first.zarr", config)
        second.result()
    assert content(tmp_path / "first.zarr") == content(whole)
    assert content(beside) == content(alone)


def test_each_local_worker_sees_one_gpu_of_those_it_may_use(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    specs = worker_specs(3, visible_gpus())
    seen = [spec["options"]["env"]["CUDA_VISIBLE_DEVICES"] for spec in specs.values()]
    assert seen == ["4", "6", "4"]
    assert "CUDA_VISIBLE_DEVICES" not in worker_specs(1, [])[0]["options"]["env"]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--workers", 0], "--workers 0 must be at least 1"),
        (["--workers", 2, "--scheduler", "tcp://h:1"], "name one of the two"),
        (["--scheduler", "nowhere.json"], "neither an address, as tcp://host:8786, nor a"),
    ],
)
def test_what_cannot_be_meant_is_refused(flags, complaint, pcmci, tiny_videos, tmp_path):
    out = tmp_path / "a.zarr"
    answer = pcmci(
        "extract", "--dataset", "folder", "--videos", tiny_videos, "--out", out, *flags
    )  # fmt: skip
    assert answer.code == 2
    assert complaint in answer.err.splitlines()[-1]
    assert not out.exists()


def test_a_scheduler_that_does_not_answer(pcmci, tiny_videos, tmp_path, monkeypatch):
    monkeypatch.setattr("pcmci.cluster.connect.CONNECT_SECONDS", 1)
    answer = pcmci(
        "extract", "--dataset", "folder", "--videos", tiny_videos, "--out", tmp_path / "a.zarr",
        "--scheduler", "tcp://127.0.0.1:9",
    )  # fmt: skip
    assert answer.code == 1
    assert answer.err.splitlines()[-1].startswith("pcmci: no scheduler answers at tcp://127.0.0.1")
