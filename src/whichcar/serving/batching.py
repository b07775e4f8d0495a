"""A bounded queue of images, from which threads take batches.

Images are counted, not requests. Images that do not fit are refused at once. If a future is cancelled, because its
client has disconnected or its time is over, its image leaves the queue and costs nothing more.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class QueueFull(Exception):
    """There is no room for these images now."""


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Item, Answer]):
    item: Item
    future: Future[Answer]
    since: float = field(default_factory=time.monotonic)


class Batcher(Generic[Item, Answer]):
    """Threads that each take a batch of the oldest items, up to `size`, and have it answered.

    Args:
        answer: one function per thread, which returns one answer per item; an error it raises answers every item.
        size: maximum number of items per call.
        wait: seconds that a call waits for more items if there are fewer.
        capacity: maximum number of waiting items.
        observe: called for each batch with its size, and the seconds that its oldest item waited and its answer took.
    """

    def __init__(
        self,
        answer: Sequence[Callable[[list[Item]], Sequence[Answer]]],
        size: int,
        wait: float,
        capacity: int,
        observe: Callable[[int, float, float], None] | None = None,
    ) -> None:
        """Start the threads."""
        self._size, self._wait, self.capacity = size, wait, capacity
        self._observe = observe or (lambda *_: None)
        self._waiting: deque[_Waiting[Item, Answer]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.working = 0  # items that threads have taken and not answered yet
        self._threads = [
            threading.Thread(target=self._work, args=(one,), name=f"batch {number}", daemon=True)
            for number, one in enumerate(answer)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Return the number of waiting items."""
        return len(self._waiting)

    def submit(self, items: Sequence[Item]) -> list[Future[Answer]]:
        """Queue all of these items or none, and return a future for each answer.

        Raises:
            QueueFull: there is no room for all of them, or the batcher is closed.
        """
        waiting = [_Waiting[Item, Answer](item, Future()) for item in items]
        with self._changed:
            if self._closed or len(self._waiting) + len(waiting) > self.capacity:
                raise QueueFull
            self._waiting.extend(waiting)
            self._changed.notify(len(waiting))
        for one in waiting:
            one.future.add_done_callback(partial(self._forget, one))
        return [one.future for one in waiting]

    def close(self) -> None:
        """Answer the waiting items, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _forget(self, one: _Waiting[Item, Answer], future: Future[Answer]) -> None:
        if future.cancelled():
            with self._changed, contextlib.suppress(ValueError):  # a thread may have taken it just now
                self._waiting.remove(one)

    def _work(self, answer: Callable[[list[Item]], Sequence[Answer]]) -> None:
        while batch := self._next_batch():
            started = time.monotonic()
            try:
                answers = answer([one.item for one in batch])
                for one, result in zip(batch, answers, strict=True):
                    one.future.set_result(result)
            except Exception as error:  # the error is the answer; the thread goes on
                for one in batch:
                    if not one.future.done():
                        one.future.set_exception(error)
            with self._changed:
                self.working -= len(batch)
            self._observe(len(batch), started - batch[0].since, time.monotonic() - started)

    def _next_batch(self) -> list[_Waiting[Item, Answer]]:
        """Wait for items and return them, oldest first; none if the batcher is closed and nothing waits."""
        batch: list[_Waiting[Item, Answer]] = []
        until = 0.0
        with self._changed:
            while len(batch) < self._size:
                if self._waiting:
                    one = self._waiting.popleft()
                    if one.future.set_running_or_notify_cancel():
                        until = until or time.monotonic() + self._wait
                        batch.append(one)
                elif batch and (self._closed or (left := until - time.monotonic()) <= 0):
                    break
                elif batch:
                    self._changed.wait(left)
                elif self._closed:
                    break
                else:
                    self._changed.wait()
            self.working += len(batch)
        return batch
