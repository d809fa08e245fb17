"""Who starts a worker's process on this machine, and starts it again when it has ended."""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import Nanny, Status

CLOSING = {Status.closing, Status.closing_gracefully, Status.closed, Status.failed}


class PatientNanny(Nanny):
    """Dask's, but one start is over before the next begins, and none begins once it closes.

    A process may end between its worker's first sign of life and the nanny's next look for it (20
    a second, fewer on a busy machine). Dask starts another at once, and the look that then finds
    the dead one's sign calls the new one running before there is such a process: to close the
    cluster then fails with "can only join a started process". Where the dead one left no sign, it
    is looked for until the new one's has come.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._one_start = asyncio.Lock()

    async def instantiate(self) -> Status:
        async with self._one_start:
            if self.status in CLOSING:  # it has ended its process already: nobody would end this
                return self.status
            return await super().instantiate()
