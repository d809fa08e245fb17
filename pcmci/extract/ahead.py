"""Decoded videos in the order of their rows, a few ahead of the encoders."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from pcmci.errors import VideoError
from pcmci.extract.video.decoding import Decoders, Prepared
from pcmci.remote.url import Place
from pcmci.stopping import Stop

AHEAD = 4
"""Videos ahead of the encoders, a decoder, where there are several: with fewer one long video,
whose turn it is, leaves the other decoders without work."""


def decoded(
    decoders: Decoders,
    rows: Sequence[int],
    place: Callable[[int], Place],
    stop: Stop,
    waited: Callable[[float], None],
) -> Iterator[tuple[int, Prepared | VideoError]]:
    """Each row with its frames, or with why it has none.

    place: of a row's video. stop: once it says so, what has begun is finished and nothing begins.
    waited: told the seconds in which nothing was there to encode.
    """
    todo = iter(rows)
    most = 2 if decoders.count == 1 else AHEAD * decoders.count
    ahead: deque[tuple[int, Future[Prepared]]] = deque()
    while True:
        while len(ahead) < most and not stop.number:
            if (row := next(todo, None)) is None:
                break
            ahead.append((row, decoders.submit(place(row))))
        if stop.number:
            ahead = deque(one for one in ahead if not one[1].cancel())
        if not ahead:
            return
        row, task = ahead.popleft()
        waiting = time.perf_counter()
        error = task.exception()
        waited(time.perf_counter() - waiting)
        if error is None:
            yield row, task.result()
        elif isinstance(error, VideoError):
            yield row, error
        else:
            raise error
