"""A store in a bucket: the contract that every store keeps, and what is peculiar to this one."""

from __future__ import annotations

import os

import obstore
import pytest
import zarr
from servers import bucket, s3_server
from store_contract import StoreContract
from zarr.storage import ObjectStore

from pcmci.remote.url import Url, place


@pytest.fixture(scope="module")
def server():
    with s3_server() as environment:
        yield environment


@pytest.fixture
def s3(server, monkeypatch, tmp_path):
    """An empty bucket named `stores`."""
    import boto3

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    there = boto3.resource("s3").create_bucket(Bucket="stores")
    yield "stores"
    there.objects.all().delete()
    there.delete()


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
