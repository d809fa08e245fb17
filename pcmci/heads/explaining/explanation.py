"""Why a run says what it says of a video: all numbers of a page, as plain values that JSON has.

What a head does not have is `absent`, with the reason in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcmci.cache.store import Store
from pcmci.errors import UsageError
from pcmci.heads.comparators.experts import Experts
from pcmci.heads.config import TransportConfig, order_name
from pcmci.heads.explaining.mistakes import THRESHOLD
from pcmci.heads.explaining.nearest import compared_by, cosines, embedding, nearest
from pcmci.heads.explaining.walk import Walk, learned_alignment, logits, looks, walk
from pcmci.heads.head import Head
from pcmci.heads.method.model import PCMCI
from pcmci.heads.method.transport import Aligned, align
from pcmci.heads.scoring.disagreement import disagreement
from pcmci.heads.scoring.scores import sigmoid, softmax
from pcmci.heads.training.recipe import model_config
from pcmci.heads.training.run import Run


@dataclass(frozen=True)
class Subject:
    """A video to explain. name: its id, or a file's path. vlm: [L, D], video: [Lv, Dv], as a store
    has them. row: in the store, None of a file. split: of the store, "" of a file. true: label set
    -> names of its labels, where they are known. twins: others like it, themselves without."""

    name: str
    vlm: np.ndarray
    video: np.ndarray
    row: int | None = None
    split: str = ""
    true: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    twins: tuple[Subject, ...] = ()


def check_store(run: Run, store: Store) -> str:
    """What has to be said of a store that a run is explained with: "" where it is the run's own.

    Raises UsageError where it has other features.
    """
    trained_on = run.config["store"]
    if store.fingerprint != trained_on["fingerprint"]:
        raise UsageError(
            f"{store.path} is not the store that {run.path} was trained on (fingerprint "
            f"{store.fingerprint[:12]}, the run's is {trained_on['fingerprint'][:12]}); "
            "--features names another"
        )
    if store.content_digest == trained_on["content_digest"]:
        return ""
    return (
        f"{store.path} has changed since the run was trained: some of its videos have features now "
        "that they did not have, or have others"
    )


def subjects(store: Store, families: Mapping[str, Sequence[str]]) -> list[Subject]:
    """Videos of a store by their ids, each with those that are like it.

    Raises UsageError for an id that the store does not have, and for a video without features; a
    twin without is left out.
    """
    row_of = {video: row for row, video in enumerate(store.ids)}
    done = set(store.done_rows.tolist())

    def subject(name: str, others: Sequence[str]) -> Subject:
        row = row_of[name]
        like_it = tuple(subject(other, ()) for other in others if row_of[other] in done)
        vlm, video = (store.read(array, [row], view=0)[0] for array in ("vlm", "video"))
        return Subject(name, vlm, video, row, store.splits[row], _true(store, row), like_it)

    for name in families:
        if name not in row_of:
            raise UsageError(
                f"{name!r} is no file, and no video of {store.path}; pcmci explain RUN --split "
                "test takes those of a split"
            )
        if row_of[name] not in done:
            reason = store.reasons[row_of[name]] or "pending"
            raise UsageError(f"{name} has no features in {store.path}: {reason}")
    return [subject(name, others) for name, others in families.items()]


def _true(store: Store, row: int) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    spec = store.spec
    if spec.activity is not None and store.activity[row] >= 0:
        found["activity"] = (spec.activity.names[int(store.activity[row])],)
    if spec.steps is not None:
        names = tuple(spec.steps.names[k] for k in np.flatnonzero(store.steps[row]))
        if names or not spec.steps.unlabelled_last:
            found["steps"] = names
    return found


def explain(
    run: Run,
    videos: Sequence[Subject],
    store: Store | None = None,
    *,
    device: torch.device | str = "cpu",
    top: int = 5,
    neighbours: int = 5,
    memory: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """What a run made of each video, label set by label set.

    store: the run's, for the training videos that look like it; without one they are absent. top:
    the likeliest labels that are `shown` beside the true ones. neighbours: training videos.
    memory: bytes for features.
    """
    found: list[dict[str, Any]] = [
        {
            "video": video.name,
            "split": video.split or None,
            "labels": {},
            "twins": [{"video": t.name, "split": t.split, "labels": {}} for t in video.twins],
        }
        for video in videos
    ]
    transport = model_config(run.config).frozen_transport
    models = run.models(device)
    for labels, head in models.items():
        names = run.spec.labels(labels).names
        asking = [_Asked(head, names, transport, video) for video in videos]
        like = _neighbours(run, head, store, asking, neighbours, memory, progress)
        for entry, asked, nearby in zip(found, asking, like, strict=True):
            entry["labels"][labels] = asked.explained(top)
            _keep(entry["labels"][labels], "nearest", nearby)
            for twin, other in zip(asked.subject.twins, entry["twins"], strict=True):
                other["labels"][labels] = _Asked(head, names, transport, twin).answered()
    _compare_with_saved(run, videos, found)
    return {
        "run": str(run.path),
        "head": run.described,
        "labels": {labels: list(run.spec.labels(labels).names) for labels in models},
        "videos": found,
    }


class _Asked:
    """A head and a video: what is asked of both is computed once."""

    def __init__(
        self,
        head: Head,
        names: tuple[str, ...],
        transport: TransportConfig | None,
        subject: Subject,
    ) -> None:
        self.head, self.names, self.transport, self.subject = head, names, transport, subject
        self.vlm, self.video = (
            torch.from_numpy(x)[None].float().to(head.text.device)
            for x in (subject.vlm, subject.video)
        )
        self.frozen: Aligned | None = None
        self.walk: Walk | None = None
        with torch.inference_mode():
            if transport is not None:
                self.frozen = align(head.text[None], self.vlm, transport, exact=True)
            weights = None if self.frozen is None else self.frozen.weights
            self.opinions = head.opinions(self.vlm, self.video, weights, None)
            self.logits = _plain(head.answer(self.opinions)[0])
            self.embedding = embedding(head, self.vlm, self.video, weights)
            if isinstance(head, PCMCI):
                self.walk = walk(head, self.vlm, self.video, weights)

    @property
    def one_label(self) -> bool:
        return self.head.labels == "activity"

    def probabilities(self, of: np.ndarray) -> list[float]:
        """Of logits [N]."""
        found: list[float] = (softmax if self.one_label else sigmoid)(of).tolist()
        return found

    def answered(self) -> dict[str, Any]:
        """The answer, the truth and the path, without what it looks like inside."""
        p = self.probabilities(self.logits)
        true = self.subject.true.get(self.head.labels)
        if self.one_label:
            said = [self.names[int(np.argmax(p))]]
        else:
            said = [name for name, of in zip(self.names, p, strict=True) if of >= THRESHOLD]
        found: dict[str, Any] = {
            "true": None if true is None else list(true),
            "said": said,
            "right": None if true is None else set(said) == set(true),
            "logits": self.logits.tolist(),
            "probabilities": p,
            "absent": {},
        }
        _keep(found, "path", self._path())
        return found

    def explained(self, top: int) -> dict[str, Any]:
        """All but the training videos."""
        found = self.answered()
        true = set(found["true"] or ())
        likeliest = np.argsort(-self.logits, kind="stable").tolist()
        shown = [k for place, k in enumerate(likeliest) if place < top or self.names[k] in true]
        found["shown"] = [self.names[k] for k in shown]
        _keep(found, "alignment", self._alignment())
        _keep(found, "attention", self._attention(shown))
        _keep(found, "experts", self._experts())
        return found

    def _path(self) -> dict[str, Any] | str:
        head, taken = self.head, self.walk
        if not isinstance(head, PCMCI) or taken is None:
            return "This head has no stages that could be taken off."
        if not taken.stages:
            return "The order is none: there are no stages to take off."
        steps = [taken.stages[:k] for k in range(len(taken.stages) + 1)]
        without = {}
        with torch.inference_mode():
            after = [_plain(logits(head, taken, k)[0]) for k in range(len(steps))]
            for stage in taken.stages:
                kept = [name for name in taken.stages if name != stage]
                other = walk(head, self.vlm, self.video, taken.begun.weights, kept)
                without[stage] = _plain(logits(head, other)[0])
        return {
            "steps": [order_name(step) for step in steps],
            "logits": [one.tolist() for one in after],
            "probabilities": [self.probabilities(one) for one in after],
            "turns": self._turns(taken.stages, after),
            "without": {
                stage: {"logits": one.tolist(), "probabilities": self.probabilities(one)}
                for stage, one in without.items()
            },
        }

    def _turns(self, stages: Sequence[str], after: Sequence[np.ndarray]) -> list[dict[str, str]]:
        """Where a stage made another activity the likeliest, or carried a step over the
        threshold."""
        turns = []
        for stage, old, new in zip(stages, after[:-1], after[1:], strict=True):
            if self.one_label:
                was, now = (self.names[int(one.argmax())] for one in (old, new))
                if was != now:
                    turns.append({"stage": stage, "from": was, "to": now})
                continue
            before, later = (np.array(self.probabilities(one)) >= THRESHOLD for one in (old, new))
            for k in np.flatnonzero(before != later):
                came = {"from": "", "to": self.names[k]}
                went = {"from": self.names[k], "to": ""}
                turns.append({"stage": stage, **(came if later[k] else went)})
        return turns

    def _alignment(self) -> dict[str, Any] | str:
        transport, aligned = self.transport, self.frozen
        of = "the frozen text and the VLM's frames"
        if self.walk is not None and aligned is None:
            assert isinstance(self.head, PCMCI)  # what has a walk
            with torch.inference_mode():
                aligned = learned_alignment(self.head, self.walk)
            transport = self.head.config.transport
            of = "the text as ici left it and the VLM's frames, projected"
        if aligned is None or transport is None:
            if isinstance(self.head, PCMCI):
                return "S, P* and S~ are not there: the order has no ich."
            return "S, P* and S~ are not there: nothing in this head aligns labels with frames."
        return {
            "of": of,
            "temperature": transport.temperature,
            "lambda": transport.lam,
            "refine": transport.refine,
            "cosine": (_plain(aligned.log_s[0]) * transport.temperature).tolist(),
            "plan": None if aligned.plan is None else _plain(aligned.plan[0]).tolist(),
            "weights": _plain(aligned.weights[0]).tolist(),
        }

    def _attention(self, shown: Sequence[int]) -> dict[str, Any] | str:
        if self.walk is None or not isinstance(self.head, PCMCI):
            if isinstance(self.head, Experts):
                return "Not shown of experts, each of which has tokens of its own."
            return "Shown of the head pcmci alone."
        with torch.inference_mode():
            heads = _plain(looks(self.head, self.walk)[0])[:, list(shown)]
        return {
            "labels": [self.names[k] for k in shown],
            "tokens": self._tokens(self.head, self.walk),
            "mean": heads.mean(0).tolist(),
            "heads": heads.tolist(),
        }

    def _tokens(self, head: PCMCI, taken: Walk) -> list[dict[str, Any]]:
        """What the decoder attends to: labels (V*), or parts of the video, from 0 to 1 of it."""

        def parts(of: str, count: int) -> list[dict[str, Any]]:
            return [
                {"of": of, "name": str(k + 1), "from": k / count, "to": (k + 1) / count}
                for k in range(count)
            ]

        own, has_ivc = taken.begun.video.shape[1], "ivc" in taken.stages
        tokens = [{"of": "V*", "name": name} for name in self.names] if has_ivc else parts("V", own)
        if head.config.tokens == "both":
            tokens += parts("V", own) if has_ivc else parts("V^P", self.vlm.shape[1])
        return tokens

    def _experts(self) -> dict[str, Any] | str:
        if not self.head.voices:
            return "This head has one opinion, and no experts."
        with torch.inference_mode():
            said = _plain(self.head.said(self.opinions)[0])
        apart = float(disagreement(said[None], one_label=self.one_label)[0])
        return {
            "disagreement": None if np.isnan(apart) else apart,
            "voices": {
                voice: {"logits": one.tolist(), "probabilities": self.probabilities(one)}
                for voice, one in zip(self.head.voices, said, strict=True)
            },
        }


def _neighbours(
    run: Run,
    head: Head,
    store: Store | None,
    asking: Sequence[_Asked],
    count: int,
    memory: int | None,
    progress: bool,
) -> list[dict[str, Any] | str]:
    if store is None:
        return ["The run's store is not at hand; --features says where it lies."] * len(asking)
    if not asking:
        return []
    scored = set(run.predictions.ids.tolist())
    rows = np.array(
        [
            row
            for row in store.done_rows
            if store.ids[row] not in scored and _true(store, int(row)).get(head.labels)
        ],
        int,
    )
    found = cosines(
        head, store, rows, torch.cat([one.embedding for one in asking]), memory=memory,
        spare=run.path.parent / "plans", progress=progress,
    )  # fmt: skip
    return [
        {
            "by": compared_by(head),
            "videos": [
                {
                    "video": store.ids[rows[place]],
                    "cosine": float(found[place, k]),
                    "true": list(_true(store, int(rows[place])).get(head.labels, ())),
                }
                for place in nearest(found[:, k], rows, one.subject.row, count)
            ],
        }
        for k, one in enumerate(asking)
    ]


def _keep(found: dict[str, Any], name: str, part: dict[str, Any] | str) -> None:
    """A part of an explanation, or the reason why it is absent."""
    if isinstance(part, str):
        found["absent"][name] = part
    else:
        found[name] = part


def _compare_with_saved(
    run: Run, videos: Sequence[Subject], found: Sequence[dict[str, Any]]
) -> None:
    """How far each answer is from the one that the run saved: the largest difference of a
    probability, None where it saved none."""
    saved = run.predictions
    row_of = {str(video): row for row, video in enumerate(saved.ids)}
    for video, entry in zip(videos, found, strict=True):
        row = row_of.get(video.name) if video.row is not None else None
        for labels, part in entry["labels"].items():
            part["difference to saved"] = None
            if row is not None and saved.present[row]:
                say = softmax if labels == "activity" else sigmoid
                p = say(saved.labels[labels].logits[row].astype(np.float64))
                part["difference to saved"] = float(np.abs(p - part["probabilities"]).max())


def _plain(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().double().numpy()
    return array
