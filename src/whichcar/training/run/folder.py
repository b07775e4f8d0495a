"""An experiment's folder: which run it holds, its files, and the lock that keeps a second run out."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import os
import platform
import shutil
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from whichcar.config.experiment import Experiment
from whichcar.config.load import folder_of
from whichcar.config.section import shown
from whichcar.environment import expanded
from whichcar.errors import ConfigError, DataError, TrainingError
from whichcar.files import BEST, CONFIG, ENVIRONMENT, LOCK, RESOLVED, STATE, locked, read_json, write_json
from whichcar.text import command_line
from whichcar.training.hardware import Hardware
from whichcar.training.hosts import trains_in_copy
from whichcar.training.run.overwriting import (
    LEFT,
    files_of_run,
    is_set_aside,
    put_back,
    remove_half_written,
    remove_previous,
    set_aside,
)
from whichcar.training.run.refits import refitted
from whichcar.training.run.test_uses import keep_uses
from whichcar.version import VERSION

log = logging.getLogger(__name__)
PACKAGES = ("keras", "tensorflow-cpu", "tensorflow", "jax", "numpy", "onnxruntime", "pillow")
# Settings that only affect the length of a run: they may change when it is resumed.
LENGTH = (("fit", "epochs"), ("fit", "stop_after"), ("fit", "callbacks", "early_stopping"), ("recipe", "stages"))


class ExperimentFolder:
    """The folder of one run. Opening it takes a lock, which the operating system releases when the process ends."""

    def __init__(self, config_path: Path, experiment: Experiment) -> None:
        self.config_path = config_path
        self.path = folder_of(config_path)
        callbacks = experiment.fit.callbacks
        self.pattern = self._own(callbacks.model_checkpoint.filepath, "model_checkpoint.filepath")
        self.logs = self.path / self._own(callbacks.tensor_board.log_dir, "tensor_board.log_dir")
        self.state = self.path / STATE
        self._settings = experiment.model_dump(mode="json", exclude={"hardware"})
        self._weights = expanded(experiment.model.weights or "").resolve()
        self._lock: contextlib.ExitStack | None = None
        self.finished = False  # after `open`: whether the run is finished and its settings are unchanged
        self.class_folders: list[str] = []  # after `open`: class folders of the existing run
        self.changed = False  # after `open`: whether the run is resumed with another length
        self.rescheduled = False  # after `open`: whether `fit.epochs`, which the schedule is computed for, is another

    def open(self, resume: bool, overwrite: bool) -> bool:
        """Lock the folder for this run; return whether there is a state to resume from.

        An earlier run is left untouched: `set_aside` hides it once the new run is certain to start.

        Raises:
            TrainingError: another process is training here, or the folder holds another or an unfinished run.
        """
        self._take()
        put_back(self.path)
        remove_previous(self.path)
        remove_half_written(self.path)
        if overwrite:
            return False
        record = self._record()
        if record is not None:
            self.class_folders = record.get("class_folders") or []
            self._compare(record["settings"], record["finished"], resume)
        return self.state.exists()

    def _compare(self, known: dict[str, Any], finished: bool, resume: bool) -> None:
        """Compare the settings of the run in the folder with the settings of this run.

        A setting that did not exist in an earlier version counts as its default.
        """
        defaults = Experiment.model_validate({"seed": 0, "data": {"directory": "."}}).model_dump(mode="json")
        del defaults["hardware"]
        known = _filled(known, defaults)
        self.changed = known != self._settings
        self.rescheduled = known["fit"]["epochs"] != self._settings["fit"]["epochs"]
        others = _without_length(known), _without_length(self._settings)
        same_but_length = others[0] == others[1]
        if self.changed and not (resume and same_but_length):
            difference = first_difference(known, self._settings) if same_but_length else first_difference(*others)
            raise TrainingError(
                f"{self.path}: holds a run with other settings ({difference}); "
                f"{'train on with --resume, ' if same_but_length else ''}use a folder of its own for each experiment, "
                "or start over with --overwrite"
            )
        self.finished = finished and not self.changed
        if not resume and not self.finished:
            raise TrainingError(f"{self.path}: holds an unfinished run; resume with --resume, or --overwrite it")
        if not finished and not self.state.exists():
            log.warning("%s: no state has been saved: training starts from the first epoch", self.path)
        if finished and self.changed and not self.state.exists():
            raise TrainingError(
                f"{self.path}: cannot be trained on, since {self.state} is gone; start over with --overwrite, or give "
                "its checkpoint to a new experiment as model.weights"
            )

    @property
    def _has_copy(self) -> bool:
        """Whether the config is in another folder, so that this folder keeps a copy of it."""
        return self.config_path.parent.resolve() != self.path.resolve()

    def set_aside(self) -> None:
        """Hide the earlier run until `write_best` deletes it; otherwise `close` restores it, if it had any results.

        The count of evaluations on the test set stays: it belongs to the images, not to the run.
        """
        keep_uses(refitted(self.path) or self.path)
        files = list(files_of_run(self.path, self.pattern, self.logs.name))
        if self._has_copy and (self.path / CONFIG).exists():
            files.append(self.path / CONFIG)
        set_aside(self.path, files, self._weights)
        if not {self.path / BEST, self.state} & set(files):
            remove_previous(self.path)  # it has neither a checkpoint nor a state worth restoring

    @property
    def is_replacing(self) -> bool:
        """Whether an earlier run is set aside, to be deleted or restored."""
        return self._lock is not None and is_set_aside(self.path)

    def describe(self, hardware: Hardware, about: dict[str, Any], finished: bool) -> None:
        """Write resolved.json, environment.json and, if the config is in another folder, config.yml."""
        if not finished and self._has_copy:
            shutil.copyfile(self.config_path, self.path / CONFIG)
        write_json(self.path / RESOLVED, {"finished": finished, "settings": self._settings, **about})
        if not finished:
            write_json(self.path / ENVIRONMENT, environment(hardware))

    def write_best(self, record: dict[str, Any]) -> None:
        """Write which checkpoint evaluation uses, and delete an earlier run that is set aside."""
        unknown = [key for key, value in record.items() if isinstance(value, float) and math.isnan(value)]
        write_json(self.path / BEST, record | dict.fromkeys(unknown))
        remove_previous(self.path)

    def close(self) -> None:
        """Release the folder, and restore the earlier run if this one has written no checkpoint."""
        if self._lock is not None:
            put_back(self.path)
            self._lock.close()
            self._lock = None

    def _take(self) -> None:
        lock = contextlib.ExitStack()
        try:
            lock.enter_context(locked(self.path / LOCK))
        except BlockingIOError:
            raise TrainingError(f"{self.path}: another process trains here; wait for it or stop it") from None
        except OSError as error:
            raise TrainingError(
                f"{self.path}: cannot be written ({error.strerror}); change its permissions, or train with a copy of "
                "the config in another folder"
            ) from error
        self._lock = lock

    def _record(self) -> dict[str, Any] | None:
        """Return the content of resolved.json in the folder, or None if there is none."""
        path = self.path / RESOLVED
        if not path.exists():
            return None
        try:
            return read_json(
                path,
                {"finished": bool, "settings": dict, "class_folders?": list},
                "put it back, or start over with --overwrite",
            )
        except DataError as error:
            raise TrainingError(str(error)) from error

    def _own(self, name: str, key: str) -> str:
        given = expanded(name)
        if len(given.parts) > 1 and not trains_in_copy() and given.parent.resolve() != self.path.resolve():
            raise ConfigError(
                f"{self.config_path}: fit.callbacks.{key}: lies in {given.parent}, not in this experiment's folder "
                f"{self.path}; give only the name: {given.name}"
            )
        if given.name in ("", "..", "state", *LEFT):
            raise ConfigError(f"{self.config_path}: fit.callbacks.{key}: {name!r} is taken; give another name")
        return given.name


def environment(hardware: Hardware) -> dict[str, Any]:
    """Return the command, hardware and package versions of a run."""
    return {
        "command": command_line(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "backend": hardware.backend,
        "precision": hardware.precision,
        "device": hardware.device,
        "devices": hardware.devices,
        "cores": hardware.cores,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of this package and of the installed packages that a result depends on."""
    installed = {"whichcar": VERSION}
    for name in PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def _filled(known: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return nested settings, with defaults for missing ones."""
    inner = {
        key: _filled(known[key], value)
        for key, value in defaults.items()
        if isinstance(value, dict) and isinstance(known.get(key), dict)
    }
    return {**defaults, **known, **inner}


def _without_length(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of nested settings without those in `LENGTH`."""
    copied = copy.deepcopy(settings)
    for *sections, key in LENGTH:
        inner: Any = copied
        for section in sections:
            inner = inner.get(section, {})
        inner.pop(key, None)
    return copied


def first_difference(known: Any, now: Any, path: str = "") -> str:  # noqa: ANN401
    """Return the first setting in which two nested settings differ, with both values."""
    if isinstance(known, dict) and isinstance(now, dict):
        for key in sorted(known.keys() | now.keys()):
            if known.get(key) != now.get(key):
                return first_difference(known.get(key), now.get(key), f"{path}.{key}".lstrip("."))
    return f"{path}: {shown(known)} there, {shown(now)} here"
