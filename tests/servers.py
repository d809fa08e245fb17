"""Servers of this machine's own: S3 as moto plays it, and a web server that shows folders."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import obstore
import obstore.store
from moto.server import ThreadedMotoServer


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """The environment in which S3 is a server of this process."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
            "AWS_REGION": "us-east-1",
        }
    finally:
        server.stop()


@functools.cache  # each reads the machine's certificates; there is one server a session
def bucket(name: str) -> obstore.store.ObjectStore:
    return obstore.store.from_url(f"s3://{name}")


def upload(folder: Path, name: str, prefix: str) -> None:
    """A folder's files, as `aws s3 cp --recursive` copies them."""
    for file in folder.rglob("*"):
        if file.is_file():
            key = f"{prefix}/{file.relative_to(folder)}"
            obstore.put(bucket(name), key, file.read_bytes())


def objects(name: str, prefix: str) -> dict[str, bytes]:
    """What lies under a prefix, by the rest of its key."""
    there = bucket(name)
    return {
        entry["path"].removeprefix(f"{prefix}/"): bytes(obstore.get(there, entry["path"]).bytes())
        for entry in obstore.list(there, prefix=prefix).collect()
    }


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        trouble = self.server.trouble  # type: ignore[attr-defined]
        status = trouble.pop() if trouble else 200
        if status == 200:
            super().do_GET()
        elif status:
            self.send_error(status)
        else:
            self.server.over.wait()  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web_server(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Its URL, and a list: the next requests are answered by these statuses, the last one first;
    by silence for a 0."""
    handler = functools.partial(_Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.trouble = []  # type: ignore[attr-defined]
    server.over = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.trouble
    finally:
        server.over.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()
        server.server_close()
