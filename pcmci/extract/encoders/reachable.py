"""Whether the hub has an address here, before minutes go by with asking it in vain."""

from __future__ import annotations

import contextlib
import socket
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit


@contextlib.contextmanager
def asked_only_where_it_is() -> Iterator[None]:
    """Inside, huggingface_hub looks into its cache alone where the hub's name is known to nobody:
    it would ask again and again, file by file, for two minutes. Where a name server does not answer
    just now, or a proxy is asked, it does as it always does."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    if not before and not _has_address(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _has_address(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname
    proxies = urllib.request.getproxies()
    if host is None or "https" in proxies or "http" in proxies or "all" in proxies:
        return True
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror as error:
        return error.errno != socket.EAI_NONAME
    return True
