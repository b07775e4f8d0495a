"""A trial that another process took over while this one was paused is left to it."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from whichcar.search import trial as module
from whichcar.search.lease import LEASE, Lease
from whichcar.search.space import read_spec
from whichcar.search.study import draw, latest, new_trial
from whichcar.search.trial import KILLS, RunningTrial
from whichcar.training.run.history import Epoch, write_history

from .conftest import Sweeps

if TYPE_CHECKING:
    import optuna


class Fake:
    """A process that runs until it is killed, and what launches it."""

    def __init__(self) -> None:
        self.launched = 0
        self.status: int | None = None

    def launch(self, config: Path, slot: int, slots: int) -> Fake:
        self.launched += 1
        return self

    def poll(self) -> int | None:
        return self.status

    def terminate(self) -> None:
        self.kill()

    def kill(self) -> None:
        self.status = -signal.SIGKILL

    def wait(self) -> int:
        return -signal.SIGKILL


@pytest.fixture
def process() -> Fake:
    return Fake()


@pytest.fixture
def started(sweeps: Sweeps, process: Fake) -> tuple[RunningTrial, optuna.Trial]:
    """A trial that this process runs, and the same in the study."""
    import optuna

    spec, lease = read_spec(sweeps.file), Lease()
    stored = new_trial(optuna.create_study(), spec, lease)
    running = RunningTrial(stored, draw(stored, spec), spec, lease, process, 0)
    assert running.start() is None and process.launched == 1
    return running, stored


@pytest.mark.parametrize("act", [RunningTrial.release, RunningTrial.poll])
def test_a_trial_taken_over_during_a_pause_keeps_the_lease_of_its_new_owner(
    started: tuple[RunningTrial, optuna.Trial],
    process: Fake,
    act: Callable[[RunningTrial], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running, stored = started
    owner = Lease().record()
    stored.set_user_attr(LEASE, owner)
    process.kill()  # as memory ran out
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.0)
    act(running)
    attributes = latest(stored).user_attrs
    assert attributes[LEASE] == owner
    assert KILLS not in attributes and process.launched == 1  # nor is it started a second time


@pytest.mark.parametrize("is_last", [True, False])
def test_a_trial_is_not_pruned_after_the_last_epoch_that_it_trains(
    started: tuple[RunningTrial, optuna.Trial], monkeypatch: pytest.MonkeyPatch, is_last: bool
) -> None:
    running, _ = started
    names = [field.name for field in dataclasses.fields(Epoch)]
    epoch = Epoch(**dict.fromkeys(names, 1) | {"image_size": "32x32", "checkpoint": ""})
    write_history(running.folder / "history.csv", [epoch])
    monkeypatch.setattr(running._trial, "should_prune", lambda: True)
    running.epochs = 1 if is_last else 2
    ended = running.poll()
    assert (ended is None) if is_last else (ended is not None and ended.outcome == "pruned")


def test_the_epochs_of_a_trial_are_those_that_it_trains(sweeps: Sweeps) -> None:
    sweeps.write(set={"fit.stop_after": 2})
    assert read_spec(sweeps.file).epochs == 2


def test_a_trial_that_is_still_held_is_released(started: tuple[RunningTrial, optuna.Trial], process: Fake) -> None:
    running, stored = started
    running.release()
    assert process.status is not None
    assert latest(stored).user_attrs[LEASE] is None
    assert latest(stored).user_attrs["seconds"] > 0
