"""What a store must do, whatever its file format: `test_store.py` runs all of it for each.

Most tests cut the store into chunks of four videos, so that a dozen of them have every case.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcmci.cache.formats.choose import open_chunks
from pcmci.cache.formats.layout import Chunks
from pcmci.cache.nearby import beside
from pcmci.cache.schema import (
    FEATURES,
    FORMAT_VERSION,
    EncoderSpec,
    LabelSet,
    Preprocessing,
    Sampling,
    Status,
    StoreSpec,
    VideoTable,
)
from pcmci.cache.store import Store, StoreWriter, create_store, open_store
from pcmci.cache.upkeep.convert import convert
from pcmci.cache.upkeep.verify import verify
from pcmci.cache.writing import journal
from pcmci.errors import SpecMismatch, StoreError, UsageError, VideoError

CHUNK = 4


def make_table(n: int, steps: int = 3) -> VideoTable:
    """n videos of three splits."""
    rng = np.random.default_rng(n)
    return VideoTable(
        ids=tuple(f"vidéo-{i}" for i in range(n)),
        splits=tuple(("train", "train", "test", "val")[i % 4] for i in range(n)),
        sessions=tuple(f"session-{i // 2}" for i in range(n)),
        groups=tuple(f"person-{i // 3}" for i in range(n)),
        activity=rng.integers(-1, 2, n).astype(np.int32),
        steps=rng.integers(0, 2, (n, steps)).astype(np.uint8),
    )


def make_spec(
    table: VideoTable, views: int = 1, labels: Iterable[str] = ("activity", "steps")
) -> StoreSpec:
    """A spec that fits the table, with encoders of a few numbers."""
    pre = Preprocessing(8, 8, "bicubic", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    sets = {
        "activity": LabelSet(("tea", "toast"), ("tea", "toast"), "a video of {}"),
        "steps": LabelSet(("a", "b", "c"), ("a", "b", "c"), "somebody does {}", background=("a",)),
    }
    return StoreSpec(
        dataset="tiny",
        activity=sets["activity"] if "activity" in labels else None,
        steps=sets["steps"] if "steps" in labels else None,
        sampling=Sampling(frames=4, views=views),
        vlm=EncoderSpec("clip", "random:0", "ab" * 32, 4, 3, pre, 10),
        video=EncoderSpec("timesformer", "random:0", "cd" * 32, 2, 5, pre, 10),
        precision="float32",
        libraries={"torch": "2"},
        videos_sha256=table.digest(),
    )


def make_text(spec: StoreSpec) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = {name: (len(spec.labels(name)), spec.vlm.width) for name in spec.label_sets}
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def features(spec: StoreSpec, row: int) -> tuple[np.ndarray, np.ndarray]:
    """What the encoders would give for a row: always the same."""
    rng = np.random.default_rng(1000 + row)
    views = spec.sampling.views
    shapes = [(views, e.tokens, e.width) for e in (spec.vlm, spec.video)]
    return rng.standard_normal(shapes[0]), rng.standard_normal(shapes[1])


def put(writer: StoreWriter, rows: Iterable[int]) -> None:
    for row in rows:
        writer.put(row, *features(writer.spec, row))


def check_done(store: Store, rows: Iterable[int]) -> None:
    """Exactly these rows are done, with the right bits; all others are NaN."""
    rows = sorted(rows)
    assert store.done_rows.tolist() == rows
    for k, array in enumerate(FEATURES):
        found = store.read(array)
        others = np.setdiff1d(np.arange(len(store)), rows)
        assert np.isnan(found[others]).all()
        for row in rows:
            expected = features(store.spec, row)[k].astype(np.float16)
            assert found[row].tobytes() == expected.tobytes()


def contents(path: Path) -> dict[str, bytes]:
    """Every byte of a store, by file."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def flip(file: Path, offset: int, mask: int = 0x10) -> None:
    raw = bytearray(file.read_bytes())
    raw[offset] ^= mask
    file.write_bytes(raw)


Work = Callable[[Callable[[int], None]], None]
"""Calls its argument with the rows that were accepted."""


def in_child(work: Work) -> list[int]:
    """Run `work` in a process of its own, however that ends; returns what it said in the end."""
    receive, send = os.pipe()
    write = os.write
    child = os.fork()
    if not child:
        try:
            work(lambda row: write(send, row.to_bytes(4, "little")) and None)
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        raw = pipe.read()
    os.waitpid(child, 0)
    return np.frombuffer(raw, "<i4").tolist()


def dying(work: Work, moment: int | None = None) -> Work:
    """`work` in a process that ends, without a word, at its `moment`-th call of the system.

    Without a moment it lives, and says which calls write the second half of something that lies in
    the middle of a file, and at last how many calls there were.
    """

    def watched(accepted: Callable[[int], None]) -> None:
        pwrite, now, halves = os.pwrite, -1, []

        def torn(file: int, data: bytes, offset: int) -> int:
            half = len(data) // 2
            pwrite(file, data[:half], offset)
            halves.append(now + 1)
            return half + pwrite(file, data[half:], offset + half)

        def count(frame: object, event: str, function: object) -> None:
            nonlocal now
            module = getattr(function, "__module__", None)
            counts = module == "posix" or getattr(function, "__name__", "") in ("write", "close")
            if event == "c_call" and counts and function is not os.write:  # that is `accepted`
                now += 1
                if now == moment:
                    os._exit(9)

        os.pwrite = torn
        sys.setprofile(count)
        work(accepted)
        sys.setprofile(None)
        if moment is None:
            for call in [*halves, now]:
                accepted(call)

    return watched


class StoreContract(ABC):
    """Subclassed once a format."""

    suffix: str
    tears_chunks: bool
    """Whether a killed process can leave half a chunk, until the next opening mends it."""

    @abstractmethod
    def place(self, path: Path, array: str, chunk: int) -> tuple[Path, int]:
        """The file and the offset where a chunk of four videos begins."""

    @abstractmethod
    def lose(self, path: Path, array: str, chunk: int) -> None:
        """Make a chunk disappear."""

    @abstractmethod
    def reference(self, path: Path, array: str) -> np.ndarray:
        """The array as somebody else's program reads it."""

    @abstractmethod
    def spoil_structure(self, path: Path) -> None:
        """Cut the file's own description of itself short."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def no_waiting_for_the_disk(cls):
        """No test cuts the power; waiting would take most of the time."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda file: None)
            yield

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / f"features/tiny{self.suffix}"

    def create(
        self,
        path: Path,
        n: int = 10,
        views: int = 1,
        labels: Iterable[str] = ("activity", "steps"),
        chunk_rows: int = CHUNK,
    ) -> StoreSpec:
        table = make_table(n, steps=3 if "steps" in labels else 0)
        spec = make_spec(table, views, labels)
        create_store(path, spec, table, make_text(spec), chunk_rows=chunk_rows)
        return spec

    def full(self, path: Path, n: int = 10, **how: object) -> StoreSpec:
        spec = self.create(path, n, **how)
        with StoreWriter(path) as writer:
            put(writer, range(n))
        return spec

    # What goes in comes out

    @pytest.mark.parametrize(("n", "views"), [(1, 1), (63, 2), (64, 1), (130, 3)])
    def test_round_trip_in_chunks_of_64(self, path, n, views):
        spec = self.full(path, n, views=views, chunk_rows=64)
        table = make_table(n)
        with open_store(path) as store:
            check_done(store, range(n))
            assert len(store) == n
            assert store.chunk_rows == min(n, 64)
            assert (store.spec, store.fingerprint) == (spec, spec.fingerprint)
            assert (store.ids, store.splits) == (table.ids, table.splits)
            assert (store.sessions, store.groups) == (table.sessions, table.groups)
            assert (store.activity == table.activity).all()
            assert (store.steps == table.steps).all()
            assert store.counts == {s: n if s == Status.DONE else 0 for s in Status}
        assert verify(path) == []
        assert not list(path.parent.glob(f"{path.name}.*"))

    @pytest.mark.parametrize("labels", [["activity"], ["steps"], ["activity", "steps"], []])
    def test_label_sets_that_do_not_exist(self, path, labels):
        spec = self.create(path, labels=labels)
        with open_store(path) as store:
            assert store.spec.label_sets == tuple(labels)
            assert store.steps.shape == (10, 3 if "steps" in labels else 0)
            for name, text in make_text(spec).items():
                assert (store.text(name) == text).all()
            for name in {"activity", "steps"} - set(labels):
                with pytest.raises(StoreError, match=f"'tiny' has no {name} labels"):
                    store.text(name)

    @settings(
        max_examples=10,
        deadline=None,
        suppress_health_check=[HealthCheck.differing_executors],
    )
    @given(data=st.data())
    def test_any_order_any_subset_any_chunks(self, tmp_path_factory, data):
        n = data.draw(st.integers(1, 14))
        rows = data.draw(st.permutations(range(n)))
        what = data.draw(st.lists(st.sampled_from(list(Status)), min_size=n, max_size=n))
        sessions = data.draw(st.integers(1, 3))
        path = tmp_path_factory.mktemp("any") / f"store{self.suffix}"
        self.create(
            path, n, views=data.draw(st.integers(1, 2)), chunk_rows=data.draw(st.integers(1, 6))
        )
        for part in np.array_split(np.array(rows), sessions):
            with StoreWriter(path) as writer:
                for row in part.tolist():
                    if what[row] == Status.DONE:
                        put(writer, [row])
                    if what[row] == Status.FAILED:
                        writer.fail(row, f"reason {row}")
                    if what[row] == Status.MISSING:
                        writer.missing(row)
        with open_store(path) as store:
            assert store.status.tolist() == what
            check_done(store, [row for row in range(n) if what[row] == Status.DONE])
            for row in range(n):
                assert store.reasons[row] == (f"reason {row}" if what[row] == Status.FAILED else "")
        assert verify(path) == []

    def test_the_order_of_videos_leaves_no_trace(self, path, tmp_path, monkeypatch):
        def write(path, *parts):
            self.create(path)
            for part in parts:
                with StoreWriter(path, sync_seconds=0) as writer:
                    for row in part:
                        put(writer, [row]) if row % 5 else writer.fail(row, f"reason {row}")

        write(path, range(10))
        monkeypatch.setattr(journal, "COMPACT_BYTES", 300)  # rewritten again and again
        other = tmp_path / f"other{self.suffix}"
        order = np.random.default_rng(0).permutation(10).tolist()
        write(other, order[:3], order[3:4], order[4:])
        assert contents(other) == contents(path)

    def test_other_programs_read_it(self, path):
        self.full(path)
        with open_store(path) as store:
            for array in FEATURES:
                assert self.reference(path, array).tobytes() == store.read(array).tobytes()
            assert (self.reference(path, "status") == store.status).all()
            assert (self.reference(path, "activity") == store.activity).all()
            assert (self.reference(path, "steps") == store.steps).all()
            assert (self.reference(path, "text/steps") == store.text("steps")).all()
            assert (
                StoreSpec.from_json(self.reference(path, "spec").tobytes().decode()) == store.spec
            )

    @pytest.mark.parametrize(("n", "threaded"), [(10, 2**23), (41, 0)])
    def test_every_way_to_read_rows(self, path, n, threaded, monkeypatch):
        monkeypatch.setattr("pcmci.cache.store.THREADED_BYTES", threaded)
        self.create(path, n, views=3)
        with StoreWriter(path) as writer:
            put(writer, [r for r in range(n) if r not in (2, 9)])
        with open_store(path) as store:
            whole = store.read("vlm")
            assert whole.shape == (n, 3, 4, 3)
            assert whole.dtype == np.float16
            mask = np.arange(n) % 3 == 0
            ways = [slice(3, 9), slice(None, None, -2), [7, 0, 7, 2], mask, [-1], [], range(4, 8)]
            for rows in ways:
                expected = whole[list(rows) if isinstance(rows, range) else rows]
                np.testing.assert_array_equal(store.read("vlm", rows), expected)
                for view in range(3):
                    np.testing.assert_array_equal(
                        store.read("vlm", rows, view=view), expected[:, view]
                    )
            with pytest.raises(StoreError, match=r"view 3: .* has views 0 to 2"):
                store.read("vlm", view=3)
            with pytest.raises(StoreError, match="no features are called 'audio'"):
                store.read("audio")

    def test_rows_of_a_split(self, path):
        self.create(path)
        with StoreWriter(path) as writer:
            put(writer, [0, 1, 2])
        with open_store(path) as store:
            assert store.rows("test").tolist() == [2, 6]
            assert store.rows("test", done=True).tolist() == [2]
            with pytest.raises(StoreError, match="no split 'dev', but test, train, val"):
                store.rows("dev")

    def test_it_says_what_it_holds(self, path):
        self.create(path)
        with StoreWriter(path) as writer:
            put(writer, [0])
            writer.missing(2)
        with open_store(path) as store:
            said = store.describe()
        assert said["status"] == {"pending": 8, "done": 1, "failed": 0, "missing": 1}
        assert said["splits"]["test"] == "2, 0 done"
        assert said["vlm"]["features"] == "4 x 3"

    def test_the_digest_of_the_content_follows_the_content(self, path):
        digests = set()
        self.create(path)
        for row in range(5):
            with StoreWriter(path) as writer:
                put(writer, [row])
            with open_store(path) as store, Store(path) as again:
                assert store.content_digest == again.content_digest
                digests.add(store.content_digest)
        with StoreWriter(path) as writer:
            writer.reset([0])
            vlm, video = features(writer.spec, 0)
            writer.put(0, vlm + 1, video)
        with open_store(path) as store:
            digests.add(store.content_digest)
        assert len(digests) == 6

    # What is refused

    @pytest.mark.parametrize("k", [0, 1])
    @pytest.mark.parametrize(
        ("value", "reason"),
        [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (-7e4, "70000, more than")],
    )
    def test_numbers_that_float16_does_not_hold(self, path, k, value, reason):
        spec = self.create(path)
        bad = features(spec, 1)
        bad[k][0, 1, 2] = value
        with StoreWriter(path) as writer:
            with pytest.raises(VideoError, match=f"the {FEATURES[k]} encoder gave {reason}"):
                writer.put(1, *bad)
            assert writer.counts[Status.PENDING] == 10
            writer.fail(1, "so be it")
        with open_store(path) as store:
            assert store.reasons[1] == "so be it"

    def test_shapes_and_rows_that_do_not_fit(self, path):
        spec = self.create(path)
        vlm, video = features(spec, 0)
        with StoreWriter(path) as writer:
            with pytest.raises(StoreError, match=r"vidéo-0 have shape \[1, 3, 3\].*\[1, 4, 3\]"):
                writer.put(0, vlm[:, 1:], video)
            writer.put(0, vlm, video)
            writer.fail(1, "broken")
            for again in (lambda: writer.put(0, vlm, video), lambda: writer.fail(0, "x")):
                with pytest.raises(StoreError, match="vidéo-0 is done already"):
                    again()
            with pytest.raises(StoreError, match="vidéo-1 is failed already"):
                writer.missing(1)

    def test_parts_that_do_not_fit_together(self, path):
        table = make_table(3)
        spec = make_spec(table)
        text = make_text(spec)
        with pytest.raises(StoreError, match="another table"):
            create_store(path, spec, make_table(4), text)
        with pytest.raises(StoreError, match=r"text is of \['activity'\]"):
            create_store(path, spec, table, {"activity": text["activity"]})
        with pytest.raises(StoreError, match=r"text/steps is \[2, 3\]"):
            create_store(path, spec, table, {**text, "steps": text["steps"][1:]})
        bare = dataclasses.replace(spec, steps=LabelSet((), (), "{}"))
        with pytest.raises(StoreError, match="label set steps has no labels"):
            create_store(path, bare, table, {**text, "steps": text["steps"][:0]})
        empty = make_table(0)
        with pytest.raises(StoreError, match="at least one video"):
            create_store(path, make_spec(empty), empty, text)
        assert not path.parent.exists()

    def test_another_spec_is_named(self, path):
        spec = self.create(path)
        asked = dataclasses.replace(
            spec, vlm=dataclasses.replace(spec.vlm, name="resnet"), precision="bfloat16"
        )
        with open_store(path) as store:
            store.check_spec(spec)
            with pytest.raises(SpecMismatch, match=r"precision.*vlm\.name.*'clip'.*'resnet'"):
                store.check_spec(asked)
        with pytest.raises(SpecMismatch, match="precision"):
            create_store(path, asked, make_table(10), make_text(spec))
        with pytest.raises(StoreError, match="exists already"):
            create_store(path, spec, make_table(10), make_text(spec))

    def test_overwriting_begins_anew(self, path):
        spec = self.full(path)

        def leave_a_journal(accepted):
            with StoreWriter(path) as writer:
                writer.reset([0])
                os._exit(0)

        in_child(leave_a_journal)
        table = make_table(10)
        other = dataclasses.replace(spec, precision="bfloat16")
        create_store(path, other, table, make_text(spec), overwrite=True)
        with open_store(path) as store:
            assert store.spec == other
            check_done(store, [])
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    def test_a_store_that_cannot_be_made_leaves_nothing(self, path, monkeypatch):
        def refuse(self, *rest, **more):
            raise StoreError("the disk is full")

        monkeypatch.setattr(type(open_chunks_of(self, path)), "write", refuse)
        with pytest.raises(StoreError, match="full"):
            self.create(path)
        assert list(path.parent.iterdir()) == []

    def test_paths_that_are_no_store(self, path, tmp_path):
        with pytest.raises(UsageError, match=r"tiny\S+ does not exist"):
            open_store(path)
        with pytest.raises(UsageError, match=r"store\.npz: a store's name ends in \.zarr, \.h5"):
            open_store(tmp_path / "store.npz")
        path.parent.mkdir()
        path.mkdir()
        with pytest.raises(StoreError, match=r"is not a feature store|cannot be opened"):
            open_store(path)
        path.rmdir()
        path.write_text("<html>")
        with pytest.raises(StoreError, match=r"is not a feature store|cannot be opened"):
            open_store(path)

    # Failed, missing, again

    def test_failed_and_missing_and_tried_again(self, path):
        self.create(path)
        with StoreWriter(path) as writer:
            assert writer.pending.tolist() == list(range(10))
            writer.fail(1, "no key frame")
            writer.missing(2, "not on disk")
            put(writer, [0, 3, 4])
            assert writer.pending.tolist() == [5, 6, 7, 8, 9]
        with open_store(path) as store:
            assert store.reasons[:4] == ("", "no key frame", "not on disk", "")
            assert store.counts[Status.FAILED] == store.counts[Status.MISSING] == 1
        with StoreWriter(path) as writer:
            assert writer.rows(Status.FAILED).tolist() == [1]
            writer.reset(writer.rows(Status.FAILED))
            assert writer.rows(Status.PENDING).tolist() == [1, 5, 6, 7, 8, 9]
            put(writer, [1])
        with open_store(path) as store:
            assert store.reasons[1:3] == ("", "not on disk")
            check_done(store, [0, 1, 3, 4])
        with StoreWriter(path) as writer:
            writer.reset([0])
        with open_store(path) as store:
            check_done(store, [1, 3, 4])

    def test_chunks_without_features_cost_no_features(self, path):
        self.create(path)
        before = {array: self.reference(path, array).tobytes() for array in FEATURES}
        with StoreWriter(path) as writer:
            for row in range(10):
                writer.missing(row)
        assert {array: self.reference(path, array).tobytes() for array in FEATURES} == before
        assert verify(path) == []

    @pytest.mark.parametrize(
        ("reason", "kept"),
        [
            ("two\nlines \0 and  tabs\t", "two lines and tabs"),
            ("ü" * 150, "ü" * 100),
            ("x" + "ü" * 150, "x" + "ü" * 99),
            ("€" * 100, "€" * 66),
        ],
    )
    def test_reasons_are_cut_between_characters(self, path, reason, kept):
        self.create(path)
        with StoreWriter(path) as writer:
            writer.fail(0, reason)
        with open_store(path) as store:
            assert store.reasons[0] == kept

    # One writer

    def test_a_second_writer_is_refused(self, path):
        self.create(path)
        with StoreWriter(path) as writer:
            put(writer, [0])
            with pytest.raises(StoreError, match=f"is being written by process {os.getpid()} on"):
                StoreWriter(path)
            with pytest.raises(StoreError, match="is being written"):
                create_store(
                    path, writer.spec, writer.table, make_text(writer.spec), overwrite=True
                )
            with open_store(path) as store:  # readers see what is committed
                check_done(store, [])
            put(writer, [1])
        with open_store(path) as store:
            check_done(store, [0, 1])

    def test_a_dead_writer_holds_nobody_up(self, path):
        self.create(path)

        def die(accepted):
            writer = StoreWriter(path)
            put(writer, [5])
            os._exit(0)

        in_child(die)
        assert beside(path, ".lock").exists()
        with StoreWriter(path) as writer:
            assert writer.rows(Status.DONE).tolist() == [5]
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    def test_a_forked_child_does_not_keep_the_lock(self, path):
        """A killed extraction may leave a decoding process behind."""
        self.create(path)
        go_on, let_go = os.pipe()
        is_there, say_so = os.pipe()
        child = os.fork()
        if not child:
            os.close(let_go)
            held = StoreWriter(path)
            if not os.fork():
                os.write(say_so, b"!")
                os.read(go_on, 1)  # until the test closes its end
            os._exit(held is None)
        os.read(is_there, 1)
        os.waitpid(child, 0)
        StoreWriter(path).close()
        for end in (go_on, let_go, is_there, say_so):
            os.close(end)

    def test_a_folder_that_cannot_be_written_is_read(self, path, monkeypatch):
        self.create(path)

        def die(accepted):
            put(StoreWriter(path), [5])
            os._exit(0)

        in_child(die)

        def refuse(*arguments):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("fcntl.flock", refuse)  # root may write anywhere
        with open_store(path) as store:
            check_done(store, [])
        with pytest.raises(StoreError, match="cannot be locked: Permission denied"):
            StoreWriter(path)

    # Killed at any moment

    @pytest.mark.parametrize("compact", [journal.COMPACT_BYTES, 300])
    def test_killed_at_any_moment(self, path, tmp_path, monkeypatch, compact):
        monkeypatch.setattr(journal, "COMPACT_BYTES", compact)
        order = [9, 4, 0, 2, 7, 1, 5, 6, 3, 8]

        def begin(path):
            """Partial chunks, a failed video that will be tried again, one that is missing."""
            self.create(path)
            with StoreWriter(path) as writer:
                put(writer, order[:3])
                writer.fail(2, "try again")
                writer.missing(7, "gone")

        def go_on(path, accepted):
            with StoreWriter(path, sync_seconds=0) as writer:
                writer.reset(writer.rows(Status.FAILED))
                for row in order:
                    if row == 1 and row in writer.pending:
                        writer.fail(row, "no film")
                    elif row in writer.pending:
                        put(writer, [row])
                        accepted(row)

        undisturbed = tmp_path / f"undisturbed{self.suffix}"
        begin(undisturbed)
        *halves, calls = in_child(dying(lambda _: go_on(undisturbed, lambda row: None)))
        others = np.random.default_rng(0).choice(calls, 8, replace=False).tolist()
        begin(path)
        first = contents(path)
        for moment in halves + others:
            restore(path, first)
            accepted = in_child(dying(lambda accepted: go_on(path, accepted), moment))
            try:
                with Store(path) as store:  # as another reader would find it
                    check_done(store, store.done_rows)
            except StoreError:
                assert self.tears_chunks
            # Dying while coming back to life is no different.
            in_child(dying(lambda _: StoreWriter(path).close(), moment // 2))
            with open_store(path) as store:
                done = store.done_rows.tolist()
                assert set(done) >= {9, 4, 0, *accepted}
                check_done(store, done)
                assert store.reasons[7] == "gone"
            assert [damage for damage in verify(path) if not damage.harmless] == []
            go_on(path, lambda row: None)
            assert contents(path) == contents(undisturbed)

    def test_a_journal_cut_off_anywhere(self, path):
        self.create(path)

        def die(accepted):
            writer = StoreWriter(path)
            put(writer, [8, 0, 5])
            writer.fail(2, "broken")
            os._exit(0)

        in_child(die)
        before, log = contents(path), beside(path, ".journal")
        whole = log.read_bytes()
        found = set()
        for length in range(0, len(whole) + 1, 9):
            restore(path, before)
            log.write_bytes(whole[:length])
            with open_store(path) as store:
                done = tuple(store.done_rows.tolist())
                check_done(store, done)
            found.add(done)
        assert found == {(), (8,), (0, 8), (0, 5, 8)}

    def test_a_journal_that_was_damaged(self, path):
        """Nothing behind the damage counts, be it whole in itself."""
        self.create(path)

        def die(accepted):
            writer = StoreWriter(path)
            put(writer, [8, 0, 5])
            os._exit(0)

        def die_otherwise(accepted):
            writer = StoreWriter(path)
            writer.fail(8, "in an earlier life of the file")
            os._exit(0)

        before, log = contents(path), beside(path, ".journal")
        in_child(die_otherwise)
        stale = log.read_bytes()[60:]
        restore(path, before)
        in_child(die)
        whole = log.read_bytes()
        for place in range(0, len(whole), 11):
            restore(path, before)
            log.write_bytes(whole)
            flip(log, place)
            with open_store(path) as store:
                done = store.done_rows.tolist()
                assert done in ([], [8], [0, 8])
                check_done(store, done)
        restore(path, before)
        log.write_bytes(whole + stale)
        with open_store(path) as store:
            check_done(store, [0, 5, 8])

    def test_a_journal_of_another_store_is_refused(self, path):
        spec = self.create(path)
        log = journal.Journal(beside(path, ".journal"), "00" * 32)
        log.append(0, Status.FAILED, "not yours")
        log.close()
        with pytest.raises(StoreError, match="journal belongs to another store"):
            StoreWriter(path)
        assert spec.fingerprint != "00" * 32

    def test_a_full_disk_loses_nothing(self, path):
        self.create(path)
        full = beside(path, ".full")

        def fill(accepted):
            with StoreWriter(path) as writer:
                limit = beside(path, ".journal").stat().st_size + 250
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                try:
                    for row in (0, 4, 8, 1):
                        put(writer, [row])
                        accepted(row)
                except StoreError as error:
                    os.write(os.open(full, os.O_CREAT | os.O_WRONLY), str(error).encode())
                    raise

        accepted = in_child(fill)
        assert "journal cannot be written: " in full.read_text()
        assert 0 < len(accepted) < 4
        with open_store(path) as store:
            check_done(store, accepted)
        assert verify(path) == []

    # Damage

    @pytest.mark.parametrize("array", ["vlm", "video", "status", "checksums", "reasons"])
    def test_a_flipped_byte_is_named(self, path, array):
        self.create(path)
        with StoreWriter(path) as writer:
            put(writer, [0, 1, 2, 3, 4, 6, 8, 9])
            writer.fail(5, "broken")
        file, offset = self.place(path, array, chunk=1)
        flip(file, offset + 2)
        [damage] = verify(path)
        hurt = {"status": (4, 5, 6, 7), "reasons": (5,), "checksums": (4, 6)}.get(array, (4,))
        assert (damage.array, damage.chunk, damage.rows) == (array, 1, hurt)
        assert damage.ids == tuple(f"vidéo-{row}" for row in hurt)
        assert not damage.harmless
        named = rf"chunk 1 of {array} does not match its .*checksum.*{damage.ids[0]}"
        if array in ("status", "checksums"):
            with pytest.raises(StoreError, match=named):
                open_store(path)
            return
        with open_store(path) as store:
            with pytest.raises(StoreError, match=named):
                store.reasons if array == "reasons" else store.read(array)
            if array in FEATURES:
                assert np.isfinite(store.read(array, [0, 6, 9])).all()

    def test_several_chunks_are_hurt(self, path):
        self.full(path)
        for chunk in (0, 2):
            flip(*self.place(path, "vlm", chunk))
        assert [(damage.array, damage.chunk) for damage in verify(path)] == [("vlm", 0), ("vlm", 2)]
        with (
            open_store(path) as store,
            pytest.raises(StoreError, match=r"chunk 0 .*1 more chunk.*hurt: vidéo-0, vidéo-8\."),
        ):
            store.read("vlm")

    @pytest.mark.parametrize("array", ["spec", "videos", "activity", "steps", "text/activity"])
    def test_a_flipped_byte_in_what_describes_the_videos(self, path, array):
        self.full(path)
        flip(*self.place(path, array, 0))
        [damage] = verify(path)
        assert (damage.array, damage.chunk) == (array, 0)
        with pytest.raises(StoreError, match=f"chunk 0 of {array} does not match"):
            open_store(path).text("activity")

    def test_no_flipped_byte_is_silent(self, path):
        self.create(path)
        with StoreWriter(path) as writer:
            put(writer, range(8))
            writer.fail(8, "broken")
        before, expected = contents(path), self.everything(path)
        every = [(name, place) for name, raw in before.items() for place in range(len(raw))]
        rng = np.random.default_rng(0)
        noticed = 0
        for k in rng.choice(len(every), 100, replace=False):
            restore(path, before)
            name, place = every[k]
            flip(path / name, place, int(rng.integers(1, 256)))
            try:
                if verify(path):
                    noticed += 1
                    continue
            except StoreError:
                noticed += 1
                with pytest.raises(StoreError):
                    self.everything(path)
                continue
            assert self.everything(path) == expected, (name, place)
        assert noticed > 10

    def everything(self, path: Path) -> list[bytes]:
        with open_store(path) as store:
            arrays = [store.status, *(store.read(array) for array in FEATURES)]
            arrays += [store.text(name) for name in store.spec.label_sets]
            return [*(array.tobytes() for array in arrays), str(store.reasons).encode()]

    @pytest.mark.parametrize("array", FEATURES)
    def test_a_missing_chunk_is_noticed(self, path, array):
        self.full(path)
        self.lose(path, array, 1)
        named = f"chunk 1 of {array} is missing; videos hurt: vidéo-4, vidéo-5, vidéo-6 and 1 more"
        with pytest.raises(StoreError, match=named):
            open_store(path)
        with pytest.raises(StoreError, match=named):
            StoreWriter(path)
        [damage] = verify(path)
        assert (damage.array, damage.chunk, damage.rows) == (array, 1, (4, 5, 6, 7))

    def test_features_that_are_fill_are_noticed(self, path):
        self.full(path)
        chunks = open_chunks(path, writable=True)
        chunks.write("vlm", 1, np.full((4, 1, 4, 3), np.nan, np.float16))
        chunks.sync()
        chunks.close()
        with (
            open_store(path) as store,
            pytest.raises(StoreError, match=r"chunk 1 of vlm does not match.*vidéo-4"),
        ):
            store.read("vlm")
        [damage] = verify(path)
        assert (damage.chunk, damage.rows) == (1, (4, 5, 6, 7))

    def test_chunks_that_changed_places_are_noticed(self, path):
        """Each is whole and matches its checksum, and yet belongs to other videos."""
        self.full(path)
        one, other = self.place(path, "vlm", 0), self.place(path, "vlm", 1)
        size = 4 * 4 * 3 * 2 + 4
        raw = [file.read_bytes()[offset : offset + size] for file, offset in (one, other)]
        for (file, offset), stolen in zip((one, other), reversed(raw), strict=True):
            before = file.read_bytes()
            file.write_bytes(before[:offset] + stolen + before[offset + size :])
        assert [damage.rows for damage in verify(path)] == [(0, 1, 2, 3), (4, 5, 6, 7)]
        with open_store(path) as store, pytest.raises(StoreError, match="chunk 0 of vlm"):
            store.read("vlm")

    def test_damage_where_no_video_is(self, path):
        self.create(path)
        with StoreWriter(path) as writer:
            put(writer, [0, 1, 3])
        file, offset = self.place(path, "vlm", 0)
        flip(file, offset + 2 * 4 * 3 * 2)  # the row of the video that is pending
        [damage] = verify(path)
        assert (damage.array, damage.chunk, damage.ids) == ("vlm", 0, ())
        with open_store(path) as store:
            check_done(store, [0, 1, 3])

    def test_a_damaged_chunk_is_not_built_upon(self, path):
        self.create(path)
        with StoreWriter(path) as writer:
            put(writer, [0, 1])
        flip(*self.place(path, "vlm", 0))
        with (
            pytest.raises(StoreError, match=r"chunk 0 of vlm does not match.*hurt: vidéo-0\."),
            StoreWriter(path) as writer,
        ):
            put(writer, [2, 3])
        # What is hurt is computed again; what was accepted meanwhile is there, and the rest too.
        [damage] = [damage for damage in verify(path) if not damage.harmless]
        with StoreWriter(path) as writer:
            writer.reset(damage.rows)
            put(writer, damage.rows)
        with open_store(path) as store:
            check_done(store, [0, 1, 2, 3])
        assert verify(path) == []

    def test_a_spoilt_structure(self, path):
        self.full(path)
        self.spoil_structure(path)
        with pytest.raises(StoreError, match=r"is damaged|cannot be opened|is cut short"):
            open_store(path).read("vlm")

    def test_a_newer_format(self, path):
        spec = self.create(path)
        newer = dataclasses.replace(spec, format_version=FORMAT_VERSION + 1).to_json().encode()
        chunks = open_chunks(path, writable=True)
        chunks.write("spec", 0, np.frombuffer(newer, np.uint8))
        chunks.sync()
        chunks.close()
        newest = FORMAT_VERSION
        said = f"tiny.*format {newest + 1}, this program reads up to {newest}"
        with pytest.raises(StoreError, match=said):
            open_store(path)

    def test_a_spec_that_says_otherwise(self, path):
        spec = self.create(path)
        wider = dataclasses.replace(spec, sampling=Sampling(4, 2)).to_json().encode()
        chunks = open_chunks(path, writable=True)
        chunks.write("spec", 0, np.frombuffer(wider, np.uint8))
        chunks.sync()
        chunks.close()
        with pytest.raises(StoreError, match=r"vlm is \[10, 1, 4, 3\].* says \[10, 2, 4, 3\]"):
            open_store(path)

    # The other format

    @pytest.mark.parametrize("through", [".zarr", ".h5"])
    def test_conversion_there_and_back(self, path, tmp_path, through):
        self.create(path, views=2)
        with StoreWriter(path) as writer:
            put(writer, [0, 1, 2, 3, 9])
            writer.fail(4, "brökén")
        there, back = tmp_path / f"there{through}", tmp_path / f"back{self.suffix}"
        seen = []
        convert(path, there, progress=lambda count, total: seen.append((count, total)))
        convert(there, back)
        assert contents(back) == contents(path)
        with open_store(path) as store, open_store(there) as other:
            assert store.spec == other.spec
            assert store.reasons == other.reasons
            assert store.content_digest == other.content_digest
            assert (store.status == other.status).all()
            for array in FEATURES:
                assert store.read(array).tobytes() == other.read(array).tobytes()
        assert verify(there) == []
        assert [count for count, _ in seen] == list(range(1, seen[-1][1] + 1))
        with pytest.raises(StoreError, match=r"there\S+ exists already"):
            convert(path, there)

    def test_a_damaged_store_is_not_converted(self, path, tmp_path):
        self.full(path)
        flip(*self.place(path, "video", 2))
        target = tmp_path / "new" / "copy.zarr"
        with pytest.raises(StoreError, match=r"chunk 2 of video does not match.*vidéo-8"):
            convert(path, target)
        assert list(target.parent.iterdir()) == []


def open_chunks_of(contract: StoreContract, path: Path) -> Chunks:
    """Any open file of the format."""
    other = path.parent.parent / f"any{contract.suffix}"
    contract.create(other)
    return open_chunks(other)


def restore(path: Path, before: dict[str, bytes]) -> None:
    """A store as it was, without a journal."""
    for suffix in (".journal", ".journal.new", ".lock"):
        beside(path, suffix).unlink(missing_ok=True)
    now = contents(path)
    for name in now.keys() - before.keys():
        (path / name).unlink()
    for name, raw in before.items():
        if now.get(name) != raw:
            (path / name).write_bytes(raw)
