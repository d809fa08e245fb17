"""What a feature store holds: the contract between the two phases.

Frozen dataclasses, JSON in and out, and the fingerprint that decides what may be reused. Nothing
here knows torch, a file format or a data set.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pcmci.cache.planted import Planted
from pcmci.cache.replaced import FAIL
from pcmci.cache.windows import UNIFORM
from pcmci.errors import StoreError

FORMAT_VERSION = 3
"""The newest that this program reads. A spec has the least one that can say what it says, so that
older programs go on with every store that they understand."""

NO_VLM = "none"
"""The name of the VLM in a store of imported features that has no such half."""

IMPORTED = "imported"
"""Stands for how frames were resized, where nobody here knows it."""

LABEL_SETS = ("activity", "steps")
"""`activity`: one label a video. `steps`: several labels a video."""

FEATURES = ("vlm", "video")
"""`vlm`: the VLM's frame embeddings. `video`: the VLM-independent encoder's tokens."""


def since(version: int, default: Any) -> Any:
    """A field that format `version` brought. At its default a spec's JSON is without it: stores
    made before keep their fingerprint, and those that do not use it their format."""
    return field(default=default, metadata={"since": version})


def entities_of(labels: str) -> str:
    """The name under which the embeddings of a label set's entities are kept."""
    return f"{labels}-entities"


class Status(enum.IntEnum):
    """What became of a video. Written after its features: done means on disk."""

    PENDING = 0
    DONE = 1
    FAILED = 2
    MISSING = 3


@dataclass(frozen=True)
class LabelSet:
    """The labels of one kind, keyed by name.

    names: [N] unique keys, as the annotation spells them.
    texts: [N] the same made readable for a text encoder ("pour dough to pan").
    template: the prompt, with one `{}` where the text goes.
    background: names that mean "nothing happens" (Breakfast's SIL); a score without them is
        reported beside the headline.
    unlabelled_last: videos without any of these labels rank last in every average precision
        (the official Charades rule).
    entities: [M] nouns of the texts ("pan"), embedded beside the prompts as they stand, for heads
        that look for things; whoever made the store gave the words.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    template: str
    background: tuple[str, ...] = ()
    unlabelled_last: bool = False
    entities: tuple[str, ...] = since(2, ())

    def __post_init__(self) -> None:
        if len(self.names) != len(self.texts):
            raise ValueError(f"{len(self.names)} names but {len(self.texts)} texts")
        if len(set(self.names)) != len(self.names):
            raise ValueError("label names are not unique")
        if len(set(self.entities)) != len(self.entities):
            raise ValueError("entities are not unique")
        if self.template.count("{}") != 1:
            raise ValueError(f"template {self.template!r} needs exactly one {{}}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def prompts(self) -> tuple[str, ...]:
        """[N] what the text encoder reads."""
        return tuple(self.template.format(text) for text in self.texts)


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are taken.

    frames: L, spread uniformly: the middle of each of L equal parts of the video.
    views: K temporally shifted samplings; view 0 is the uniform one.
    """

    frames: int = 16
    views: int = 1


@dataclass(frozen=True)
class Preprocessing:
    """From an upright RGB frame to an encoder's input.

    The shorter side is resized to `resize` pixels, or, where `resize_mode` is `squash` and not
    `shortest`, both sides are, whatever their ratio; the middle `size` x `size` is cut out; values
    are scaled to [0, 1], then normalised with `mean` and `std` a channel.
    """

    resize: int
    size: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize_mode: str = since(2, "shortest")


@dataclass(frozen=True)
class EncoderSpec:
    """A frozen encoder, exactly enough to make it again.

    name: as the registry, open_clip or the hub spells it.
    weights: where they came from, as the user gave it (`openai`, `random:0`, a path, a hub id).
    sha256: of the loaded tensors, so that a moved file is the same and a changed one is not.
    tokens: vectors a view (L or Lv). width: of each (D or Dv).
    parameters: how many numbers the encoder has, all of them frozen.
    labels_seen: data sets whose own labels these weights were trained on (`coin`): a score on one
        of them is none of a stranger's features, and has to say so.
    windows: `uniform`, where its clips are cut out of a view's L frames; `dense`, where around each
        of them it sees a clip as it was trained on, and its token is the mean over that.
    stride: of dense windows, frames at 30 a second from one of a clip to the next.
    """

    name: str
    weights: str
    sha256: str
    tokens: int
    width: int
    preprocessing: Preprocessing
    parameters: int
    labels_seen: tuple[str, ...] = since(2, ())
    windows: str = since(2, UNIFORM)
    stride: int = since(2, 0)

    @property
    def is_imported(self) -> bool:
        """Whether its features were made elsewhere (`pcmci import`): nothing here makes them."""
        return self.preprocessing.interpolation == IMPORTED


@dataclass(frozen=True)
class StoreSpec:
    """Everything that a feature depends on. Two stores with the same spec are the same store.

    videos_sha256: digest of the video table (ids, splits, targets), see `VideoTable.digest`.
    libraries: versions of the decoder and the libraries that computed the features.
    format_version: at least the one that its fields need.
    damaged: `fail`, or `frames`: in a damaged video, frames that cannot be decoded are replaced,
        and its reason says how many (`pcmci.cache.replaced`).
    planted: a confounder that was added to the features on purpose; None in a store that is as it
        was extracted or imported.
    """

    dataset: str
    activity: LabelSet | None
    steps: LabelSet | None
    sampling: Sampling
    vlm: EncoderSpec
    video: EncoderSpec
    precision: str
    libraries: dict[str, str]
    videos_sha256: str
    format_version: int = 1
    damaged: str = since(2, FAIL)
    planted: Planted | None = since(3, None)  # noqa: RUF009  # frozen, as the others are

    def __post_init__(self) -> None:
        object.__setattr__(self, "format_version", max(self.format_version, _needed(self)))

    def labels(self, name: str) -> LabelSet:
        """The label set `activity` or `steps`. Raises StoreError where the store has none."""
        if name not in LABEL_SETS:
            raise StoreError(f"no label set is called {name!r}; there are {', '.join(LABEL_SETS)}")
        labels: LabelSet | None = getattr(self, name)
        if labels is None:
            raise StoreError(f"data set {self.dataset!r} has no {name} labels")
        return labels

    @property
    def label_sets(self) -> tuple[str, ...]:
        """The names of the label sets that this store has."""
        return tuple(name for name in LABEL_SETS if getattr(self, name) is not None)

    @property
    def texts(self) -> dict[str, tuple[str, ...]]:
        """What the VLM's text encoder reads, by the name under which its embeddings are kept: the
        prompts of a label set under the set's own, its entities under that of `entities_of`."""
        found = {name: self.labels(name).prompts for name in self.label_sets}
        more = {entities_of(name): self.labels(name).entities for name in self.label_sets}
        return found | {name: words for name, words in more.items() if words}

    def to_json(self) -> str:
        """Canonical: the same spec gives the same text. What came later is left out where it says
        nothing, so that fingerprints stay."""
        return json.dumps(_plain(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> StoreSpec:
        """Raises StoreError for a store of a newer format, or a text that is no spec."""
        try:
            raw = json.loads(text)
            version = int(raw["format_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"the store's spec cannot be read: {error}") from error
        if version > FORMAT_VERSION:
            raise StoreError(
                f"the store has format {version}, this program reads up to {FORMAT_VERSION}: "
                "upgrade pcmci"
            )
        try:
            return cls(
                **{
                    **raw,
                    "activity": _label_set(raw["activity"]),
                    "steps": _label_set(raw["steps"]),
                    "sampling": Sampling(**raw["sampling"]),
                    "vlm": _encoder(raw["vlm"]),
                    "video": _encoder(raw["video"]),
                    "planted": Planted(**raw["planted"]) if raw.get("planted") else None,
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"the store's spec is damaged: {error}") from error

    @property
    def fingerprint(self) -> str:
        """sha256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def differences(self, asked: StoreSpec, how: str = "asked for") -> list[str]:
        """Every field that differs, as `vlm.name: the store has 'ViT-B-16', asked for 'RN50'`.

        how: says what the other one is, in place of "asked for".

        Where weights came from, and what is known of their training, is no difference: their
        sha256 tells them apart. Nor is the folder in which an encoder's config lies.
        """
        # As JSON has them: tuples are lists there.
        ours, theirs = (_flatten(json.loads(json.dumps(asdict(one)))) for one in (self, asked))
        absent = "nothing"
        told_otherwise = ("weights", "labels_seen", "format_version")
        return [
            f"{key}: the store has {_shown(ours.get(key, absent))}, "
            f"{how} {_shown(theirs.get(key, absent))}"
            for key in sorted(ours.keys() | theirs.keys())
            if _named(ours.get(key, absent)) != _named(theirs.get(key, absent))
            and key.rpartition(".")[2] not in told_otherwise
        ]


@dataclass(frozen=True)
class VideoTable:
    """One row a video, in the order of the store's rows.

    ids, splits: [n].
    sessions: [n] what to resample for a confidence interval (Breakfast: person and activity, for
        several cameras film one session); elsewhere the video itself.
    groups: [n] what must not be torn apart by a validation split (Breakfast: the person);
        elsewhere the video itself.
    activity: [n] int32, index into the activity labels, -1 for none.
    steps: [n, N] uint8, 1 where the step occurs in the video. N = 0 without step labels.
    """

    ids: tuple[str, ...]
    splits: tuple[str, ...]
    sessions: tuple[str, ...]
    groups: tuple[str, ...]
    activity: np.ndarray = field(repr=False)
    steps: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        n = len(self.ids)
        for name in ("splits", "sessions", "groups", "activity", "steps"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{n} ids but {len(getattr(self, name))} {name}")
        if len(set(self.ids)) != n:
            raise ValueError("video ids are not unique")

    def __len__(self) -> int:
        return len(self.ids)

    def digest(self) -> str:
        """sha256 over every row: another annotation is another store."""
        sha = hashlib.sha256()
        rows = [self.ids, self.splits, self.sessions, self.groups]
        sha.update(json.dumps(rows, ensure_ascii=False).encode())
        sha.update(np.ascontiguousarray(self.activity, dtype="<i4").tobytes())
        sha.update(np.ascontiguousarray(self.steps, dtype="u1").tobytes())
        return sha.hexdigest()


def _label_set(raw: dict[str, Any] | None) -> LabelSet | None:
    if raw is None:
        return None
    lists = {key: tuple(raw[key]) for key in ("names", "texts", "background")}
    lists["entities"] = tuple(raw.get("entities", ()))
    return LabelSet(**{**raw, **lists})


def _encoder(raw: dict[str, Any]) -> EncoderSpec:
    pre = raw["preprocessing"]
    pre = Preprocessing(**{**pre, "mean": tuple(pre["mean"]), "std": tuple(pre["std"])})
    seen = tuple(raw.get("labels_seen", ()))
    return EncoderSpec(**{**raw, "preprocessing": pre, "labels_seen": seen})


def _plain(value: Any) -> Any:
    """A dataclass as a dict, without the fields of `since` that have their default."""
    if not dataclasses.is_dataclass(value):
        return value
    return {
        one.name: _plain(getattr(value, one.name))
        for one in dataclasses.fields(value)
        if "since" not in one.metadata or getattr(value, one.name) != one.default
    }


def _needed(value: Any) -> int:
    """The least format that has a place for what a dataclass says."""
    if not dataclasses.is_dataclass(value):
        return 1
    own = [
        one.metadata["since"]
        for one in dataclasses.fields(value)
        if "since" in one.metadata and getattr(value, one.name) != one.default
    ]
    inner = [_needed(getattr(value, one.name)) for one in dataclasses.fields(value)]
    return max(1, *own, *inner)


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flatten(inner, f"{prefix}.{key}" if prefix else key)
    return flat


def _named(value: Any) -> Any:
    """A config's file or folder without the folder that it lies in: a path is no identity."""
    if isinstance(value, str) and (value.endswith(".json") or value.startswith("local-dir:")):
        return value.rpartition(":")[2].rpartition("/")[2]
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
