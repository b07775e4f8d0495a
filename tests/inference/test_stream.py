"""Images that come slowly."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np

from whichcar.images.inputs import Given, each
from whichcar.inference.stream import stream
from whichcar.records import Skipped


def test_answers_do_not_wait_for_the_end_of_a_list_that_comes_slowly() -> None:
    answered, taken = threading.Semaphore(0), 0

    class Network:
        batch_size, callers, hardware = 1, 2, {}

        def __call__(self, images: np.ndarray) -> np.ndarray:
            answered.release()
            return np.ones((len(images), 1), np.float32)

    def slowly() -> Iterator[Given | Skipped]:
        nonlocal taken
        for _ in range(24):
            taken += 1
            yield from each(np.zeros((8, 8, 3), np.uint8))
            assert answered.acquire(timeout=20)

    next(stream(Network(), slowly(), (8, 8)))
    assert taken < 24
