"""An experiment's folder: whose it is, what lies in it, and that no two runs write into it."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import math
import os
import platform
import re
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, Literal

from whichcar.config import Experiment
from whichcar.errors import ConfigError, DataError, TrainingError
from whichcar.files import read_json, write_json
from whichcar.text import shell_command
from whichcar.training.checkpoint import BEST
from whichcar.training.hardware import Hardware
from whichcar.training.state import NAME as STATE
from whichcar.training.uses import keep_uses
from whichcar.version import VERSION

RESOLVED = "resolved.json"
SPARED = "best-"  # before the name of a best checkpoint whose own name another epoch took
TRACKING = "tracking.json"
Ending = Literal["finished", "stopped", "failed"]
# What a run and its evaluation leave besides checkpoints, and `--overwrite` takes away.
LEFT = ("history.csv", "curves.png", "environment.json", TRACKING, "result.json", "predictions.csv", "report.html")
PACKAGES = ("keras", "tensorflow-cpu", "tensorflow", "jax", "numpy", "onnxruntime", "pillow")


class ExperimentFolder:
    """The folder of one run. Opening it takes a lock, which the operating system drops with the process."""

    def __init__(self, config_path: Path, experiment: Experiment) -> None:
        self.config_path = config_path
        self.path = folder_of(config_path)
        callbacks = experiment.fit.callbacks
        self.pattern = self._own(callbacks.model_checkpoint.filepath, "model_checkpoint.filepath")
        self.logs = self.path / self._own(callbacks.tensor_board.log_dir, "tensor_board.log_dir")
        self.state = self.path / "state" / STATE
        self._settings = experiment.model_dump(mode="json", exclude={"hardware"})
        self._weights = Path(experiment.model.weights or "").expanduser().resolve()
        self._lock: IO[str] | None = None

    def open(self, resume: bool, overwrite: bool) -> bool:
        """Take the folder for this run; True if there is something to go on from.

        Raises:
            TrainingError: another process trains here, or the folder holds another or an unfinished run.
        """
        self._take()
        record = self.path / RESOLVED
        if overwrite:
            self._clear()
        elif record.exists():
            known = self._resolved()
            if known["settings"] != self._settings:
                difference = first_difference(known["settings"], self._settings)
                raise TrainingError(
                    f"{self.path}: holds a run with other settings ({difference}); use a folder of its own "
                    "for each experiment, or --overwrite to start anew"
                )
            if not resume and not known["finished"]:
                raise TrainingError(f"{self.path}: holds an unfinished run; go on with --resume, or --overwrite it")
        return self.state.exists()

    @property
    def finished(self) -> bool:
        """True when this experiment was trained to its end."""
        return (self.path / RESOLVED).exists() and bool(self._resolved()["finished"])

    def describe(self, hardware: Hardware, about: dict[str, Any], finished: bool) -> None:
        """Write resolved.json, environment.json and, where the config came from elsewhere, config.yml."""
        kept = self.path / "config.yml"
        if not finished and kept.resolve() != self.config_path.resolve():
            shutil.copyfile(self.config_path, kept)
        write_json(self.path / RESOLVED, {"finished": finished, "settings": self._settings, **about})
        if not finished:
            write_json(self.path / "environment.json", environment(hardware))

    def _resolved(self) -> dict[str, Any]:
        filepath = "settings.fit.callbacks.model_checkpoint.filepath"
        return read_json(self.path / RESOLVED, {"finished": bool, filepath: str}, "start over with --overwrite")

    def write_best(self, record: dict[str, Any]) -> None:
        """Name the checkpoint that evaluation uses."""
        unknown = [key for key, value in record.items() if isinstance(value, float) and math.isnan(value)]
        write_json(self.path / BEST, record | dict.fromkeys(unknown))

    def read_best(self) -> dict[str, Any]:
        """Return what best.json holds."""
        return read_json(self.path / BEST, {"checkpoint": str}, "start over with --overwrite")

    def close(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take(self) -> None:
        lock = self.path / "state" / "lock"
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            self._lock = lock.open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise TrainingError(f"{self.path}: another process trains here; wait for it or stop it") from None
        except OSError as error:
            raise TrainingError(f"{self.path}: cannot be written ({error.strerror})") from error

    def _clear(self) -> None:
        """Delete the run that is here, but neither the weights that the new one starts from nor what is not ours.

        The count of evaluations on the test set stays: it belongs to the images, not to the run.
        """
        keep_uses(self.path)
        for checkpoint in self._checkpoints():
            if checkpoint.resolve() != self._weights:
                checkpoint.unlink()
        for name in (RESOLVED, BEST, *LEFT):
            (self.path / name).unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)
        for folder in (self.logs, self.path / "plots"):
            shutil.rmtree(folder, ignore_errors=True)

    def _checkpoints(self) -> list[Path]:
        """The checkpoints of the run that is here, by the pattern it was given."""
        record = self.path / RESOLVED
        pattern = self.pattern
        if record.exists():
            with contextlib.suppress(DataError):  # damaged: most runs have the same pattern
                settings = self._resolved()["settings"]
                pattern = Path(settings["fit"]["callbacks"]["model_checkpoint"]["filepath"]).name
        return list(self.path.glob("*".join(map(glob.escape, re.split(r"{.*?}", pattern)))))

    def _own(self, name: str, key: str) -> str:
        given = Path(name).expanduser()
        if len(given.parts) > 1 and given.parent.resolve() != self.path.resolve():
            raise ConfigError(
                f"{self.config_path}: fit.callbacks.{key}: lies in {given.parent}, not in this experiment's folder "
                f"{self.path}; give only the name: {given.name}"
            )
        return given.name


def folder_of(config_path: Path) -> Path:
    """The folder a config belongs to: its own if it is called config.yml, else one of its name beside it."""
    if not config_path.is_file():
        raise ConfigError(f"{config_path}: no such file; give an experiment's config.yml")
    return config_path.parent if config_path.stem == "config" else config_path.with_suffix("")


def environment(hardware: Hardware) -> dict[str, Any]:
    """What a run ran on and how it was called."""
    return {
        "command": shell_command(words_called()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "backend": hardware.backend,
        "precision": hardware.precision,
        "device": hardware.device,
        "cores": hardware.cores,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
        "versions": versions(),
    }


def words_called() -> list[str]:
    """Return the command that runs this, as it is typed: `python -m whichcar` is `whichcar`."""
    program = Path(sys.argv[0])
    return [program.parent.name if program.name == "__main__.py" else program.name, *sys.argv[1:]]


def versions() -> dict[str, str]:
    """Versions of this package and of those that a result depends on, as far as they are installed."""
    found = {"whichcar": VERSION}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def first_difference(known: Any, now: Any, path: str = "") -> str:  # noqa: ANN401
    """Return the first setting in which two nested settings differ, with both values."""
    if isinstance(known, dict) and isinstance(now, dict):
        for key in sorted(known.keys() | now.keys()):
            if known.get(key) != now.get(key):
                return first_difference(known.get(key), now.get(key), f"{path}.{key}".lstrip("."))
    return f"{path}: {known} there, {now} here"
