"""Phase one: videos to features. Decode in processes, encode in batches, store; resumes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from pcmci.cache.formats.choose import exists, file_format
from pcmci.cache.store import open_store
from pcmci.cache.writing.writer import StoreWriter
from pcmci.cluster.patience import WAIT_MINUTES
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets.records import Dataset
from pcmci.extract.here import Extraction
from pcmci.extract.intake import Intake, Summary
from pcmci.extract.opening import make_spec, prepare_store
from pcmci.extract.pair import Encoders
from pcmci.extract.side_by_side import SideBySide
from pcmci.extract.speed import record
from pcmci.extract.table import video_table
from pcmci.remote.url import Url, place


def extract(
    dataset: Dataset,
    out: str | Path | Url,
    config: ExtractConfig | None = None,
    *,
    overwrite: bool = False,
    retry_failed: bool = False,
    repair: bool = False,
    progress: bool = True,
    scheduler: str | None = None,
    workers: int | None = None,
    wait_workers: float = WAIT_MINUTES,
) -> Summary:
    """Encode every video of a data set that the store does not have yet.

    Each video ends as done, failed (with its reason) or missing; none is ever replaced. The same
    call again does only what is left; retry_failed: failed ones too; repair: those whose features
    are damaged (`pcmci.cache.upkeep.repair`).
    scheduler: of a Dask cluster that computes, its address or its scheduler file; workers: so many
    processes of this machine do; wait_workers: minutes without one that can, after which the run
    ends. The store, to its bits, is the same.
    Raises SpecMismatch where the store was made with other settings, StoppedError after SIGINT or
    SIGTERM (everything encoded by then is stored), ClusterError where a cluster fails.
    """
    config = (config or ExtractConfig()).resolved(dataset.name)
    out = place(out)
    file_format(out)  # a name of no known format is refused before anything is loaded
    exists(out)  # and so is a server that does not answer
    if scheduler is not None or workers is not None:
        # distributed takes a third of a second to import
        from pcmci.cluster.connect import connect
        from pcmci.extract.distributed import ClusterExtraction

        with connect(scheduler, workers, config.device) as client:
            extraction = ClusterExtraction(client, dataset, out, config, progress, wait_workers)
            summary = extraction.run(overwrite, retry_failed, repair)
        record(out, summary, f"{len(summary.workers)} workers")
        return summary
    encoders = Encoders.load(config)
    spec = make_spec(dataset, video_table(dataset), config, encoders.made)
    prepare_store(out, spec, dataset, encoders.text, overwrite=overwrite, repair=repair)
    with StoreWriter(out) as writer:
        intake = Intake(dataset, writer, progress)
        summary = Extraction(config, encoders, intake).run(retry_failed)
    record(out, summary, f"{encoders.device} {encoders.precision}")
    return summary


def extract_side_by_side(
    dataset: Dataset,
    stores: Sequence[tuple[str | Path | Url, ExtractConfig]],
    *,
    overwrite: bool = False,
    retry_failed: bool = False,
    repair: bool = False,
    progress: bool = True,
    scheduler: str | None = None,
    workers: int | None = None,
    wait_workers: float = WAIT_MINUTES,
) -> list[Summary]:
    """`extract` for several stores whose configs differ in the video encoder alone: every video is
    decoded once, and the VLM's half is computed once and written to each.

    A store that is there keeps what it has, and gives its VLM's half to those that have not. On a
    cluster the stores are made one after the other. Raises what `extract` does.
    """
    if scheduler is not None or workers is not None:
        return [
            extract(
                dataset, out, config, overwrite=overwrite, retry_failed=retry_failed,
                repair=repair, progress=progress, scheduler=scheduler, workers=workers,
                wait_workers=wait_workers,
            )
            for out, config in stores
        ]  # fmt: skip
    places = [place(out) for out, _ in stores]
    configs = [config.resolved(dataset.name) for _, config in stores]
    for out in places:
        file_format(out)
        exists(out)
    pairs = [Encoders.load(configs[0])]
    pairs += [pairs[0].with_video(config) for config in configs[1:]]
    table = video_table(dataset)
    for out, config, pair in zip(places, configs, pairs, strict=True):
        spec = make_spec(dataset, table, config, pair.made)
        prepare_store(out, spec, dataset, pair.text, overwrite=overwrite, repair=repair)
    with contextlib.ExitStack() as opening:
        # as they are before anything is written, to take the VLM's half from
        before = [opening.enter_context(open_store(out)) for out in places]
        writers = [opening.enter_context(StoreWriter(out)) for out in places]
        intakes = [Intake(dataset, writer, progress) for writer in writers]
        summaries = SideBySide(configs[0], pairs, intakes, before, progress).run(retry_failed)
    for out, summary in zip(places, summaries, strict=True):
        record(out, summary, f"{pairs[0].device} {pairs[0].precision}", len(places))
    return summaries
