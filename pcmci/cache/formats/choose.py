"""Which format a path means, by its suffix, and whether anything is there."""

from __future__ import annotations

from shlex import quote

from pcmci.cache.disk import reaching
from pcmci.cache.formats.layout import Chunks
from pcmci.errors import UsageError
from pcmci.remote.address import BUCKETS
from pcmci.remote.url import Place, Url


def file_format(path: Place) -> type[Chunks]:
    """By suffix: `.zarr`, or `.h5` and `.hdf5`. Raises UsageError for another one."""
    if isinstance(path, Url):
        if path.suffix != ".zarr" or path.scheme not in BUCKETS:
            raise UsageError(
                f"{path}: a store under a URL is a .zarr on s3:// or gs://; pcmci store convert "
                "copies others to there, and from there"
            )
        from pcmci.cache.formats.objects import ObjectChunks

        return ObjectChunks
    if path.suffix == ".zarr":
        from pcmci.cache.formats.zarr import ZarrChunks

        return ZarrChunks
    if path.suffix in (".h5", ".hdf5"):
        from pcmci.cache.formats.hdf5 import Hdf5Chunks

        return Hdf5Chunks
    raise UsageError(f"{path}: a store's name ends in .zarr, .h5 or .hdf5")


def exists(path: Place) -> bool:
    """Whether anything is there; under a URL, whether a whole store is."""
    if isinstance(path, Url):
        with reaching():
            return (path / "zarr.json").is_file()
    return path.exists()


def check_exists(path: Place) -> None:
    """Raises UsageError where nothing is, and for a name of no known format."""
    file_format(path)
    if not exists(path):
        raise UsageError(
            f"{path} does not exist; next: pcmci extract --dataset NAME --out {quote(str(path))} "
            "makes it of videos, pcmci demo a small one without any"
        )


def open_chunks(path: Place, writable: bool = False) -> Chunks:
    """Raises StoreError where there is no store, UsageError for a name of no known format."""
    check_exists(path)
    return file_format(path)(path, writable)
