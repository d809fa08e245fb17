"""Both file formats keep the contract; what is peculiar to one stands here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from store_contract import StoreContract, put

from pcmci.cache.store import StoreWriter, open_store
from pcmci.cache.upkeep.verify import verify
from pcmci.errors import StoreError


class TestZarr(StoreContract):
    suffix = ".zarr"
    tears_chunks = False

    def place(self, path: Path, array: str, chunk: int) -> tuple[Path, int]:
        return next((path / array).glob(f"c.{chunk}*")), 0

    def lose(self, path: Path, array: str, chunk: int) -> None:
        self.place(path, array, chunk)[0].unlink()

    def reference(self, path: Path, array: str) -> np.ndarray:
        return zarr.open_group(path, mode="r")[array][:]

    def spoil_structure(self, path: Path) -> None:
        file = path / "vlm" / "zarr.json"
        file.write_bytes(file.read_bytes()[:100])

    def test_leftovers_are_named_and_do_no_harm(self, path):
        self.full(path)
        (path / "vlm" / "c.1.0.0.0.partial").write_bytes(b"half a chunk")
        [damage] = verify(path)
        assert damage.harmless
        assert "c.1.0.0.0.partial is left from a write" in str(damage)
        open_store(path).close()

    @pytest.mark.parametrize(
        ("key", "value", "why"),
        [
            ("codecs", [{"name": "bytes"}, {"name": "gzip"}], "are not bytes"),
            ("shape", [10, 1, 4], "do not cut"),
            ("data_type", "float128x", "float128x"),
            ("shape", [9, 1, 4, 3], r"vlm is \[9, 1, 4, 3\]"),
        ],
    )
    def test_an_array_that_is_not_of_our_making(self, path, key, value, why):
        self.full(path)
        file = path / "vlm" / "zarr.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
        with pytest.raises(StoreError, match=why):
            open_store(path)


class TestHdf5(StoreContract):
    suffix = ".h5"
    tears_chunks = True

    def place(self, path: Path, array: str, chunk: int) -> tuple[Path, int]:
        with h5py.File(path) as file:
            dataset = file[array]
            first = (chunk * dataset.chunks[0], *(0,) * (dataset.ndim - 1))
            return path, dataset.id.get_chunk_info_by_coord(first).byte_offset

    def lose(self, path: Path, array: str, chunk: int) -> None:
        with h5py.File(path, "r+") as file:
            old = file[array]
            how = {"chunks": old.chunks, "fletcher32": True, "fillvalue": np.nan}
            values = old[:]
            del file[array]
            new = file.create_dataset(array, old.shape, old.dtype, **how)
            for other in range(-(-len(values) // how["chunks"][0])):
                if other != chunk:
                    part = slice(4 * other, 4 * other + 4)
                    new[part] = values[part]

    def reference(self, path: Path, array: str) -> np.ndarray:
        with h5py.File(path) as file:
            return file[array][:]

    def spoil_structure(self, path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-200])

    def test_writing_changes_nothing_but_chunks(self, path):
        self.create(path)
        before = path.read_bytes()
        with h5py.File(path) as file:
            places = []
            for array in ("vlm", "video", "checksums", "status", "reasons"):
                file[array].id.chunk_iter(places.append)
        spans = [range(place.byte_offset, place.byte_offset + place.size) for place in places]
        with StoreWriter(path) as writer:
            put(writer, range(9))
            writer.fail(9, "broken")
        after = path.read_bytes()
        assert len(after) == len(before)
        changed = np.flatnonzero(np.frombuffer(before, "u1") != np.frombuffer(after, "u1"))
        assert len(changed)
        assert all(any(place in span for span in spans) for place in changed.tolist())


def test_opening_a_zarr_store_needs_no_zarr(tmp_path):
    path = tmp_path / "store.zarr"
    TestZarr().full(path)
    code = (
        "import sys; from pcmci.cache.store import open_store;"
        f"open_store({str(path)!r}).read('vlm'); sys.exit('zarr' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
