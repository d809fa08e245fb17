"""A run: whole or not there, the same bits for the same seed, scores that say what they cover."""

import json
import os
import shutil
import signal
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import small_store
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pcmci.cache.store import open_store
from pcmci.errors import PcmciError, StoreError, UsageError
from pcmci.heads.config import ORDERS
from pcmci.heads.scoring.scores import score
from pcmci.heads.training import learning
from pcmci.heads.training.features import StreamedFeatures, open_features
from pcmci.heads.training.fit import predict_logits
from pcmci.heads.training.run import load_run, train_heads
from pcmci.stopping import StoppedError

QUICK = {"epochs": 3, "feedforward": 32, "relations": 2, "decoder_heads": 2, "progress": False}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = small_store(tmp_path_factory.mktemp("store") / "small.zarr", failed=(8, 9, 12))
    with open_store(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    """A run long enough to learn something."""
    out = tmp_path_factory.mktemp("runs")
    return train_heads(store, ("ich", "ici", "ivc"), out=out, **(QUICK | {"epochs": 40}))


def test_it_learns_what_the_features_tell(run):
    assert run.metrics["test"]["Acc"] > 0.6  # chance: a third
    assert run.heads["activity"]["loss"][-1] < 0.5 * run.heads["activity"]["loss"][0]


def test_a_run_folder_holds_everything(run):
    assert {path.name for path in run.path.iterdir()} == {
        "config.json",
        "coprediction.npz",
        "metrics.json",
        "model.safetensors",
        "predictions.npz",
        "tensorboard",
    }
    board = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("activity/loss")] == list(range(1, 41))


def test_reading_it_back_gives_the_same_run(run, store):
    again = load_run(run.path)
    assert again.metrics == run.metrics
    assert again.spec == store.spec
    assert json.loads(json.dumps(score(run.predictions))) == run.metrics


def test_lost_videos_are_counted_and_wrong(run, store):
    scores = run.metrics["test"]
    test = np.array(store.splits) == "test"
    assert scores["videos"] == test.sum()
    assert scores["with features"] == test.sum() - 2  # v12 is a training video
    assert scores["coverage"] == pytest.approx(1 - 2 / test.sum())
    assert scores["Acc videos"] == test.sum()
    predictions = run.predictions
    lost = ~predictions.present
    assert set(predictions.ids[lost]) == {"v8", "v9", "v12"} & set(np.array(store.ids)[test])
    assert np.isneginf(predictions.labels["activity"].logits[lost]).all()


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: ",".join(order) or "none")
def test_every_order_runs_all_its_way(store, tmp_path, order):
    run = train_heads(store, order, out=tmp_path, **(QUICK | {"epochs": 1}))
    assert 0 <= run.metrics["test"]["mAP"] <= 1
    assert 0 <= run.metrics["test"]["ODD@0.6"] <= 1


@pytest.mark.parametrize("order", [(), ("ich", "ici", "ivc"), ("ici", "ich")], ids=str)
def test_the_same_seed_gives_the_same_bits(store, tmp_path, order):
    first, second = (
        train_heads(store, order, out=tmp_path / name, seed=3, **QUICK) for name in "ab"
    )
    for file in ("model.safetensors", "predictions.npz"):
        assert (first.path / file).read_bytes() == (second.path / file).read_bytes(), file
    other = train_heads(store, order, out=tmp_path / "a", seed=4, **QUICK)
    assert other.path != first.path
    assert (other.path / "model.safetensors").read_bytes() != (
        first.path / "model.safetensors"
    ).read_bytes()


def test_a_run_that_is_there_is_not_trained_again(store, tmp_path, monkeypatch):
    first = train_heads(store, (), out=tmp_path, **QUICK)
    monkeypatch.setattr(learning, "fit_together", lambda *a, **k: pytest.fail("trained again"))
    again = train_heads(store, (), out=tmp_path, **QUICK)
    assert again.reused
    assert again.path == first.path
    assert again.metrics == first.metrics


def test_a_run_that_breaks_off_leaves_nothing(store, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "save_file", broken)
    with pytest.raises(KeyboardInterrupt):
        train_heads(store, (), out=tmp_path, **QUICK)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_and_leaves_nothing(store, tmp_path, monkeypatch, number):
    fit = learning.fit_together

    def signalled(*arguments, **options):
        os.kill(os.getpid(), number)
        return fit(*arguments, **options)

    monkeypatch.setattr(learning, "fit_together", signalled)
    handler = signal.getsignal(number)
    with pytest.raises(StoppedError, match="nothing of this run is kept") as stopped:
        train_heads(store, (), out=tmp_path, **QUICK)
    assert stopped.value.exit_code == 128 + number
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(number) is handler


def test_transport_is_solved_once_a_store(tmp_path, monkeypatch):
    path = small_store(tmp_path / "small.h5")
    with open_store(path) as store:
        options = {"labels": ("activity",), **QUICK}
        fresh = train_heads(store, ("ich",), out=tmp_path / "runs", seed=0, **options)
        monkeypatch.setattr(
            "pcmci.heads.training.frozen._solve", lambda *a: pytest.fail("solved again")
        )
        train_heads(store, ("ivc", "ich"), out=tmp_path / "runs", seed=1, **options)
        monkeypatch.undo()
        # A damaged plan is not believed: it is made again, and the run is the same.
        plan = next((tmp_path / "small.h5.plans").glob("*.npy"))
        damaged = bytearray(plan.read_bytes())
        damaged[-3] ^= 1
        plan.write_bytes(damaged)
        again = train_heads(store, ("ich",), out=tmp_path / "other", seed=0, **options)
        assert (again.path / "model.safetensors").read_bytes() == (
            fresh.path / "model.safetensors"
        ).read_bytes()


def test_transport_settings_have_plans_of_their_own(store, tmp_path):
    runs = [
        train_heads(store, ("ich",), out=tmp_path, transport_lambda=value, **QUICK)
        for value in (1.0, 10.0)
    ]
    one, ten = (run.predictions.labels["activity"].logits for run in runs)
    assert not np.array_equal(one, ten)
    assert all(run.heads["activity"]["transport marginal error"] < 1e-4 for run in runs)


def test_streaming_sees_every_video_and_learns_the_same_kind_of_thing(store, tmp_path):
    run = train_heads(store, ("ich",), out=tmp_path, memory=20_000, **(QUICK | {"epochs": 40}))
    assert run.heads["activity"]["features"] == "streamed"
    assert run.metrics["test"]["Acc"] > 0.6


def test_streamed_and_resident_features_are_scored_alike(store, run):
    """The same weights, the same logits, whichever way the features came."""
    model = run.models()["steps"]
    rows = store.done_rows
    logits = [
        predict_logits(
            model, open_features(store, rows, None, torch.device("cpu"), memory), rows, 7
        )
        for memory in (None, 20_000)
    ]
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-4, atol=1e-5)


# Streamed features, from arrays whose numbers say which video and which view they are of.


class Numbered:
    """An array of a store: [n, views, 1, 1]. live: bytes that it gave and that are still there."""

    def __init__(self, views: int) -> None:
        self.views = views
        self.row_bytes = 2 * views
        self.live = self.most = 0

    def read(self, rows: np.ndarray) -> np.ndarray:
        numbers = rows[:, None] * self.views + np.arange(self.views)
        array = numbers.astype(np.float16)[..., None, None]
        self.live += array.nbytes
        self.most = max(self.most, self.live)
        weakref.finalize(array, self._gone, array.nbytes)
        return array

    def _gone(self, size: int) -> None:
        self.live -= size


def stream(views: int, chunk_rows: int, chunks_a_buffer: int) -> tuple[StreamedFeatures, Numbered]:
    """Both encoders' features have the same numbers; one of the two arrays is returned."""
    arrays = {"vlm": Numbered(views), "video": Numbered(views)}
    memory = 4 * chunks_a_buffer * chunk_rows * 2 * arrays["vlm"].row_bytes
    return StreamedFeatures(arrays, chunk_rows, torch.device("cpu"), memory), arrays["vlm"]


@settings(deadline=None)
@given(
    kept=st.lists(st.booleans(), min_size=1, max_size=60).filter(any),
    views=st.integers(1, 3),
    chunk_rows=st.integers(1, 9),
    chunks_a_buffer=st.integers(1, 4),
    batch_size=st.integers(1, 20),
    seed=st.none() | st.integers(0, 5),
)
def test_an_epoch_of_a_stream_is_every_video_once(
    kept, views, chunk_rows, chunks_a_buffer, batch_size, seed
):
    rows = np.flatnonzero(kept)
    features, array = stream(views, chunk_rows, chunks_a_buffer)

    def epoch():
        rng = None if seed is None else np.random.default_rng(seed)
        return list(features.batches(rows, batch_size, rng))

    batches = epoch()
    whole, rest = divmod(len(rows), batch_size)
    assert [len(batch.rows) for batch in batches] == [batch_size] * whole + [rest] * (rest > 0)
    given_rows = np.concatenate([batch.rows for batch in batches])
    assert sorted(given_rows) == rows.tolist()
    for batch in batches:  # each with its own numbers, and both encoders of the same view
        number = batch.vlm[:, 0, 0].numpy().astype(int)
        np.testing.assert_array_equal(number // views, batch.rows)
        assert torch.equal(batch.vlm, batch.video)
        if seed is None:
            assert not (number % views).any()
    if seed is None:
        np.testing.assert_array_equal(given_rows, rows)
    for batch, again in zip(batches, epoch(), strict=True):
        np.testing.assert_array_equal(batch.rows, again.rows)
        assert torch.equal(batch.vlm, again.vlm)
    # two buffers at a time at most
    assert array.most <= 2 * chunks_a_buffer * chunk_rows * array.row_bytes


def test_a_stream_shuffles_chunks_and_mixes_the_videos_of_a_buffer():
    """12 chunks of 8 videos, 4 a buffer: three buffers of 32."""
    features, _ = stream(1, 8, 4)
    orders = []
    for seed in range(3):
        batches = list(features.batches(np.arange(96), 32, np.random.default_rng(seed)))
        for batch in batches:  # here each is a buffer
            chunks, counts = np.unique(batch.rows // 8, return_counts=True)
            assert counts.tolist() == [8] * 4
            assert not np.array_equal(chunks, np.arange(chunks[0], chunks[0] + 4))
            quarters = batch.rows.reshape(4, 8) // 8
            assert all(len(set(quarter)) > 1 for quarter in quarters.tolist())
        orders.append(np.concatenate([batch.rows for batch in batches]))
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[1], orders[2])


def test_a_stream_gives_every_view_its_turn():
    features, _ = stream(3, 8, 2)
    rng = np.random.default_rng(0)
    seen = np.zeros((40, 3), bool)
    for _ in range(20):
        for batch in features.batches(np.arange(40), 7, rng):
            number = batch.vlm[:, 0, 0].numpy().astype(int)
            seen[number // 3, number % 3] = True
    assert seen.all()


def test_validation_chooses_and_whole_persons_are_set_aside(store, tmp_path):
    run = train_heads(
        store, (), out=tmp_path, validation=0.3, eval_every=1, **(QUICK | {"epochs": 5})
    )
    facts = run.heads["activity"]
    seen = {int(epoch): look["val"] for epoch, look in facts["looks"].items()}
    assert facts["chosen by"] == "validation"
    assert seen[facts["chosen epoch"]] == max(seen.values())
    assert run.metrics["val"]["Acc"] == pytest.approx(max(seen.values()))
    chosen = set(run.predictions.ids[run.predictions.splits == "val"])
    groups = {
        group for video, group in zip(store.ids, store.groups, strict=True) if video in chosen
    }
    assert chosen == {
        video for video, group in zip(store.ids, store.groups, strict=True) if group in groups
    }


def test_best_on_test_stands_beside_and_never_is_the_headline(run):
    facts = run.heads["activity"]
    looks = {int(epoch): look["test"] for epoch, look in facts["looks"].items()}
    assert facts["chosen by"] == "last epoch"
    assert run.metrics["test"]["Acc"] == pytest.approx(looks[40])
    assert facts["best-on-test"]["value"] == max(looks.values())


def test_prediction_of_stored_features_is_the_saved_one(run, store):
    predictions = run.predictions
    rows = np.array([store.ids.index(video) for video in predictions.ids[predictions.present]])
    probabilities = run.predict(store.read("vlm", rows, view=0), store.read("video", rows, view=0))
    saved = predictions.labels["steps"].logits[predictions.present]
    np.testing.assert_allclose(probabilities["steps"], 1 / (1 + np.exp(-saved)), atol=1e-5)
    np.testing.assert_allclose(probabilities["activity"].sum(1), 1, atol=1e-5)


def test_coprediction_is_of_the_test_split(run, store):
    with np.load(run.path / "coprediction.npz", allow_pickle=False) as file:
        q = file["steps/q_truth"]
        assert tuple(file["steps/names"]) == store.spec.steps.names
    rows = store.rows("test", done=True)
    truth = store.steps[rows].astype(float)
    for i in range(5):
        for j in range(5):
            expected = (truth[:, i] * truth[:, j]).sum() / truth[:, j].sum()
            assert q[i, j] == pytest.approx(expected)


def test_trained_parameters_are_counted_against_the_whole(run):
    facts = run.heads["steps"]
    counted = sum(p.numel() for p in run.models()["steps"].parameters())
    assert facts["trained parameters"] == counted
    assert facts["trained share"] == pytest.approx(counted / (counted + 1500))


def test_a_setting_that_does_not_exist_is_named(store, tmp_path):
    with pytest.raises(UsageError, match=r"'learning_rate'"):
        train_heads(store, (), out=tmp_path, learning_rate=1)
    with pytest.raises(UsageError, match=r"'acts'.*activity, steps"):
        train_heads(store, (), out=tmp_path, labels=("acts",))


def test_damaged_features_stop_the_training(tmp_path):
    path = small_store(tmp_path / "small.zarr")
    chunk = next((path / "vlm").glob("c.0*"))
    content = bytearray(chunk.read_bytes())
    content[1000] ^= 1
    chunk.write_bytes(content)
    with open_store(path) as store, pytest.raises(StoreError, match="videos hurt: v"):
        train_heads(store, (), out=tmp_path / "runs", **QUICK)


def test_damaged_weights_are_an_error(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    (copy / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(PcmciError, match="weights cannot be read"):
        load_run(copy).models()
    (copy / "metrics.json").write_text("{")
    with pytest.raises(PcmciError, match="the run cannot be read"):
        load_run(copy)
