"""What decides, besides the store, what a run finds: its settings, its precision, its device.

From a recipe and a store's content come the name of the run's folder, and whether two runs can be
trained as one stack.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import subprocess
import time
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pcmci.cache.store import Store
from pcmci.heads.catalogue import DEFAULT, head_config, head_name
from pcmci.heads.config import ModelConfig, TrainConfig, order_name
from pcmci.heads.settings import HeadConfig, recorded
from pcmci.heads.training.folders import RUN_FORMAT
from pcmci.heads.training.splits import is_shared_out


@dataclass(frozen=True)
class Recipe:
    """model: the head's settings. precision: fp32 or bf16. device: its type, cpu or cuda."""

    model: HeadConfig
    train: TrainConfig
    precision: str
    device: str

    @property
    def head(self) -> str:
        """Its name."""
        return head_name(self.model)

    @property
    def order(self) -> tuple[str, ...]:
        """The stages, where the head has such."""
        return self.model.order if isinstance(self.model, ModelConfig) else ()

    @property
    def name(self) -> str:
        """`ich,ici` or `mlp`: the order where the head has such, else the head."""
        return order_name(self.order) if self.head == DEFAULT else self.head

    @property
    def _chosen(self) -> dict[str, Any]:
        """What is recorded of head and training. The head that was there first has no name, so
        that runs made before keep their keys."""
        name = {} if self.head == DEFAULT else {"head": self.head}
        return {**name, "model": recorded(self.model), "train": recorded(self.train)}

    def key(self, store: Store) -> str:
        """The same key means the same run, up to the rounding of another machine."""
        content: dict[str, Any] = {
            "format": RUN_FORMAT,
            "content_digest": store.content_digest,
            **self._chosen,
            "precision": self.precision,
            "device": self.device,
        }
        if self.train.validation and _is_shared_out(store, self.train.validation):
            content["validation"] = "shared out"  # what was trained before had another split
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def folder_name(self, store: Store) -> str:
        """Readable in front, unique at the end."""
        model = self.name.replace(",", "-")
        labels = "+".join(self.train.labels)
        seed = self.train.seed
        return f"{file_name(store)}_{labels}_{model}_seed{seed}_{self.key(store)[:8]}"

    @property
    def stack_key(self) -> Recipe:
        """Equal for runs that can be trained as one stack: the recipe without what may differ.

        That is the seed, the numbers of the optimiser, and what `HeadConfig.alike` leaves out.
        """
        train = dataclasses.replace(
            self.train, seed=0, lr=1.0, weight_decay=0.0, warmup=0.0, clip=1.0
        )
        return dataclasses.replace(self, model=self.model.alike, train=train)

    def record(self, store: Store, device: torch.device, stack: int) -> dict[str, Any]:
        """What a run's config.json says. stack: how many runs were trained together."""
        return {
            "format": RUN_FORMAT,
            "key": self.key(store),
            **self._chosen,
            "store": {
                "path": str(store.path),
                "fingerprint": store.fingerprint,
                "content_digest": store.content_digest,
                "spec": json.loads(store.spec.to_json()),
            },
            "machine": {
                "device": str(device),
                "precision": self.precision,
                "threads": torch.get_num_threads(),
                "stack": stack,
                "torch": torch.__version__,
                "pcmci": version("pcmci"),
                "commit": commit(),
            },
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


def file_name(store: Store) -> str:
    """The data set's name as a part of a file's: a store from a stranger may call it `../x`."""
    return re.sub(r"[^\w-]", "-", store.spec.dataset)[:100]


def model_config(record: dict[str, Any]) -> HeadConfig:
    """The head's settings from what a run's config.json says."""
    return head_config(record.get("head", DEFAULT), record["model"])


@cache
def commit() -> str | None:
    """The commit of the code that runs, `-dirty` where it was changed since; None where it was
    installed without its repository."""
    here = Path(__file__).parents[3]
    if not (here / ".git").exists():
        return None
    command = [
        "git",
        "-C",
        str(here),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


@lru_cache(maxsize=32)
def _is_shared_out(store: Store, share: float) -> bool:
    """A sweep asks for each run's key many times, and what a store says of splits stays."""
    return is_shared_out(np.array(store.splits), np.array(store.groups), store.activity, share)
