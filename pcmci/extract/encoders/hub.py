"""Where a model's weights lie: a file, a Hugging Face folder, an id on its hub, or the package."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pcmci.errors import WeightsError
from pcmci.extract.config import AUTO, OWN, SHIPPED
from pcmci.extract.encoders.weights import SUFFIXES, downloading

HUB_ID = r"[\w.-]+/[\w.-]+"

HUB_FILE = rf"hf-hub:({HUB_ID})/(.+)"
"""One file of a repository that holds many models."""


@dataclass(frozen=True)
class Checkpoint:
    """config: what lies beside the weights in a folder or on the hub; None for a file alone.
    repository: the hub id that they came from."""

    file: Path
    config: Path | None
    repository: str | None = None


def find_checkpoint(
    weights: str, name: str, *, example: str, own: Path | None = None
) -> Checkpoint:
    """What `weights` stand for, downloaded where they must be.

    name: the model's. example: a hub id of its family, for who gives something else. own: the file
    that comes with the package, for the model that has one.
    Raises WeightsError where there is nothing.
    """
    if weights == OWN and own is None:
        raise WeightsError(
            f"{name} brings no weights of its own, only {SHIPPED} does: use a checkpoint, a "
            "Hugging Face folder or hub id, or random:0"
        )
    if weights == AUTO:
        raise WeightsError(
            f"which weights of {name}? a checkpoint ({', '.join(SUFFIXES)}), a Hugging Face folder "
            f"or hub id ({example}), or random:0"
        )
    one = re.fullmatch(HUB_FILE, weights)
    if one:
        return Checkpoint(file_on_hub(one[1], one[2]), None)
    path = own if own and weights == OWN else Path(weights)
    if path.is_dir():
        return in_folder(path)
    if path.exists() or path.suffix in SUFFIXES:
        return Checkpoint(path, None)
    if re.fullmatch(HUB_ID, weights):
        return on_hub(weights)
    raise WeightsError(
        f"weights {weights!r} of {name} are neither a checkpoint ({', '.join(SUFFIXES)}), a "
        f"Hugging Face folder or hub id ({example}), nor random:0"
    )


def in_folder(folder: Path) -> Checkpoint:
    """Raises WeightsError unless config and weights are both there."""
    config = folder / "config.json"
    for file in (folder / "model.safetensors", folder / "pytorch_model.bin"):
        if file.is_file() and config.is_file():
            return Checkpoint(file, config)
    raise WeightsError(
        f"folder {folder} needs config.json and model.safetensors or pytorch_model.bin"
    )


INSTEAD = "give a folder with its config.json and model.safetensors, or random:0"


def on_hub(repository: str) -> Checkpoint:
    """Weights and config of a hub id, from the local cache where they are there."""
    from huggingface_hub import hf_hub_download  # only here: it takes a moment to import
    from huggingface_hub.utils import EntryNotFoundError

    with downloading(f"weights {repository!r}", INSTEAD):
        config = hf_hub_download(repository, "config.json")
        try:
            file = hf_hub_download(repository, "model.safetensors")
        except EntryNotFoundError:
            file = hf_hub_download(repository, "pytorch_model.bin")
    return Checkpoint(Path(file), Path(config), repository)


def file_on_hub(repository: str, file: str) -> Path:
    """A file of a hub id alone, likewise."""
    from huggingface_hub import hf_hub_download

    with downloading(
        f"{file} of {repository!r}", "fetch it by hand and give its path, or random:0"
    ):
        return Path(hf_hub_download(repository, file))


def config_on_hub(repository: str) -> Path:
    """The `config.json` of a hub id alone, likewise."""
    from huggingface_hub import hf_hub_download

    with downloading(f"the config of {repository!r}", "give the path of its config.json"):
        return Path(hf_hub_download(repository, "config.json"))


def vocabulary_on_hub(repository: str) -> Path:
    """The `vocab.txt` of a hub id alone, likewise."""
    from huggingface_hub import hf_hub_download

    instead = "put vocab.txt beside the weights or a JSON config"
    with downloading(f"the vocabulary of {repository!r}", instead):
        return Path(hf_hub_download(repository, "vocab.txt"))


def require_same(found: Any, needed: Any, weights: str, name: str) -> None:
    """Raises WeightsError unless a checkpoint's config, a dataclass, is the model's."""
    for field in fields(needed):
        has, needs = getattr(found, field.name), getattr(needed, field.name)
        if has != needs:
            raise WeightsError(f"{weights} has {field.name} {has}, {name} needs {needs}")
