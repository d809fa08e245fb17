"""The data sets: from their official annotations to records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pcmci.errors import UsageError
from pcmci.extract.datasets import breakfast, charades, coin, folder, kitchen
from pcmci.extract.datasets.files import NoVideos, VideoTree
from pcmci.extract.datasets.records import Dataset, Segment, Video
from pcmci.remote.url import Place, Url, place

__all__ = ["DATASETS", "Dataset", "DatasetSource", "Segment", "Video", "load_dataset"]


@dataclass(frozen=True)
class DatasetSource:
    """How a data set is read, and where it lies if the user does not say.

    parse: (videos, annotations, whether links are followed) to the data set.
    videos: the default folder.
    annotations: the default files or folders, the first that exists is taken; () where the
        annotations lie with the videos.
    """

    parse: Callable[[Place | VideoTree, Place, bool], Dataset]
    videos: str
    annotations: tuple[str, ...] = ()


DATASETS: dict[str, DatasetSource] = {
    "breakfast": DatasetSource(
        breakfast.parse,
        "data/breakfast/videos",
        ("data/breakfast/segmentation_coarse", "data/breakfast/groundTruth"),
    ),
    "coin": DatasetSource(
        coin.parse, "data/coin/videos", ("data/coin/COIN.json", "data/coin/COIN.json.gz")
    ),
    "charades": DatasetSource(charades.parse, "data/charades/videos", ("data/charades",)),
    "folder": DatasetSource(folder.parse, "data/folder"),
    "kitchen": DatasetSource(kitchen.parse, "data/kitchen/videos", ("data/kitchen",)),
}


def load_dataset(
    name: str,
    videos: str | Path | Url | None = None,
    annotations: str | Path | Url | None = None,
    *,
    follow_links: bool = False,
) -> Dataset:
    """The data set called `name`, from its default places where none is given.

    follow_links: take symbolic links out of the folder of videos, and to folders, too.

    Raises UsageError that names every place where something is missing, RemoteError where a URL
    cannot be read, and what `DatasetSource.parse` raises.
    """
    source = _source(name)
    folder = place(source.videos if videos is None else videos)
    places = _annotation_places(source, annotations)
    found = next((one for one in places or [folder] if one.exists()), None)
    missing = []
    if not folder.is_dir():
        index = ", or no index page of it" if isinstance(folder, Url) else ""
        missing.append(f"no folder of videos at {folder}{index} (--videos names another)")
    if found is None and places:
        names = " or ".join(map(str, places))
        missing.append(f"no annotations at {names} (--annotations names others)")
    if missing or found is None:
        raise UsageError(f"data set {name!r} is not there: {'; '.join(missing)}; {_next(name)}")
    return source.parse(folder, found, follow_links)


def load_records(
    name: str, tree: VideoTree, annotations: str | Path | Url | None = None
) -> Dataset:
    """The data set as its annotations alone say it is, without any video.

    tree: files that stand for the videos where nothing else names them (class folders of the data
    set `folder`). Raises what `load_dataset` does.
    """
    source = _source(name)
    places = _annotation_places(source, annotations)
    found = next((one for one in places if one.exists()), None)
    if found is not None:
        return source.parse(NoVideos(), found, False)
    if places:
        names = " or ".join(map(str, places))
        raise UsageError(f"no annotations at {names} (--annotations names others); {_next(name)}")
    table = tree.root / folder.LABELS
    if table.exists():
        return source.parse(NoVideos(), table, False)
    return source.parse(tree, tree.root, False)


def _next(name: str) -> str:
    """What to type where a data set is not there."""
    if name == "kitchen":
        return "next: pcmci kitchen draws it"
    with_them = "" if DATASETS[name].annotations == () else " --annotations PATH"
    return (
        f"next: with the videos at hand, pcmci extract --dataset {name} --videos DIR{with_them}; "
        "without any, pcmci demo"
    )


def _source(name: str) -> DatasetSource:
    if name not in DATASETS:
        raise UsageError(f"no data set is called {name!r}; there are {', '.join(DATASETS)}")
    return DATASETS[name]


def _annotation_places(source: DatasetSource, annotations: str | Path | Url | None) -> list[Place]:
    looked = [annotations] if annotations is not None else source.annotations
    return [place(one) for one in looked]
