"""Files of this machine that go with a store."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pcmci.cache.chunks import beside
from pcmci.remote.url import Place, Url


def nearby(store: Place, suffix: str) -> Path:
    """`features/coin.zarr` and `.journal`: `features/coin.zarr.journal`.

    Of a store under a URL: a file of that name in a folder of its own under
    `$XDG_CACHE_HOME/pcmci` (~/.cache/pcmci), which may not exist yet.
    """
    if not isinstance(store, Url):
        return beside(store, suffix)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(str(store).encode()).hexdigest()[:16]
    return cache / "pcmci" / digest / f"{store.name}{suffix}"
