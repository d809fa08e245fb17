"""What a run predicted, kept so that it can be scored again without training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from pcmci.errors import PcmciError


@dataclass(frozen=True)
class LabelPredictions:
    """One label set's part.

    names: [N] label names. background, unlabelled_last: see `pcmci.cache.schema.LabelSet`.
    logits: [m, N] float32, -inf for a video without features.
    target: [m] int32 for `activity` (-1: none), [m, N] uint8 for `steps`.
    q_train: [N, N] the co-prediction matrix of the training labels (steps; [0, 0] for activity).
    voices: [E] names of the head's voices, of its experts say; none in a head that has one opinion.
    said: [m, E, N] float32, the logits of each. disagreement: [m] of the voices about a video, see
    `pcmci.heads.scoring.disagreement`; NaN where a video has no features or a head one voice.
    """

    names: tuple[str, ...]
    background: tuple[str, ...]
    unlabelled_last: bool
    logits: np.ndarray
    target: np.ndarray
    q_train: np.ndarray
    voices: tuple[str, ...] = ()
    said: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    disagreement: np.ndarray = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Predictions:
    """Every video that was scored, training videos excepted.

    ids, splits, sessions: [m]. present: [m] bool, whether the video had features.
    replaced: [m] int32, how many of its frames stand in for others (`Store.replaced`); None from a
    store that has none.
    """

    ids: np.ndarray
    splits: np.ndarray
    sessions: np.ndarray
    present: np.ndarray
    labels: dict[str, LabelPredictions]
    replaced: np.ndarray | None = None

    def save(self, path: Path) -> None:
        """Write an .npz of plain arrays: no pickle is needed to read it."""
        arrays = {
            "ids": self.ids,
            "splits": self.splits,
            "sessions": self.sessions,
            "present": self.present,
        }
        if self.replaced is not None:
            arrays["replaced"] = self.replaced
        for name, part in self.labels.items():
            arrays[f"{name}/names"] = np.array(part.names)
            arrays[f"{name}/background"] = np.array(part.background, dtype=str)
            arrays[f"{name}/unlabelled_last"] = np.array(part.unlabelled_last)
            arrays[f"{name}/logits"] = part.logits
            arrays[f"{name}/target"] = part.target
            arrays[f"{name}/q_train"] = part.q_train
            if part.voices:
                arrays[f"{name}/voices"] = np.array(part.voices)
                arrays[f"{name}/said"] = part.said
                arrays[f"{name}/disagreement"] = part.disagreement
        np.savez(path, **arrays)  # type: ignore[arg-type]  # (no objects: nothing is pickled)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Raises PcmciError where the file is missing or damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            label_sets = sorted({key.split("/")[0] for key in arrays if "/" in key})
            return cls(
                ids=arrays["ids"],
                splits=arrays["splits"],
                sessions=arrays["sessions"],
                present=arrays["present"],
                labels={
                    name: LabelPredictions(
                        names=tuple(arrays[f"{name}/names"].tolist()),
                        background=tuple(arrays[f"{name}/background"].tolist()),
                        unlabelled_last=bool(arrays[f"{name}/unlabelled_last"]),
                        logits=arrays[f"{name}/logits"],
                        target=arrays[f"{name}/target"],
                        q_train=arrays[f"{name}/q_train"],
                        **_voices(arrays, name),
                    )
                    for name in label_sets
                },
                replaced=arrays.get("replaced"),
            )
        except (OSError, EOFError, BadZipFile, ValueError, KeyError, TypeError) as error:
            raise PcmciError(f"{path}: predictions cannot be read: {error}") from error


def _voices(arrays: dict[str, np.ndarray], name: str) -> dict[str, Any]:
    """What a file says of them: nothing where the head has none, or where it is from before."""
    if f"{name}/voices" not in arrays:
        return {}
    return {
        "voices": tuple(arrays[f"{name}/voices"].tolist()),
        "said": arrays[f"{name}/said"],
        "disagreement": arrays[f"{name}/disagreement"],
    }
