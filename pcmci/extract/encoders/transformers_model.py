"""Models of the transformers library: built without memory, filled with a state, without a word.

The library is an extra and takes a second to import, so that it is imported where it is used.
"""

from __future__ import annotations

import copy
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from pcmci.errors import WeightsError
from pcmci.extract.encoders.config_file import read_json

State = dict[str, torch.Tensor]

LIBRARIES = ("transformers",)
"""What the features of such a model pass through."""


@contextmanager
def quiet() -> Iterator[None]:
    """What the library would warn of stays off the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging = import_module("transformers.utils.logging")
        level = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            yield
        finally:
            logging.set_verbosity(level)


def transformers_class(kind: str, name: str) -> Any:
    """A class by its name. name: the model's that needs it.

    Raises WeightsError where the library is not there, or too old to have it.
    """
    if find_spec("transformers") is None:
        raise WeightsError(f"{name} needs transformers: pip install 'pcmci[hf]'")
    with quiet():
        try:
            return getattr(import_module("transformers"), kind)
        except (AttributeError, ImportError, RuntimeError) as error:
            raise WeightsError(
                f"{name} needs a transformers with {kind}: pip install -U 'pcmci[hf]'"
            ) from error


def read_config(path: Path, model_type: str, name: str) -> dict[str, Any]:
    """A `config.json`. Raises WeightsError unless it is of the model's type."""
    raw = read_json(path)
    if raw.get("model_type") != model_type:
        raise WeightsError(
            f"config {path}: model_type is {raw.get('model_type')!r}, {name} needs {model_type!r}"
        )
    return raw


def config_of(kind: str, raw: Mapping[str, Any], name: str) -> Any:
    """The config of a class `kind` with these values, the library's own for what is not said.

    Raises WeightsError for a value that it does not take.
    """
    configs = transformers_class(kind, name)
    with quiet():
        try:
            return configs.from_dict(copy.deepcopy(dict(raw)))
        except Exception as error:  # whatever a config can get wrong
            raise WeightsError(f"{name} cannot be built: {_reason(error)}") from error


def require_same_values(
    found: Any, needed: Any, keys: Iterable[str], weights: str, name: str
) -> None:
    """Raises WeightsError unless two configs agree in all keys, such as `vision_config.patch_size`:
    in what the shapes of the weights do not tell."""
    for key in keys:
        has, needs = (reduce(getattr, key.split("."), config) for config in (found, needed))
        if has != needs:
            raise WeightsError(f"{weights} has {key} {has}, {name} needs {needs}")


def require_whole(value: Any, key: str, name: str) -> int:
    """Raises WeightsError unless a config's value is a positive whole number."""
    if type(value) is not int or value < 1:
        raise WeightsError(f"{name}: {key} is {value!r}, no positive number")
    return value


def empty(kind: str, config: Any, name: str) -> Any:
    """A module of a class without memory for its parameters. Raises WeightsError for sizes that it
    cannot have."""
    build = transformers_class(kind, name)
    with quiet(), torch.device("meta"):
        try:
            return build(config)
        except Exception as error:
            raise WeightsError(f"{name} cannot be built: {_reason(error)}") from error


def fill(model: torch.nn.Module, state: Mapping[str, torch.Tensor], name: str) -> None:
    """The tensors become the module's parameters, without a copy.

    state: of exactly the module's names and shapes. Raises WeightsError for a module with something
    that no checkpoint has: another version of the library made it.
    """
    model.load_state_dict(state, assign=True)
    for path, buffer in list(model.named_buffers()):
        owner, _, last = path.rpartition(".")
        if last == "position_ids":  # they are counted, not trained
            positions = torch.arange(buffer.shape[-1]).expand(buffer.shape)
            model.get_submodule(owner).register_buffer(last, positions, persistent=False)
        elif buffer.is_meta:
            raise WeightsError(f"{name}: this version of transformers is not known: it has {path}")


def _reason(error: BaseException) -> str:
    """In one line."""
    said = textwrap.shorten(str(error), 200, placeholder=" ...")
    return said or type(error).__name__
