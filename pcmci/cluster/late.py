"""A call that imports what it needs in its task, where a failure to import is an error like others.

A task that is sent as it is gets unpickled, and what it names imported, where a worker reads its
messages: a worker that cannot (a library is missing, or this program is) breaks off the connection
and ends, and nobody learns why.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle


class _Call:
    """Pickled, it is a function's result: the function is looked up and called where it is
    unpickled. Nothing of this program is needed for that but what the function needs itself."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def late(function: Callable[[], Any]) -> Callable[[], Any]:
    """The same function, for a task."""
    return functools.partial(pickle.loads, cloudpickle.dumps(_Call(function)))


def late_with_address(function: Callable[[], Any]) -> Callable[[], Any]:
    """The same, whose result is (the address of the worker, what the function returns)."""
    from distributed import get_worker

    address = _Call(getattr, _Call(get_worker), "address")
    return functools.partial(pickle.loads, cloudpickle.dumps((address, _Call(function))))
