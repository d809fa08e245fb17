"""Both phases on the real annotations of COIN and Breakfast."""

import shutil

import numpy as np
import pytest
from made_up import made_up_store

from pcmci.cache.schema import Status
from pcmci.cache.store import open_store
from pcmci.extract.datasets import load_dataset
from pcmci.extract.table import video_table
from pcmci.heads.training.run import train_heads

SHORT = {"epochs": 1, "feedforward": 16, "batch_size": 64, "progress": False}


def test_a_few_coin_videos_are_done_and_all_others_missing(
    pcmci, shared_videos, coin_json, tiny_encoders, tmp_path
):
    """The clips under COIN's ids: every one of the 11,827 ends with a status."""
    clips = ("nasa_13013.mp4", "arm_wrestling.mp4", "h265_video.mp4", "corrupted.mp4")
    ids = ("4MiubN1oQkg", "cam-KNnddec", "93BfbHOEKSM", "vLuJs2Twi8c")
    videos = tmp_path / "videos"
    videos.mkdir()
    for clip, video in zip(clips, ids, strict=True):
        shutil.copy(shared_videos / clip, videos / f"{video}.mp4")
    out = tmp_path / "coin.zarr"
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in tiny_encoders.items()]
    answer = pcmci(
        "extract", "--dataset", "coin", "--videos", videos, "--annotations", coin_json,
        "--out", out, "--json", *flags,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert answer.json["counts"] == {"pending": 0, "done": 3, "failed": 1, "missing": 11823}
    assert list(answer.json["failures"]) == [ids[3]]
    with open_store(out) as store:
        assert {store.ids[row] for row in store.done_rows} == set(ids[:3])
        assert (len(store.spec.activity), len(store.spec.steps)) == (180, 778)
    listed = pcmci("store", "failures", out, "--json").json["failures"]
    assert len(listed) == 11824


def made_up(dataset, path, **options):
    table = video_table(dataset)
    return made_up_store(path, dataset.name, dataset.activity, dataset.steps, table, **options)


def one_video(folder, place):
    """A parser wants at least one video to be on disk."""
    path = folder / place
    path.parent.mkdir(parents=True)
    path.touch()
    return folder


@pytest.fixture(scope="module")
def coin_store(coin_json, tmp_path_factory):
    """11,827 videos, 16 frames of 512 and 768 numbers; most of them failed, so that two cores can
    train on the rest while somebody waits."""
    folder = tmp_path_factory.mktemp("coin")
    videos = one_video(folder / "videos", "4MiubN1oQkg.mp4")
    dataset = load_dataset("coin", videos, coin_json)
    rows = {split: [] for split in ("train", "test")}
    for row, video in enumerate(dataset.videos):
        rows[video.split].append(row)
    failed = {*rows["train"], *rows["test"]} - {*rows["train"][::180], *rows["test"][::56]}
    yield made_up(dataset, folder / "coin.zarr", failed=tuple(failed))
    shutil.rmtree(folder)  # 500 MB


@pytest.fixture(scope="module")
def breakfast_store(breakfast_annotations, tmp_path_factory):
    """1,460 videos of a quarter of the frames."""
    folder = tmp_path_factory.mktemp("breakfast")
    videos = one_video(folder / "videos", "BreakfastII_15fps_qvga_sync/P16/cam01/P16_cereals.avi")
    dataset = load_dataset("breakfast", videos, breakfast_annotations)
    return made_up(dataset, folder / "breakfast.h5", frames=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "order"), [("activity", ("ich", "ici", "ivc")), ("steps", ("ich",))]
)
def test_heads_train_on_the_whole_of_coin(coin_store, tmp_path, labels, order):
    with open_store(coin_store) as store:
        assert store.counts[Status.DONE] == 51 + 50
        options = {**SHORT, "batch_size": 32, "memory": 2**21}
        run = train_heads(store, order, labels=(labels,), out=tmp_path, **options)
    test = run.metrics["test"]
    assert run.heads[labels]["features"] == "streamed"
    assert test["coverage"] == 50 / 2797
    assert run.heads[labels]["transport marginal error"] < 1e-5
    if labels == "activity":
        assert test["Acc videos"] == 2797
        assert 0 <= test["Acc correct"] <= 100
    else:
        assert test["mAP classes"] == 778
        assert 0 < test["mAP"] < 1
        assert 0 <= test["ODD@0.6"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["activity", "steps"])
def test_heads_train_on_breakfast_with_all_three_stages(breakfast_store, tmp_path, labels):
    with open_store(breakfast_store) as store:
        run = train_heads(store, ("ich", "ici", "ivc"), labels=(labels,), out=tmp_path, **SHORT)
        occurs = store.steps[store.rows("test")].astype(float)
    test = run.metrics["test"]
    assert test["videos"] == 355
    if labels == "activity":
        assert test["Acc"] > 0.3  # chance: a tenth
    else:
        assert test["mAP classes"] == (occurs.sum(0) > 0).sum() == 43
        assert test["mAP/48"] == pytest.approx(test["mAP"] * 43 / 48)
        without = (test["mAP"] * 43 - 1) / 42  # SIL is in every video
        assert test["mAP w/o SIL"] == pytest.approx(without)
        with np.errstate(invalid="ignore"):
            q = occurs.T @ occurs / occurs.sum(0)
        above = (q > 0.6).sum() - 43  # the diagonal is 1 where it is defined
        assert test["ODD@0.6 truth"] == pytest.approx(above / (48 * 47))
