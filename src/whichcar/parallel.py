"""Work spread over threads, with the results in order; and the number of cores to spread it over."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Known = TypeVar("Known")

THREAD_PREFIX = "ordered_map"
_AHEAD = 8  # items for each thread


@dataclass(frozen=True, slots=True)
class Done(Generic[Known]):
    """Takes the place of an item whose result is known already."""

    value: Known

    def result(self) -> Known:
        """Return the result, as a future does."""
        return self.value

    def done(self) -> bool:
        """Return True, as a future does that is finished."""
        return True


def usable_cores() -> int:
    """Return how many processors this process may use; `taskset` may leave it fewer than there are."""
    # Not every system knows which they are (macOS, Windows).
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item | Done[Known]],
    workers: int | None = None,
    ahead: int | None = None,
    eager: bool = False,
) -> Iterator[Result | Known]:
    """Yield `function(item)` for each item, in order, computed by threads.

    An error is raised in its item's place. After that, and when the iterator is closed, nothing more is started and
    what is running is waited for.

    Args:
        function: called in a thread.
        items: taken in the caller's thread and only as they are needed, so there may be any number of them.
        workers: threads (default: `usable_cores()`).
        ahead: items that are computed, or waiting for a thread, while the caller uses a result (default: 8 per thread).
        eager: yield each result that is ready before another item is taken; for items that may be long in coming.
    """
    workers = workers or usable_cores()
    ahead = _AHEAD * workers if ahead is None else ahead
    waiting: deque[Future[Result] | Done[Known]] = deque()
    pool = ThreadPoolExecutor(workers, THREAD_PREFIX)
    try:
        for item in items:
            waiting.append(item if isinstance(item, Done) else pool.submit(function, item))
            while waiting and (len(waiting) > ahead or (eager and waiting[0].done())):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
