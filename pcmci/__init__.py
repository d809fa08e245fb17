"""PCMCI: progressive cross-modal causal intervention for long-term action recognition.

    store = pcmci.open_store("features/coin.zarr")
    run = pcmci.train_heads(store, order=("ich", "ici", "ivc"), seed=0)
    run.metrics["test"]["Acc"]
    table = pcmci.ablate(store, orders="all", seeds=5)

Importing this package loads no torch; the names below load what they need when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pcmci.errors import PcmciError

if TYPE_CHECKING:
    __version__: str
    from pcmci.cache.store import open_store as open_store
    from pcmci.extract.datasets import load_dataset as load_dataset
    from pcmci.extract.pipeline import extract as extract
    from pcmci.heads.ablation.ablate import ablate as ablate
    from pcmci.heads.training.run import load_run as load_run
    from pcmci.heads.training.run import train_heads as train_heads

_HOMES = {
    "ablate": "pcmci.heads.ablation.ablate",
    "extract": "pcmci.extract.pipeline",
    "load_dataset": "pcmci.extract.datasets",
    "load_run": "pcmci.heads.training.run",
    "open_store": "pcmci.cache.store",
    "train_heads": "pcmci.heads.training.run",
}

__all__ = ["PcmciError", "__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("pcmci")
    if name not in _HOMES:
        raise AttributeError(f"module 'pcmci' has no attribute {name!r}")
    if name == "extract":  # a folder too, which Python puts in this place as soon as it is imported
        return import_module("pcmci.extract")
    return getattr(import_module(_HOMES[name]), name)
