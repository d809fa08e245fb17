"""The store of an extraction: what it depends on, and made or found before anything is encoded."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence

import numpy as np
from tqdm import tqdm

from pcmci.cache.formats.choose import exists
from pcmci.cache.schema import Sampling, StoreSpec, VideoTable
from pcmci.cache.store import create_store, open_store
from pcmci.cache.upkeep.convert import allow_damaged, allowing, stored_spec
from pcmci.cache.upkeep.repair import repair as repair_store
from pcmci.errors import StoreError
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets.entities import entity_words, with_entities
from pcmci.extract.datasets.records import Dataset
from pcmci.extract.pair import Made
from pcmci.extract.table import video_table
from pcmci.plain import plain
from pcmci.remote.url import Place, place


def make_spec(dataset: Dataset, table: VideoTable, config: ExtractConfig, made: Made) -> StoreSpec:
    """Everything that the features will depend on. Raises UsageError for entities of which no
    label speaks, AnnotationError for a file of them that cannot be read."""
    activity, steps = dataset.activity, dataset.steps
    if config.entities:
        activity, steps = with_entities(activity, steps, entity_words(place(config.entities)))
    return StoreSpec(
        dataset=dataset.name,
        activity=activity,
        steps=steps,
        sampling=Sampling(config.frames, config.views),
        vlm=made.vlm,
        video=made.video,
        precision=made.precision,
        libraries=made.libraries,
        videos_sha256=table.digest(),
        damaged=config.damaged,
    )


def prepare_store(
    out: Place,
    spec: StoreSpec,
    dataset: Dataset,
    text: Callable[[Sequence[str]], np.ndarray],
    *,
    overwrite: bool,
    repair: bool,
) -> None:
    """A store at `out` that a writer can go on with: made anew, or there and of the same spec.

    text: prompts to their embeddings [N, D]. A store that takes no damaged videos is made one that
    does where `spec` asks for it. Raises SpecMismatch.
    """

    def embed(name: str) -> np.ndarray:
        return text(spec.texts[name])

    if overwrite or not exists(out):
        texts = {name: embed(name) for name in spec.texts}
        create_store(out, spec, video_table(dataset), texts, overwrite=overwrite)
        return
    asked = spec
    try:
        stored = stored_spec(out)
    except StoreError:
        if repair:  # which says what cannot be mended
            repair_store(out, spec, embed)
        raise
    takes_more = allowing(out, stored, spec.damaged) != stored
    if takes_more:
        spec = dataclasses.replace(spec, damaged=stored.damaged)
    for damage in repair_store(out, spec, embed) if repair else ():
        tqdm.write(f"repairing: {plain(damage)}", file=sys.stderr)
    with open_store(out) as store:
        store.check_spec(spec, video_table(dataset))
    if takes_more:
        tqdm.write(f"{out}: from now on it takes damaged videos too", file=sys.stderr)
        allow_damaged(out, asked.damaged)
