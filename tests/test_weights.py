"""Reading checkpoints from strangers: what is refused, and what a checksum depends on."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pcmci.errors import WeightsError
from pcmci.extract.encoders.weights import (
    SUFFIXES,
    random_seed,
    read_tensors,
    require_match,
    state_dict_sha256,
)


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "b.weight": torch.randn(3, 4, generator=generator),
        "a.half": torch.randn(5, generator=generator).bfloat16(),
        "count": torch.tensor(7),
    }


def write(path: Path, state: dict[str, torch.Tensor]) -> Path:
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_file_gives_the_same_tensors(tmp_path: Path, suffix: str) -> None:
    read = read_tensors(write(tmp_path / f"weights{suffix}", tensors()))
    assert read.keys() == tensors().keys()
    assert all(torch.equal(read[key], tensor) for key, tensor in tensors().items())


@pytest.mark.parametrize("container", ["model_state", "state_dict", "model", "module"])
def test_containers_and_parallel_prefixes_are_taken_off(tmp_path: Path, container: str) -> None:
    path = tmp_path / "checkpoint.pth"
    inner = {f"module.{key}": tensor for key, tensor in tensors().items()}
    torch.save({"epoch": 3, container: inner, "cfg": "text"}, path)
    assert read_tensors(path).keys() == tensors().keys()


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s != ".safetensors"])
@pytest.mark.parametrize("plain", [True, False], ids=["pickle", "zip"])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, suffix: str, plain: bool) -> None:
    mark, path = tmp_path / "mark", tmp_path / f"hostile{suffix}"
    hostile = {**tensors(), "x": Malicious(mark)}
    if plain:
        path.write_bytes(pickle.dumps(hostile, protocol=2))
    else:
        torch.save(hostile, path)
    with pytest.raises(WeightsError, match=rf"hostile{suffix} cannot be read safely"):
        read_tensors(path)
    assert not mark.exists()
    torch.load(path, weights_only=False) if not plain else pickle.loads(path.read_bytes())
    assert mark.exists()  # so that the test can fail


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_program_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "program.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
    with pytest.raises(WeightsError, match=r"TorchScript program.*save the state_dict\(\)"):
        read_tensors(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x80\x02"])
def test_a_damaged_file_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged.* cannot be read safely") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_checkpoint_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is a folder: give the checkpoint file in it"):
        read_tensors(tmp_path)
    with pytest.raises(WeightsError, match=r"there is no checkpoint .*absent\.pt"):
        read_tensors(tmp_path / "absent.pt")
    (tmp_path / "weights.zip").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"weights\.zip is no checkpoint by its name"):
        read_tensors(tmp_path / "weights.zip")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match=r"holds no weights by name, but a list"):
        read_tensors(tmp_path / "list.pt")
    torch.save({"a": torch.zeros(1), "epoch": 3}, tmp_path / "mixed.pt")
    with pytest.raises(WeightsError, match=r"holds a int as 'epoch'"):
        read_tensors(tmp_path / "mixed.pt")


def test_the_checksum_is_that_of_names_types_shapes_and_bytes() -> None:
    state = tensors()
    original = state_dict_sha256(state)
    assert state_dict_sha256(dict(reversed(state.items()))) == original
    strided = {**state, "b.weight": state["b.weight"].T.contiguous().T}
    assert state_dict_sha256(strided) == original

    flipped = state["b.weight"].clone()
    flipped.view(torch.uint8)[0, 0] ^= 1
    others = [
        {**state, "b.weight": flipped},
        {**state, "b.weight": state["b.weight"].reshape(4, 3)},
        {**state, "b.weight": state["b.weight"].view(torch.int32)},
        {("c" if key == "count" else key): tensor for key, tensor in state.items()},
        {key: tensor for key, tensor in state.items() if key != "count"},
    ]
    assert len({original, *map(state_dict_sha256, others)}) == 1 + len(others)


def test_a_mismatch_names_what_is_wrong() -> None:
    expected = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}
    require_match(dict(expected), expected, "file.pt", "model")
    wrong = {"b": torch.zeros(3, 1), "c": torch.zeros(1), "d": torch.zeros(1)}
    with pytest.raises(WeightsError) as caught:
        require_match(wrong, expected, "file.pt", "model")
    assert str(caught.value) == (
        "file.pt does not fit model: a is missing, d has no place, b is [3, 1], not [3]"
    )
    many = {f"x{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(WeightsError, match="x3 is missing, and 5 more"):
        require_match({}, many, "file.pt", "model")


def test_seeds_are_whole_numbers() -> None:
    assert random_seed("random:12") == 12
    assert random_seed("openai") is None
    for weights in ("random:", "random:x", "random:-1", "random:1.5", "random:1e3"):
        with pytest.raises(WeightsError, match="the seed must be a whole number"):
            random_seed(weights)
