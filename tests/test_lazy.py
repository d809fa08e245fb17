"""`Store.to_dask`: the bits of `Store.read`, later, elsewhere, and of no other store."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from store_contract import contents, features, flip, make_spec, make_table, make_text, put

from pcmci.cache import lazy
from pcmci.cache.schema import FEATURES
from pcmci.cache.store import Store, StoreWriter, create_store, open_store
from pcmci.errors import StoreError

CHUNK = 4
DONE = [0, 1, 3, 4, 5, 6, 7, 9, 12]


@pytest.fixture(params=[".zarr", ".h5"])
def path(request, tmp_path):
    """14 videos in 4 chunks, 9 of them done, the third chunk with one and the last with one."""
    path = tmp_path / f"store{request.param}"
    make(path)
    return path


def make(path, views=2, **options):
    table = make_table(14)
    spec = make_spec(table, views)
    create_store(path, spec, table, make_text(spec), chunk_rows=CHUNK, **options)
    with StoreWriter(path) as writer:
        put(writer, DONE)


@pytest.fixture
def chunks_read(monkeypatch):
    """Every (array, chunk) of which features are read from now on."""
    seen = []
    real = Store.read

    def counted(store, array, rows=None, view=None):
        index = np.arange(len(store))[slice(None) if rows is None else rows]
        seen.extend((array, chunk) for chunk in np.unique(index // store.chunk_rows).tolist())
        return real(store, array, rows, view)

    monkeypatch.setattr(Store, "read", counted)
    return seen


@pytest.mark.parametrize("view", [None, 0, 1])
@pytest.mark.parametrize("array", FEATURES)
def test_the_bits_of_read(path, array, view):
    with open_store(path) as store:
        expected = store.read(array, view=view)
        for block_bytes in (1, 500, 2**25):
            lazily = store.to_dask(array, view, block_bytes=block_bytes)
            assert (lazily.shape, lazily.dtype) == (expected.shape, np.float16)
            assert lazily.compute().tobytes() == expected.tobytes()
    assert np.isnan(expected[2]).all()


def test_blocks_are_whole_chunks(path):
    with open_store(path) as store:
        row = 2 * 4 * 3 * 2
        assert store.to_dask("vlm", block_bytes=1).chunks[0] == (4, 4, 4, 2)
        assert store.to_dask("vlm", block_bytes=12 * row - 1).chunks[0] == (8, 6)
        assert store.to_dask("vlm", 0, block_bytes=6 * row).chunks[0] == (12, 2)
        assert store.to_dask("vlm").numblocks == (1, 1, 1, 1)


def test_nothing_is_read_but_what_is_computed(path, chunks_read):
    with open_store(path) as store:
        lazily = store.to_dask("vlm", block_bytes=1)
        part = lazily[5:7, 1]
        assert chunks_read == []
        assert part.compute().tobytes() == store.read("vlm", [5, 6], 1).tobytes()
    assert set(chunks_read) == {("vlm", 1)}


@pytest.mark.parametrize(
    "index",
    [
        np.s_[3],
        np.s_[-2, 0],
        np.s_[::3, :, 1:3],
        np.s_[[9, 0, 5]],
        np.s_[:, [1], ::-1],
        np.s_[..., 2],
        np.s_[6:6],
    ],
)
def test_parts(path, index):
    with open_store(path) as store:
        expected = store.read("vlm")[index]
        found = store.to_dask("vlm", block_bytes=1)[index].compute()
        assert found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()


def test_the_store_need_not_stay_open(path):
    with open_store(path) as store:
        lazily, expected = store.to_dask("video"), store.read("video")
    assert lazily.compute().tobytes() == expected.tobytes()


def test_in_other_processes(path):
    with open_store(path) as store:
        lazily = store.to_dask("vlm", block_bytes=1)
        found = lazily.compute(scheduler="processes", num_workers=2)
        assert found.tobytes() == store.read("vlm").tobytes()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_on_a_cluster(path):
    from distributed import Client

    with (
        Client(
            processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None
        ) as client,
        open_store(path) as store,
    ):
        lazily = store.to_dask("vlm", block_bytes=1)
        assert client.compute(lazily).result().tobytes() == store.read("vlm").tobytes()
        damage(path, "vlm", 5)
        with pytest.raises(StoreError, match="vidéo-5"):
            client.compute(lazily + 1, sync=True)


def test_the_name_follows_the_content(path, tmp_path):
    twin = tmp_path / f"twin{'.h5' if path.suffix == '.zarr' else '.zarr'}"
    make(twin)
    with open_store(path) as store, open_store(twin) as same:
        arrays = [(a, v) for a in FEATURES for v in (None, 0, 1)]
        names = [store.to_dask(*one).name for one in arrays]
        assert names == [same.to_dask(*one).name for one in arrays]
        assert len(set(names)) == len(arrays)
        assert store.to_dask("vlm", block_bytes=1).name not in names
    with StoreWriter(path) as writer:
        put(writer, [2])
    with open_store(path) as store:
        assert store.to_dask("vlm").name not in names


def test_a_store_that_changed_before_it_was_read(path):
    with open_store(path) as store:
        lazily = store.to_dask("vlm")
    with StoreWriter(path) as writer:
        put(writer, [2])
    with pytest.raises(StoreError, match=f"{path} has changed since to_dask was called"):
        lazily.compute()


def test_a_store_that_is_replaced_while_it_is_read(path):
    with open_store(path) as store:
        lazily, expected = store.to_dask("vlm", block_bytes=1), store.read("vlm")
    assert lazily[0].compute().tobytes() == expected[0].tobytes()
    table = make_table(14)
    spec = dataclasses.replace(make_spec(table, 2), precision="bfloat16")
    create_store(path, spec, table, make_text(spec), chunk_rows=CHUNK, overwrite=True)
    with StoreWriter(path) as writer:
        for row in DONE:
            writer.put(row, *(-one for one in features(spec, row)))
    if path.suffix == ".h5":  # one file, which stays while it is open
        assert lazily.compute().tobytes() == expected.tobytes()
    else:
        with pytest.raises(StoreError, match="has changed since"):
            lazily.compute()


@pytest.mark.parametrize("array", FEATURES)
def test_damage_names_the_video(path, array):
    damage(path, array, 5)
    with open_store(path) as store:
        lazily = store.to_dask(array, block_bytes=1)
        with pytest.raises(StoreError, match=rf"chunk 1 of {array} .*videos hurt: vidéo-5\."):
            lazily.compute()
        assert lazily[:4].compute().tobytes() == store.read(array, slice(4)).tobytes()


def damage(path, array, row):
    """Flip a bit of one video's features, wherever in the store they lie."""
    spec = make_spec(make_table(14), 2)
    raw = features(spec, row)[FEATURES.index(array)].astype("<f2").tobytes()
    [(name, place)] = [(n, all_.index(raw)) for n, all_ in contents(path).items() if raw in all_]
    flip(path / name, place)


def test_old_stores_are_let_go(path, tmp_path, monkeypatch):
    monkeypatch.setattr(lazy, "_opened", {})
    for k in range(lazy.OPEN_STORES + 2):
        other = tmp_path / f"{k}{path.suffix}"
        make(other)
        with open_store(other) as store:
            store.to_dask("vlm").compute()
    assert len(lazy._opened) == lazy.OPEN_STORES


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"array": "audio"}, "'audio'"),
        ({"array": "vlm", "view": 2}, "view 2"),
        ({"array": "vlm", "block_bytes": 0}, "block_bytes 0"),
    ],
)
def test_what_is_not_there(path, asked, says):
    with open_store(path) as store, pytest.raises(StoreError, match=says):
        store.to_dask(**asked)


def test_a_store_that_nobody_analyses_loads_no_dask(path):
    code = (
        "import sys, pcmci.cli; from pcmci.cache.store import open_store;"
        f"open_store({str(path)!r}).read('vlm'); sys.exit('dask' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
