"""The queue: bounded, counted in images, and rid of those nobody waits for."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future

import pytest

from whichcar.serving.batching import Batcher, QueueFull


class Slow:
    """Answers once it may; notes the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started, self.may = threading.Event(), threading.Event()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.started.set()
        self.may.wait(10)
        if -1 in items:
            raise ValueError("minus one")
        return [10 * item for item in items]


def results(futures: list[Future[int]]) -> list[int]:
    return [future.result(10) for future in futures]


def test_images_are_counted_and_not_requests() -> None:
    slow = Slow()
    batcher = Batcher[int, int]([slow], size=1, wait=0, capacity=4)
    first = batcher.submit([0])
    slow.started.wait(10)  # taken: it does not wait any more
    waiting = batcher.submit([1, 2, 3])
    assert len(batcher) == 3
    with pytest.raises(QueueFull):
        batcher.submit([4, 5])
    last = batcher.submit([6])
    slow.may.set()
    assert results(first + waiting + last) == [0, 10, 20, 30, 60]
    batcher.close()


def test_an_image_nobody_waits_for_leaves_the_queue_and_is_never_computed() -> None:
    slow = Slow()
    batcher = Batcher[int, int]([slow], size=8, wait=0, capacity=3)
    first = batcher.submit([0])
    slow.started.wait(10)
    waiting = batcher.submit([1, 2, 3])
    for future in waiting[:2]:
        future.cancel()
    assert len(batcher) == 1
    more = batcher.submit([4, 5])
    slow.may.set()
    assert results([*first, waiting[2], *more]) == [0, 30, 40, 50]
    assert slow.batches == [[0], [3, 4, 5]]
    with pytest.raises(CancelledError):
        waiting[0].result(0)
    batcher.close()


def test_a_small_batch_waits_for_more_images_and_a_full_one_does_not() -> None:
    slow = Slow()
    slow.may.set()
    batcher = Batcher[int, int]([slow], size=3, wait=30, capacity=9)
    futures = batcher.submit([1])
    futures += batcher.submit([2, 3])
    assert results(futures) == [10, 20, 30]
    assert slow.batches == [[1, 2, 3]]
    alone = batcher.submit([4])
    batcher.close()  # does not wait for more
    assert results(alone) == [40]


def test_an_error_is_the_answer_of_its_batch_only() -> None:
    slow = Slow()
    slow.may.set()
    batcher = Batcher[int, int]([slow], size=1, wait=0, capacity=9)
    bad, good = batcher.submit([-1, 1])
    with pytest.raises(ValueError, match="minus one"):
        bad.result(10)
    assert good.result(10) == 10
    batcher.close()
    with pytest.raises(QueueFull):
        batcher.submit([1])
