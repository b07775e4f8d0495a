"""An ordered map over threads, and the number of cores to use."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from whichcar.progress import say_error

Item = TypeVar("Item")
Result = TypeVar("Result")
Known = TypeVar("Known")

THREAD_PREFIX = "ordered_map"
_AHEAD = 8  # items per thread
_QUIET = 1.0  # seconds after Ctrl-C until the wait for running calls is explained
_WAITS = "waiting for the work in progress; a web address can take two minutes"


@dataclass(frozen=True, slots=True)
class Done(Generic[Known]):
    """An item with a known result, which needs no call."""

    value: Known

    def result(self) -> Known:
        """Return the result, as a future does."""
        return self.value

    def done(self) -> bool:
        """Return True, as a finished future does."""
        return True


def usable_cores() -> int:
    """Return the number of processors that this process may use, which `taskset` can limit."""
    # macOS and Windows have no sched_getaffinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item | Done[Known]],
    workers: int | None = None,
    ahead: int | None = None,
    eager: bool = False,
    stop: threading.Event | None = None,
) -> Iterator[Result | Known]:
    """Yield `function(item)` for each item, in order, computed by threads.

    An error is raised in place of its item's result. After an error, or when the iterator is closed, no further call
    is started, and running calls are waited for; after Ctrl-C in a wait for a result, that is said after a second.

    Args:
        function: called in a thread.
        items: taken lazily in the caller's thread, so there may be any number of them.
        workers: threads (default: `usable_cores()`).
        ahead: items that are computed, or waiting for a thread, while the caller uses a result (default: 8 per thread).
        eager: yield each finished result before taking another item; for items that arrive slowly.
        stop: set before running calls are waited for, so that those that wait for it end early.
    """
    workers = workers or usable_cores()
    ahead = _AHEAD * workers if ahead is None else ahead
    waiting: deque[Future[Result] | Done[Known]] = deque()
    pool = ThreadPoolExecutor(workers, THREAD_PREFIX)
    remark = threading.Timer(_QUIET, say_error, [_WAITS])
    remark.daemon = True
    try:
        for item in items:
            waiting.append(item if isinstance(item, Done) else pool.submit(function, item))
            while waiting and (len(waiting) > ahead or (eager and waiting[0].done())):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except KeyboardInterrupt:
        remark.start()
        raise
    finally:
        if stop is not None:
            stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        remark.cancel()
