"""The demo goes the whole way, and goes on where it was stopped."""

from pcmci import demo as demo_module
from pcmci.cache.schema import Status
from pcmci.cache.store import open_store


def test_the_whole_way_on_a_small_world(tmp_path):
    out = tmp_path / "demo"
    runs = demo_module.demo(out, videos=12, epochs=2)
    assert list(runs) == ["none", "ich", "ich,ici", "ich,ici,ivc"]
    with open_store(out / "features" / "kitchen.zarr") as store:
        assert store.counts[Status.DONE] == len(store) == 12 + 1 + 4 + 4 * 4
    for run in runs.values():
        assert run.metrics["shift-all"]["coverage"] == 1
        assert not run.reused
    again = demo_module.demo(out, videos=12, epochs=2)
    assert all(run.reused for run in again.values())
    assert {name: run.metrics for name, run in again.items()} == {
        name: run.metrics for name, run in runs.items()
    }


def test_the_next_command_can_be_typed(tmp_path):
    command = demo_module.next_command(tmp_path / "my demo")
    assert command.startswith("pcmci train-heads --features '")
