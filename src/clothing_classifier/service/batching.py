"""What arrives together is computed together, or side by side."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

LINGER: Final = 0.004
"""Seconds that a batch which is not full waits for items that are on their way."""


class Batcher(Generic[Item, Result]):
    """Puts items that are handed in at about the same time into one call.

    Nothing waits without need: an item that comes alone while nothing is computed is computed at once. While as many
    batches as there may be are computed, the next one gathers.

    Args:
        compute: results of a batch, in its order; called in threads.
        most: items of one batch.
        workers: how many batches are computed side by side.
        coming: how many further items are on their way.
        linger: see `LINGER`.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        most: int,
        workers: int = 1,
        coming: Callable[[], int] = lambda: 0,
        linger: float = LINGER,
    ) -> None:
        self._compute = compute
        self._most = most
        self._coming = coming
        self._linger = linger
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._arrived = asyncio.Event()
        self._workers = workers
        self._threads = ThreadPoolExecutor(workers, "model")
        self._tasks: list[asyncio.Task[None]] = []
        self.failures = 0
        """Batches in a row that could not be computed."""

    @property
    def waiting(self) -> int:
        """Items that are in no batch yet."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to take items; call it in the event loop."""
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self._workers)]

    async def stop(self) -> None:
        """Stop. Items that have no result yet are cancelled."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        for _, future in self._waiting:
            future.cancel()
        self._threads.shutdown()

    async def submit(self, item: Item) -> Result:
        """Return the item's result.

        Raises:
            Exception: what ``compute`` raised on the item's batch.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._arrived.set()
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._gather()
            batch: list[tuple[Item, asyncio.Future[Result]]] = []
            while self._waiting and len(batch) < self._most:
                item, future = self._waiting.popleft()
                if not future.done():  # who asked may have gone away
                    batch.append((item, future))
            if not batch:
                continue
            try:
                results = await loop.run_in_executor(self._threads, self._compute, [item for item, _ in batch])
                answered = list(zip(batch, results, strict=True))
            except asyncio.CancelledError:
                for _, future in batch:
                    future.cancel()
                raise
            except Exception as error:
                self.failures += 1
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            self.failures = 0
            for (_, future), result in answered:
                if not future.done():
                    future.set_result(result)

    async def _gather(self) -> None:
        """Wait until there is a batch."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        loop = asyncio.get_running_loop()
        end = loop.time() + self._linger
        while len(self._waiting) < self._most and self._coming() and (left := end - loop.time()) > 0:
            self._arrived.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left)
