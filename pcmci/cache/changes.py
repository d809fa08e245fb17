"""How what is asked for differs from a store, in the words of whoever asks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from shlex import quote

import numpy as np

from pcmci.cache.schema import LABEL_SETS, LabelSet, StoreSpec, VideoTable

NAMED = 3
"""Videos or labels that a line names."""

ENCODERS = {"vlm": ("--vlm", "--vlm-weights"), "video": ("--video-encoder", "--video-weights")}

VIDEOS = ("videos_sha256", *LABEL_SETS)
"""Fields of a spec that `changed_videos` speaks of."""


def changed_videos(
    stored: StoreSpec, asked: StoreSpec, tables: tuple[VideoTable, VideoTable] | None
) -> list[str]:
    """What is otherwise with the videos and their labels. tables: the store's, and the one that is
    asked for."""
    lines = []
    if stored.videos_sha256 != asked.videos_sha256:
        lines += _videos(stored, asked, *tables) if tables else ["other videos, splits or labels"]
    for name in LABEL_SETS:
        lines += _label_set(name, getattr(stored, name), getattr(asked, name))
    return lines


def changed_settings(stored: StoreSpec, asked: StoreSpec) -> tuple[list[str], str]:
    """The settings that differ, and the flags that would ask for the store's."""
    lines = stored.differences(asked)
    lines = [line for line in lines if line.split(":")[0].split(".")[0] not in VIDEOS]
    flags = []
    for what, flag in (("frames", "--frames"), ("views", "--views")):
        if getattr(stored.sampling, what) != getattr(asked.sampling, what):
            flags.append(f"{flag} {getattr(stored.sampling, what)}")
    if stored.video.windows != asked.video.windows:
        flags.append(f"--windows {stored.video.windows}")  # stride and tokens follow from that
        lines = [x for x in lines if not x.startswith(("video.stride:", "video.tokens:"))]
    if stored.sampling.frames != asked.sampling.frames:  # how many tokens follows from that
        lines = [line for line in lines if not line.split(":")[0].endswith(".tokens")]
    for name, (flag, weights_flag) in ENCODERS.items():
        ours, theirs = getattr(stored, name), getattr(asked, name)
        if any(line.startswith(f"{name}.name:") for line in lines):
            # All the rest of it follows from that.
            kept = f"{name}.name:"
            lines = [x for x in lines if x.startswith(kept) or not x.startswith(f"{name}.")]
            if not ours.is_imported:  # `pcmci import` has no such flags
                flags += [f"{flag} {quote(ours.name)}", f"{weights_flag} {quote(ours.weights)}"]
        elif ours.sha256 != theirs.sha256:
            weights = f"the store has {ours.weights!r}, asked for {theirs.weights!r}"
            if ours.is_imported and ours.weights == theirs.weights:
                weights = f"{ours.weights!r}, of other files, or read by another --key"
            elif ours.weights == theirs.weights:
                weights = f"{ours.weights!r} are others than those that the store was made with"
            elif not ours.is_imported:
                flags.append(f"{weights_flag} {quote(ours.weights)}")
            at = next(k for k, line in enumerate(lines) if line.startswith(f"{name}.sha256:"))
            lines[at] = f"{name}.weights: {weights}"
    if stored.precision != asked.precision:
        flags.append(f"--precision {stored.precision}")
    return lines, " ".join(flags)


def _videos(stored: StoreSpec, asked: StoreSpec, table: VideoTable, other: VideoTable) -> list[str]:
    ours, theirs = _rows(table), _rows(other)
    more = [one for one in other.ids if one not in ours]
    fewer = [one for one in table.ids if one not in theirs]
    both = [one for one in table.ids if one in theirs]
    lines = []
    if more or fewer:
        noun = "video" if len(more) == 1 else "videos"
        if more and fewer:
            lines.append(
                f"{len(more):,} {noun} more ({_some(more)}), {len(fewer):,} fewer ({_some(fewer)})"
            )
        else:
            lines.append(f"{len(more):,} {noun} more, {len(fewer):,} fewer: {_some(more or fewer)}")
    moved = [one for one in both if table.splits[ours[one]] != other.splits[theirs[one]]]
    if moved:
        was = table.splits[ours[moved[0]]], other.splits[theirs[moved[0]]]
        lines.append(f"{len(moved):,} in another split: {_some(moved)} ({was[0]}, now {was[1]})")
    if relabelled := [
        one
        for one in both
        if _labels(stored, table, ours[one]) != _labels(asked, other, theirs[one])
    ]:
        lines.append(f"{len(relabelled):,} with other labels: {_some(relabelled)}")
    if not lines:
        same = both == list(other.ids)
        lines.append(
            "videos grouped otherwise by session or person"
            if same
            else "the same videos in another order"
        )
    return lines


def _label_set(name: str, stored: LabelSet | None, asked: LabelSet | None) -> list[str]:
    if stored == asked:
        return []
    ours, theirs = (one.names if one else () for one in (stored, asked))
    more = [one for one in theirs if one not in set(ours)]
    fewer = [one for one in ours if one not in set(theirs)]
    if more or fewer:
        noun = "label" if len(more) == 1 else "labels"
        names = _some([*more, *fewer])
        return [f"{name}: {len(more):,} {noun} more, {len(fewer):,} fewer: {names}"]
    if ours != theirs:
        return [f"{name}: the same labels in another order"]
    if stored and asked and dataclasses.replace(stored, entities=asked.entities) == asked:
        words = ", ".join(stored.entities) or "none"
        return [f"{name}: the same labels with other entities (--entities): the store has {words}"]
    return [f"{name}: the same labels with another text, template or background"]


def _labels(spec: StoreSpec, table: VideoTable, row: int) -> tuple[str | None, frozenset[str]]:
    """A video's, by name: their numbers change with every label that comes or goes."""
    activity, steps = int(table.activity[row]), np.flatnonzero(table.steps[row])
    return (
        spec.activity.names[activity] if spec.activity and activity >= 0 else None,
        frozenset(spec.steps.names[k] for k in steps) if spec.steps else frozenset(),
    )


def _rows(table: VideoTable) -> dict[str, int]:
    return {one: row for row, one in enumerate(table.ids)}


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
