"""The rows of an ablation, read back from its folder: what its page is made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from pcmci.errors import PcmciError, UsageError

Row = dict[str, Any]

NEEDED = ("results", "summary")
WHOLE = "ich,ici,ivc"
"""The paper's own order."""


@dataclass(frozen=True)
class Rows:
    """tables: name -> rows. matrices: of coprediction.npz. facts: of sweep.json."""

    tables: dict[str, list[Row]]
    matrices: dict[str, np.ndarray]
    facts: dict[str, Any]

    @cached_property
    def summary(self) -> list[Row]:
        return self.tables["summary"]

    @property
    def reference(self) -> str:
        """The name of the variant that the others are compared with."""
        return str(self.facts["reference"])

    @cached_property
    def variants(self) -> list[str]:
        """In the order asked for."""
        return list(dict.fromkeys(row["variant"] for row in self.tables["results"]))

    @cached_property
    def stores(self) -> dict[str, dict[str, Any]]:
        """What is known of each store by its name, which is "" of a single one. What ablations of
        one store said before there could be several stands among the facts."""
        whole = {"path": self.facts["store"], **self.facts}
        return {
            name: one if "counts" in one else whole | one
            for name, one in self.facts.get("stores", {"": {}}).items()
        }

    @property
    def shown(self) -> list[str]:
        """The reference, and the paper's own order or the last: what stands side by side."""
        others = [name for name in self.variants if name != self.reference]
        whole = [name for name in others if name.split(" ")[0] == WHOLE]
        return [self.reference, *(whole or others[-1:])[:1]]

    def scores(self) -> list[str]:
        """Acc, mAP, ODD: those that there are."""
        return list(dict.fromkeys(row["score"] for row in self.summary))


def read_rows(folder: Path) -> Rows:
    """Raises UsageError where there are none, PcmciError where they cannot be read."""
    if not (folder / "sweep.json").is_file():
        raise UsageError(
            f"{folder} is no ablation: it has no sweep.json; next: pcmci ablate makes one"
        )
    try:
        tables = {
            file.stem: pa.parquet.read_table(file).to_pylist()
            for file in sorted(folder.glob("*.parquet"))
        }
        with np.load(folder / "coprediction.npz", allow_pickle=False) as file:
            matrices = dict(file)
        facts = json.loads((folder / "sweep.json").read_text())
        return Rows({name: tables.pop(name) for name in NEEDED} | tables, matrices, facts)
    except (OSError, ValueError, KeyError, BadZipFile, pa.ArrowException) as error:
        raise PcmciError(f"{folder}: the rows cannot be read: {error}") from error
