"""Videos to the encoders' input, in processes of their own.

A file from a stranger may crash the decoder, hang it, or make it take all memory there is. Here
that costs one video its features, for a reason that is recorded, and the others nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pcmci.cache.replaced import FAIL, replaced_note
from pcmci.cache.schema import Preprocessing, Sampling
from pcmci.errors import PcmciError, VideoError
from pcmci.extract.encoders.preprocess import resize_and_crop
from pcmci.extract.video.fetching import NoRoom, fetched
from pcmci.extract.video.frames import FrameReader, dense_indices, sample_indices
from pcmci.remote.url import Place, Url

READY = b"ready"
START_SECONDS = 120

MEMORY = 4 * 2**30
"""Bytes that decoding one video may take, beside the process itself."""


@dataclass(frozen=True)
class Input:
    """What an encoder wants of a frame, how many frames it takes together, and in dense windows
    how far apart, see `EncoderSpec.stride`; 0 for clips of a view's own frames."""

    preprocessing: Preprocessing
    clip_frames: int
    stride: int = 0


Inputs = Mapping[str, Input]


class Prepared(dict[str, np.ndarray]):
    """By encoder, clips [views * L / F, F, S, S, 3] uint8; in dense windows [views * L, F, …].

    note: of a damaged video some of whose frames were replaced, see `replaced_note`; else "".
    seconds: [views * L] when each frame is shown, from the film's first frame on; None where that
    cannot be told.
    """

    note = ""
    seconds: tuple[float | None, ...] = ()


def prepare_video(path: Path, sampling: Sampling, inputs: Inputs, damaged: str = FAIL) -> Prepared:
    """Decode a video's frames and make them the encoders' input, one frame at a time, in this
    process. damaged: as in `ExtractConfig`. Raises VideoError."""
    plan = _Plan(sampling, inputs)
    frames: dict[str, np.ndarray] = {}
    reader = FrameReader(path, mend=damaged != FAIL)
    for places, frame in reader.read(lambda count: plan.indices(count, reader.fps)):
        for name, own in plan.own(places):
            small = resize_and_crop(frame, inputs[name].preprocessing)
            if name not in frames:
                frames[name] = np.empty((plan.sizes[name], *small.shape), np.uint8)
            frames[name][own] = small
    prepared = Prepared(
        (name, frames[name].reshape(-1, wanted.clip_frames, *frames[name].shape[1:]))
        for name, wanted in inputs.items()
    )
    prepared.seconds = tuple(reader.seconds.get(place) for place in range(plan.total))
    if reader.replaced:
        prepared.note = replaced_note(reader.replaced, plan.total, reader.damage)
    return prepared


class _Plan:
    """Which frames of a video are wanted, and by whom.

    Those of the uniform sampling come first, once for all who take them; behind them each encoder's
    own dense windows. sizes: how many frames each encoder takes. total: all that are asked for.
    """

    def __init__(self, sampling: Sampling, inputs: Inputs) -> None:
        self._sampling = sampling
        uniform = sampling.views * sampling.frames
        self._dense = {name: wanted for name, wanted in inputs.items() if wanted.stride}
        plain = [name for name in inputs if name not in self._dense]
        self.sizes = dict.fromkeys(plain, uniform)
        self._begins = dict.fromkeys(plain, 0)
        self._has_uniform = bool(plain)
        self.total = uniform if plain else 0
        for name, wanted in self._dense.items():
            self.sizes[name] = uniform * wanted.clip_frames
            self._begins[name] = self.total
            self.total += self.sizes[name]

    def indices(self, count: int, fps: float) -> np.ndarray:
        """[total] frames of a file. Raises VideoError, see `dense_indices`."""
        sampling = self._sampling
        centres = sample_indices(count, sampling.frames, sampling.views).ravel()
        found = [centres] if self._has_uniform else []
        for wanted in self._dense.values():
            found.append(
                dense_indices(centres, count, fps, wanted.clip_frames, wanted.stride).ravel()
            )
        return np.concatenate(found)

    def own(self, places: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Of one frame's places among `indices`, each encoder that takes it and where."""
        for name, begin in self._begins.items():
            own = places[(places >= begin) & (places < begin + self.sizes[name])] - begin
            if len(own):
                yield name, own


class Decoder:
    """A process that decodes, for one thread; started when it is first needed, and again when it
    had to be killed.

    seconds: that one video may take, its download included. memory: bytes, see `MEMORY`. damaged:
    as in `ExtractConfig`.
    """

    def __init__(
        self,
        sampling: Sampling,
        inputs: Inputs,
        seconds: float,
        memory: int = MEMORY,
        damaged: str = FAIL,
    ) -> None:
        self._work = _Work(sampling, dict(inputs), memory, damaged)
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._closing = False

    def prepare(self, path: Place) -> Prepared:
        """What `prepare_video` gives. Raises VideoError, also where the decoder takes too long,
        needs too much memory, or crashes (twice: the first time may have been another's fault),
        and where a URL cannot be downloaded."""
        for last in (False, True):
            try:
                return self._ask(path)
            except _Crashed as crashed:
                if last or self._closing:
                    raise VideoError(str(crashed)) from None
        raise AssertionError("one of the two has an outcome")

    def kill(self) -> None:
        """From another thread: whatever it is at, it ends without an answer."""
        self._closing = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()  # it may hang in a decoder
            self._process.wait()
        self._process = self._connection = None

    def _ask(self, path: Place) -> Prepared:
        if not isinstance(path, Url):
            return self._answer({"path": os.fspath(path)}, "decoding takes")
        # A killed decoder could not remove the folder.
        with tempfile.TemporaryDirectory(prefix="pcmci-") as folder:
            link = os.path.join(folder, f"video{path.suffix}")
            return self._answer(
                {"path": str(path), "link": link}, "downloading and decoding it take"
            )

    def _answer(self, request: dict[str, str], what: str) -> Prepared:
        connection = self._connection or self._start()
        try:
            connection.send_bytes(json.dumps(request).encode())
            if not connection.poll(self._seconds):
                self.close()
                raise VideoError(f"{what} longer than {self._seconds:g} s")
            answer = json.loads(connection.recv_bytes())
            if "no room" in answer:
                raise PcmciError(answer["no room"])
            if "error" in answer:
                if answer.get("spent"):
                    self.close()  # memory may be lost in it: the next video gets a fresh one
                raise VideoError(answer["error"])
            prepared = Prepared(
                (name, np.frombuffer(bytearray(connection.recv_bytes()), np.uint8).reshape(shape))
                for name, shape in answer["shapes"].items()
            )
            prepared.note, prepared.seconds = answer["note"], tuple(answer["seconds"])
            return prepared
        except (EOFError, OSError) as error:
            code = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(5) if self._process else None
            self.close()
            raise _Crashed(code) from error

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        # -P: nothing is imported from the current folder, which may hold a stranger's files.
        command = [sys.executable, "-P", "-m", "pcmci.extract.video.decoding", str(theirs.fileno())]
        connection = Connection(ours.detach())
        try:
            with theirs:
                self._process = subprocess.Popen(
                    command,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env=_environment(),
                )
            connection.send_bytes(self._work.to_json())
            if not connection.poll(START_SECONDS) or connection.recv_bytes() != READY:
                raise EOFError
        except (OSError, EOFError) as error:
            connection.close()
            self.close()
            if self._closing:
                raise _Crashed(-signal.SIGKILL) from error
            raise PcmciError(f"the process that decodes cannot be started: {error}") from error
        self._connection = connection
        return connection


def _environment() -> dict[str, str]:
    """With this package, where it was not installed."""
    home = Path(__file__).parents[3]
    if home.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    paths = [str(home), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class Decoders:
    """Several videos at a time, each by a process of its own: `with Decoders(...) as decoders`."""

    def __init__(
        self,
        count: int,
        sampling: Sampling,
        inputs: Inputs,
        seconds: float,
        damaged: str = FAIL,
    ) -> None:
        self.count = count
        self._new = lambda: Decoder(sampling, inputs, seconds, damaged=damaged)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decode")
        self._mine = threading.local()
        self._all: list[Decoder] = []

    def submit(self, path: Place) -> Future[Prepared]:
        """What `Decoder.prepare` gives or raises."""
        return self._threads.submit(self._prepare, path)

    def _prepare(self, path: Place) -> Prepared:
        if not hasattr(self._mine, "decoder"):
            self._mine.decoder = self._new()
            self._all.append(self._mine.decoder)
        found: Prepared = self._mine.decoder.prepare(path)
        return found

    def __enter__(self) -> Decoders:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:  # nobody waits for a decoder that hangs
            for decoder in self._all:
                decoder.kill()
        self._threads.shutdown(cancel_futures=True)
        for decoder in self._all:
            decoder.close()


class _Crashed(Exception):
    """A decoder ended without an answer."""

    def __init__(self, code: int | None) -> None:
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        super().__init__(f"the decoder crashed on it: {name}")


# --- in a decoder's process -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    sampling: Sampling
    inputs: dict[str, Input]
    memory: int
    damaged: str

    def to_json(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> _Work:
        raw: dict[str, Any] = json.loads(text)
        inputs = {
            name: Input(
                Preprocessing(**wanted["preprocessing"]), wanted["clip_frames"], wanted["stride"]
            )
            for name, wanted in raw["inputs"].items()
        }
        return cls(Sampling(**raw["sampling"]), inputs, raw["memory"], raw["damaged"])


def main(handle: int) -> None:
    """Answer requests until the connection is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when to stop
    threading.Thread(target=_leave_with_the_parent, args=(os.getppid(),), daemon=True).start()
    connection = Connection(handle)
    try:
        work = _Work.from_json(connection.recv_bytes())
        _limit_memory(work.memory)
        gc.collect()
        gc.freeze()  # what was imported stays: looking for garbage then takes 0.2 ms
        connection.send_bytes(READY)
        while True:
            request = json.loads(connection.recv_bytes())
            parts: list[bytes] = []
            try:
                with _here(**request) as path:
                    prepared = prepare_video(path, work.sampling, work.inputs, work.damaged)
                shapes = {n: x.shape for n, x in prepared.items()}
                answer: dict[str, Any] = {
                    "shapes": shapes, "note": prepared.note, "seconds": prepared.seconds,
                }  # fmt: skip
                parts = [array.tobytes() for array in prepared.values()]
            except VideoError as error:
                answer = {"error": str(error)}
            except NoRoom as error:
                answer = {"no room": str(error)}
            except MemoryError:
                needs = f"decoding needs more than {work.memory / 2**30:g} GiB"
                answer = {"error": needs, "spent": True}
            except Exception as error:  # whatever a file can make the libraries do
                answer = {"error": f"decoding fails: {type(error).__name__}: {error}"[:200]}
            connection.send_bytes(json.dumps(answer).encode())
            for part in parts:
                connection.send_bytes(part)
            # A frame whose side data were looked at refers to itself, and Python does not know how
            # large it is: left alone, megabytes of frames wait and tear the heap to pieces.
            gc.collect()
    except (EOFError, OSError):
        return


@contextlib.contextmanager
def _here(path: str, link: str | None = None) -> Iterator[Path]:
    """The file; a URL is downloaded, to lie under `link` until the block ends."""
    if link is None:
        yield Path(path)
    else:
        with fetched(Url(path), Path(link)) as file:
            yield file


def _limit_memory(more: int) -> None:
    """So many bytes beyond what is mapped now."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = mapped + more
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _leave_with_the_parent(parent: int) -> None:
    """A decoder that hangs does not notice that nobody listens any more."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
