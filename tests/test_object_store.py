"""A store in a bucket: the contract that every store keeps, and what is peculiar to this one."""

from __future__ import annotations

import os
import signal

import obstore
import pytest
import zarr
from children import Child
from servers import bucket, objects, upload
from store_contract import (
    StoreContract,
    check_done,
    contents,
    make_spec,
    make_table,
    make_text,
    put,
)
from zarr.storage import ObjectStore

from pcmci.cache.formats.layout import ChunkError
from pcmci.cache.formats.objects import ObjectChunks
from pcmci.cache.nearby import nearby
from pcmci.cache.store import StoreWriter, create_store, open_store
from pcmci.cache.upkeep.convert import convert
from pcmci.cache.upkeep.repair import repair
from pcmci.cache.upkeep.verify import verify
from pcmci.cache.writing import lease
from pcmci.cache.writing.lock import StoreLocked
from pcmci.errors import RemoteError, StoreError, UsageError
from pcmci.remote.objects import RETRY_SECONDS
from pcmci.remote.url import Url, place

# What needs a forked process (which cannot use the parent's connections), a file's offset, or a
# folder that is none: the same is asked of a bucket further down, where it has a meaning there.
NOT_HERE = (
    "test_a_dead_writer_holds_nobody_up",
    "test_a_forked_child_does_not_keep_the_lock",
    "test_a_folder_that_cannot_be_written_is_read",
    "test_killed_at_any_moment",
    "test_a_journal_cut_off_anywhere",
    "test_a_journal_that_was_damaged",
    "test_a_journal_of_another_store_is_refused",
    "test_a_full_disk_loses_nothing",
    "test_paths_that_are_no_store",
    "test_overwriting_begins_anew",
    "test_any_order_any_subset_any_chunks",
    "test_no_flipped_byte_is_silent",
)


class TestObjects(StoreContract):
    suffix = ".zarr"
    tears_chunks = False

    @pytest.fixture(autouse=True)
    def in_the_bucket(self, s3, request, monkeypatch):
        if request.node.originalname in NOT_HERE:
            pytest.skip("asked of a bucket in another way")
        for name, method in AS_FILES.items():
            monkeypatch.setattr(Url, name, method, raising=False)

    @pytest.fixture
    def path(self, s3) -> Url:
        return place(f"s3://{s3}/features/tiny.zarr")

    def place(self, path: Url, array: str, chunk: int) -> tuple[Url, int]:
        axes = len(zarr.open_group(remote(path), mode="r")[array].shape)
        return path / array / f"c.{chunk}{'.0' * (axes - 1)}", 0

    def lose(self, path: Url, array: str, chunk: int) -> None:
        self.place(path, array, chunk)[0].unlink()

    def reference(self, path: Url, array: str):
        return zarr.open_group(remote(path), mode="r")[array][:]

    def spoil_structure(self, path: Url) -> None:
        file = path / "vlm" / "zarr.json"
        file.write_bytes(file.read_bytes()[:100])


def remote(path: Url) -> ObjectStore:
    return ObjectStore(obstore.store.from_url(str(path)))


def _under(url: Url) -> list[Url]:
    found = obstore.list(bucket(url.bucket), prefix=url.key).collect()
    return [place(f"s3://{url.bucket}/{entry['path']}") for entry in found]


AS_FILES = {
    "read_bytes": lambda url: bytes(obstore.get(bucket(url.bucket), url.key).bytes()),
    "write_bytes": lambda url, raw: obstore.put(bucket(url.bucket), url.key, raw),
    "unlink": lambda url, missing_ok=False: obstore.delete(bucket(url.bucket), url.key),
    "rglob": lambda url, _: _under(url),
    "iterdir": lambda url: {url / one.key[len(url.key) + 1 :].split("/")[0] for one in _under(url)},
    "relative_to": lambda url, root: url.key.removeprefix(f"{root.key}/"),
    "glob": lambda url, _: [],
}


# --- what is peculiar to a bucket -----------------------------------------------------------------


@pytest.fixture
def path(s3) -> Url:
    return place(f"s3://{s3}/features/tiny.zarr")


make = TestObjects()


def bytes_of(path: Url) -> dict[str, bytes]:
    return objects(path.bucket, path.key)


def another_machine(monkeypatch, tmp_path):
    """From here on, as seen from elsewhere: another cache folder, another lock of files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))


def killed_writer(path: Url, rows: int) -> None:
    """A process that is killed after so many videos were accepted."""
    assert Child(write_and_die, path, rows).wait()[0] == -signal.SIGKILL


def write_and_die(path: Url, rows: int) -> None:
    put(StoreWriter(path, sync_seconds=1000), range(rows))
    os.kill(os.getpid(), signal.SIGKILL)


def test_objects_are_the_files_of_a_folder(path, tmp_path):
    """Written there, copied there by another program, or converted: the same objects."""
    local = tmp_path / "tiny.zarr"
    make.full(path)
    make.full(local)
    assert bytes_of(path) == contents(local)
    upload(local, path.bucket, "copied/tiny.zarr")
    copied = place(f"s3://{path.bucket}/copied/tiny.zarr")
    with open_store(copied) as store, open_store(local) as other:
        check_done(store, range(10))
        assert store.content_digest == other.content_digest
    up, down = path.with_name("up.zarr"), tmp_path / "down.zarr"
    convert(local, up)
    convert(up, down)
    assert bytes_of(up) == contents(down) == contents(local)
    assert {name.split("/")[0] for name in objects(path.bucket, "features")} == {
        "tiny.zarr", "up.zarr",
    }  # fmt: skip


@pytest.mark.parametrize("url", ["s3://b/coin.h5", "https://h/coin.zarr", "s3://b/coin"])
def test_only_zarr_in_a_bucket(url):
    with pytest.raises(UsageError, match=r"a store under a URL is a \.zarr on s3://"):
        open_store(url)


def test_a_bucket_without_a_store(path):
    with pytest.raises(UsageError, match="does not exist"):
        open_store(path)


def test_a_killed_writer_loses_nothing_on_its_machine(path):
    make.create(path)
    killed_writer(path, 6)
    with open_store(path) as store:
        check_done(store, range(6))
    with StoreWriter(path) as writer:
        put(writer, range(6, 10))
    with open_store(path) as store:
        check_done(store, range(10))
    assert not list(nearby(path, "").parent.glob("*.journal"))
    assert "tiny.zarr.lock" not in objects(path.bucket, "features")


def test_another_machine_waits_for_the_lease_and_repeats(path, monkeypatch, tmp_path):
    make.create(path)
    killed_writer(path, 6)
    with monkeypatch.context() as there:
        another_machine(there, tmp_path)
        with open_store(path) as store:  # reading is free
            check_done(store, [])
        with pytest.raises(StoreLocked, match=r"written by process \d+ on .*taken over"):
            StoreWriter(path)
        there.setattr(lease, "STALE", 0.0)
        with StoreWriter(path) as writer:
            put(writer, range(4))
            writer.fail(4, "seen from elsewhere")
    # Back here: the journal is of a store that somebody else has written since.
    with open_store(path) as store:
        check_done(store, range(4))
        assert store.reasons[4] == "seen from elsewhere"


def test_who_lost_the_lease_stops(path, monkeypatch, tmp_path):
    make.create(path)
    first = StoreWriter(path)
    put(first, range(3))
    with monkeypatch.context() as there:
        another_machine(there, tmp_path)
        there.setattr(lease, "STALE", 0.0)
        second = StoreWriter(path)
    first._lock._renew()  # as the next beat would
    before = bytes_of(path)
    with pytest.raises(StoreLocked, match="taken over by process"):
        put(first, range(3, 10))
    with pytest.raises(StoreLocked, match="taken over by process"):
        first.close()
    assert bytes_of(path) == before
    put(second, range(10))
    second.close()
    with open_store(path) as store:
        check_done(store, range(10))


def test_who_cannot_renew_the_lease_stops_before_others_may_begin(path, monkeypatch):
    assert lease.SAFE + RETRY_SECONDS < lease.STALE
    make.create(path)
    writer = StoreWriter(path)
    later = lease._now() + lease.SAFE + 1
    monkeypatch.setattr(lease, "_now", lambda: later)
    with pytest.raises(StoreLocked, match="could not be renewed"):
        put(writer, range(4))
    with pytest.raises(StoreLocked, match="could not be renewed"):
        writer.close()


def test_of_two_who_take_over_one_succeeds(path, monkeypatch, tmp_path):
    """Both have seen the same stale lease; the second finds that it has changed."""
    make.create(path)
    killed_writer(path, 1)
    read, taken = lease.objects.read_with_facts, []

    def slow(url):
        found = read(url)
        if not taken:
            taken.append(True)
            with monkeypatch.context() as there:
                another_machine(there, tmp_path)
                taken.append(StoreWriter(path))
            monkeypatch.setattr(lease, "STALE", 300.0)
        return found

    monkeypatch.setattr(lease, "STALE", 0.0)
    monkeypatch.setattr(lease.objects, "read_with_facts", slow)
    with pytest.raises(StoreLocked, match="is being written by process"):
        StoreWriter(path)
    taken[1].close()


def test_a_lease_is_renewed(path, monkeypatch):
    make.create(path)
    monkeypatch.setattr(lease, "BEAT", 0.01)
    with StoreWriter(path) as writer:
        first = bytes_of(path.parent)["tiny.zarr.lock"]
        while bytes_of(path.parent)["tiny.zarr.lock"] == first:
            pass
        put(writer, range(10))
    with open_store(path) as store:
        check_done(store, range(10))


def test_what_could_not_be_committed_is_kept(path, monkeypatch):
    make.create(path)

    def refuse(url, content):
        raise RemoteError(f"{url} cannot be written: the server cannot be reached")

    writer = StoreWriter(path, sync_seconds=1000)
    put(writer, range(6))
    with monkeypatch.context() as broken:
        broken.setattr(lease.objects, "write", refuse)
        with pytest.raises(StoreError, match="cannot be reached"):
            writer.close()
    with open_store(path) as store:
        check_done(store, range(6))


def test_a_creation_that_was_cut_off_is_no_store_and_holds_nobody_up(path, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(ObjectChunks, "announce", lambda chunks: 1 // 0)
        killed.setattr(ObjectChunks, "remove", lambda chunks: None)
        with pytest.raises(ZeroDivisionError):
            make.create(path, n=20)
    assert bytes_of(path)
    with pytest.raises(UsageError, match="does not exist"):
        open_store(path)
    make.full(path)
    assert verify(path) == []
    again = path.with_name("again.zarr")
    make.full(again)
    assert bytes_of(path) == bytes_of(again)


def test_overwriting_leaves_nothing_of_the_old_store(path):
    spec = make.full(path, n=20)
    with pytest.raises(StoreError, match="exists already"):
        create_store(path, spec, make_table(20), make_text(spec))
    fresh = path.with_name("fresh.zarr")
    table = make_table(6)
    small = make_spec(table)
    for where in (path, fresh):
        create_store(where, small, table, make_text(small), overwrite=True, chunk_rows=4)
    assert bytes_of(path) == bytes_of(fresh)


def test_a_network_in_trouble_is_no_damage(path, monkeypatch):
    """Or a repair would compute again what is well."""
    make.full(path)

    def refuse(url, *how):
        raise RemoteError(f"{url} cannot be read: the server cannot be reached")

    with open_store(path) as store:
        monkeypatch.setattr(lease.objects, "read_range", refuse)
        with pytest.raises(StoreError, match="cannot be reached") as error:
            store.read("vlm")
        assert not isinstance(error.value, ChunkError)
    monkeypatch.setattr(lease.objects, "read", refuse)
    with pytest.raises(StoreError, match="cannot be reached"):
        verify(path)


def test_what_is_damaged_is_repaired(path, s3):
    spec = make.full(path)
    key = f"{path.key}/vlm/c.1.0.0.0"
    raw = bytearray(objects(s3, path.key)["vlm/c.1.0.0.0"])
    raw[10] ^= 1
    obstore.put(bucket(s3), key, bytes(raw))
    obstore.delete(bucket(s3), f"{path.key}/text/steps/c.0.0")
    found = repair(path, spec, make_text(spec).__getitem__)
    assert [(damage.array, damage.chunk) for damage in found] == [("text/steps", 0), ("vlm", 1)]
    with StoreWriter(path) as writer:
        assert writer.pending.tolist() == [4]
        put(writer, [4])
    assert verify(path) == []
    with open_store(path) as store:
        check_done(store, range(10))


def test_a_bucket_that_may_only_be_read_is_read(path, monkeypatch):
    make.create(path)
    killed_writer(path, 6)

    def refuse(url, content, version=None):
        raise RemoteError(f"{url} cannot be written: access is denied", "access is denied")

    monkeypatch.setattr(lease.objects, "write_new", refuse)
    with open_store(path) as store:
        check_done(store, [])
    with pytest.raises(StoreLocked, match="cannot be locked: access is denied"):
        StoreWriter(path)


def test_what_is_no_store_is_not_deleted(s3, path):
    """A folder of the same name, which has no group of ours: another program's, perhaps."""
    other = {".zgroup": b"{}", "vlm/0.0": b"other numbers"}
    for name, content in other.items():
        obstore.put(bucket(s3), f"{path.key}/{name}", content)
    with pytest.raises(StoreError, match=r"no part of a store \(.zgroup\): name another place"):
        make.create(path)
    assert bytes_of(path) == other
