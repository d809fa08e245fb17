"""Weights from strangers: read without running any of their code, and told apart by their bits."""

from __future__ import annotations

import hashlib
import logging
import re
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pcmci.errors import WeightsError
from pcmci.extract.config import SHIPPED
from pcmci.extract.encoders.reachable import asked_only_where_it_is

SUFFIXES = (".safetensors", ".pt", ".pth", ".pyth", ".bin")
"""The checkpoint files that can be read."""

SHIPPED_FOLDER = Path(__file__).parent / SHIPPED
"""Where the encoders that come with the package lie: a config, weights, a vocabulary, and the
quality that their training measured."""

CONTAINERS = ("model_state", "state_dict", "model", "module")
"""Where training programs put the weights inside their checkpoints: SlowFast's, open_clip's, the
MAE family's and DeepSpeed's."""


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name, on the CPU, as stored.

    A pickle is read with PyTorch's restricted unpickler (`weights_only=True`), which runs no code.
    Raises WeightsError for anything that is no such file or holds something else.
    """
    if path.is_dir():
        raise WeightsError(f"{path} is a folder: give the checkpoint file in it")
    if not path.is_file():
        raise WeightsError(f"there is no checkpoint {path}")
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"{path} is no checkpoint by its name: use one of {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged and hostile files raise nearly anything
        if "TorchScript" in str(error):
            raise WeightsError(
                f"{path} is a TorchScript program, which could run code: save the state_dict() of "
                "torch.jit.load(...) with torch.save, and give that file"
            ) from error
        raise WeightsError(f"{path} cannot be read safely: {_first_line(error)}") from error
    return _state_dict(loaded, path)


def _state_dict(loaded: Any, path: Path) -> dict[str, torch.Tensor]:
    for container in CONTAINERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(container), dict):
            loaded = loaded[container]
    if not isinstance(loaded, dict) or not loaded:
        raise WeightsError(f"{path} holds no weights by name, but a {type(loaded).__name__}")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise WeightsError(f"{path} holds a {type(tensor).__name__} as {name!r}, no tensor")
    # DistributedDataParallel puts `module.` before every name.
    return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}


def state_dict_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """sha256 over name, type, shape and bytes of every tensor, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        sha.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        sha.update(tensor.flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def require_match(
    state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], weights: str, name: str
) -> None:
    """Raises WeightsError unless `state` has exactly the names and shapes of `expected`."""
    wrong = [f"{key} is missing" for key in expected if key not in state]
    wrong += [f"{key} has no place" for key in state if key not in expected]
    wrong += [
        f"{key} is {list(state[key].shape)}, not {list(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    if wrong:
        more = f", and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise WeightsError(f"{weights} does not fit {name}: {', '.join(wrong[:4])}{more}")


def random_seed(weights: str) -> int | None:
    """The seed of `random:SEED`, None for other weights. Raises WeightsError for no number."""
    if not weights.startswith("random:"):
        return None
    seed = weights.removeprefix("random:")
    if not re.fullmatch(r"[0-9]{1,18}", seed):
        raise WeightsError(f"weights {weights!r}: the seed must be a whole number, as in random:0")
    return int(seed)


@contextmanager
def downloading(what: str, instead: str) -> Iterator[None]:
    """Turns whatever a download raises into one WeightsError that says what would do `instead`."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # it would print a dozen lines about its retries
    try:
        with asked_only_where_it_is():
            yield
    except Exception as error:  # every hub client has its own
        raise WeightsError(
            f"{what} could not be downloaded ({_first_line(error)}); without a network, {instead}; "
            "next: pcmci doctor looks whether the hub answers, pcmci demo needs no download"
        ) from error
    finally:
        hub.setLevel(level)


def _first_line(error: BaseException) -> str:
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {textwrap.shorten(line, 160, placeholder=' ...')}"
