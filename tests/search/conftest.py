"""Sweeps of a trial program that takes half a second, in this process or in one that can be killed."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from whichcar.search.driver import Swept, sweep
from whichcar.search.launcher import LocalLauncher

PROGRAM = Path(__file__).with_name("trial_program.py")
DRIVER = Path(__file__).with_name("driver_program.py")


def command(config: Path) -> list[str]:
    return [sys.executable, str(PROGRAM), str(config)]


class Sweeps:
    """A sweep file in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "few.yml"
        self.folder = folder / "few"
        self.write_base()
        self.write()

    def write_base(self, failure: str = "images", seconds: float = 0.1, epochs: int = 3) -> None:
        base = {
            "seed": 1,
            "data": {"directory": failure, "image_size": [32, 32]},
            "fit": {"epochs": epochs},
            "hardware": {"save_minutes": seconds},  # how long an epoch of the trial program takes, in seconds
        }
        (self.file.parent / "base.yml").write_text(yaml.safe_dump(base))

    def write(self, **settings: object) -> None:
        space = {"model.dropout_rate": {"low": 0.0, "high": 0.5}, "data.batch_size": [16, 32]}
        content = {"base": "base.yml", "space": space, "budget": {"trials": 3}, **settings}
        self.file.write_text(yaml.safe_dump(content, sort_keys=False))

    def run(self, storage: str | None = None) -> Swept:
        return sweep(self.file, storage=storage, launcher=LocalLauncher(command))

    def start(self, *options: str, group: int | None = None) -> subprocess.Popen[str]:
        """Start the command in a process of its own (group 0: the first of its group); trials are the trial program."""
        return subprocess.Popen(
            [sys.executable, str(DRIVER), "sweep", str(self.file), *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "WHICHCAR_QUIET": "0"},
            process_group=group,
        )  # fmt: skip

    @property
    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "trials.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def outcomes(self) -> list[str]:
        return [row["outcome"] for row in self.rows]


def trial_processes(folder: Path) -> dict[int, str]:
    """The processes that run a trial in this folder, those in front of it included, with the trial's name."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_text(errors="replace").split("\0")
                dead = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            except OSError:
                continue
            trial = next((word for word in words if word.startswith(str(folder)) and word.endswith("config.yml")), None)
            if trial and not dead:
                found[int(entry.name)] = Path(trial).parent.name
    return found


@pytest.fixture
def sweeps(tmp_path: Path) -> Iterator[Sweeps]:
    made = Sweeps(tmp_path)
    yield made
    assert trial_processes(made.folder) == {}
