"""The ordered thread map and the count of cores."""

import itertools
import os
import threading
import time
from collections.abc import Iterator

import pytest

from whichcar import parallel
from whichcar.parallel import THREAD_PREFIX, Done, ordered_map, usable_cores


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_PREFIX)]


def test_results_come_in_order_though_later_ones_are_ready_earlier() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number * number

    assert list(ordered_map(slow_first, range(100), workers=4)) == [number * number for number in range(100)]
    assert list(ordered_map(slow_first, [])) == []


def test_as_many_calls_run_at_once_as_there_are_workers() -> None:
    meeting = threading.Barrier(3)  # a call alone would wait until the timeout
    assert len(list(ordered_map(lambda _: meeting.wait(timeout=20), range(6), workers=3))) == 6


@pytest.mark.parametrize(("given", "workers", "most"), [(0, 2, 1), (3, 2, 4), (None, 2, 17)])
def test_items_are_taken_only_as_they_are_needed(given: int | None, workers: int, most: int) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield number

    results = ordered_map(str, endless(), workers, given)
    assert taken == 0
    for number in range(50):
        assert next(results) == str(number)
        assert taken == number + most
    results.close()  # type: ignore[attr-defined]


def test_an_eager_one_yields_what_is_ready_before_it_waits_for_more_items() -> None:
    taken, second = 0, threading.Event()

    def slowly() -> Iterator[int]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield number
            if number == 1:
                assert second.wait(20)

    def function(number: int) -> int:
        if number == 1:  # the one thread has finished the first item
            second.set()
        return number

    results = ordered_map(function, slowly(), workers=1, eager=True)
    assert next(results) == 0
    assert taken <= 3
    results.close()  # type: ignore[attr-defined]


def test_items_are_taken_in_the_callers_thread() -> None:
    threads = (threading.current_thread() for _ in range(3))
    pairs = list(ordered_map(lambda taken: (taken, threading.current_thread()), threads, workers=2))
    assert all(taken is threading.current_thread() and computed is not taken for taken, computed in pairs)


def test_known_results_keep_their_place_and_take_no_thread() -> None:
    computed: list[int] = []

    def function(number: int) -> str:
        computed.append(number)
        return str(number)

    items: list[int | Done[str]] = [1, Done("two"), 3, Done("four")]
    assert list(ordered_map(function, items, workers=2)) == ["1", "two", "3", "four"]
    assert sorted(computed) == [1, 3]
    assert not running()


def test_an_error_is_raised_in_its_place_and_ends_the_threads() -> None:
    begun: list[int] = []

    def function(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError("broken")
        time.sleep(0.005)
        return number

    results = ordered_map(function, range(1000), workers=2, ahead=500)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="broken"):
        next(results)
    assert len(begun) < 500
    assert not running()
    assert list(results) == []


def test_an_error_of_the_items_ends_the_threads() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(ordered_map(str, items(), workers=2))
    assert not running()


def test_closing_waits_for_what_runs_and_starts_nothing_more() -> None:
    begun, ended = [], []

    def function(number: int) -> int:
        begun.append(number)
        time.sleep(0.01)
        ended.append(number)
        return number

    results = ordered_map(function, range(1000), workers=2, ahead=500)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert not running()
    assert sorted(ended) == sorted(begun)
    assert len(begun) < 400  # and not the 501 that were queued


def interrupted() -> Iterator[int]:
    """Two items, then Ctrl-C."""
    yield from range(2)
    raise KeyboardInterrupt


def test_ctrl_c_ends_the_calls_that_wait_for_it() -> None:
    stop, stopped = threading.Event(), []
    with pytest.raises(KeyboardInterrupt):
        list(ordered_map(lambda _: stopped.append(stop.wait(10)), interrupted(), workers=2, stop=stop))
    assert stopped == [True, True]


def test_a_long_wait_after_ctrl_c_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    lines, explained = [], threading.Event()

    def say(line: str) -> None:
        lines.append(line)
        explained.set()

    monkeypatch.setattr(parallel, "say_error", say)
    monkeypatch.setattr(parallel, "_QUIET", 0.01)
    with pytest.raises(KeyboardInterrupt):
        list(ordered_map(lambda _: explained.wait(10), interrupted(), workers=2))
    assert lines == ["waiting for the work in progress; a web address can take two minutes"]


def test_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores() == len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert usable_cores() == 1
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1
