from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from whichcar.search import die_with_parent
from whichcar.search.launcher import LocalLauncher, how_it_ended, killed_from_outside
from whichcar.search.lease import Lease

from ..waiting import until


def launch(tmp_path: Path, code: str, slot: int = 0, slots: int = 1) -> LocalLauncher:
    launcher = LocalLauncher(lambda _: [sys.executable, "-c", code])
    process = launcher.launch(tmp_path / "config.yml", slot, slots)
    until(lambda: process.poll() is not None)
    return launcher


def test_parallel_trials_share_the_processors(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    for slot in range(2):
        launch(tmp_path, "import os; print(sorted(os.sched_getaffinity(0)))", slot, 2)
    message = (tmp_path / "log.txt").read_text().splitlines()
    assert message == [str(cores[0::2] or cores), str(cores[1::2] or cores)]


def test_parallel_trials_share_the_memory_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, deprecated = "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"
    for one in (name, deprecated):
        monkeypatch.delenv(one, raising=False)
    for slots, own in ((1, {}), (2, {}), (2, {name: "0.30"}), (2, {deprecated: "0.20"})):
        with monkeypatch.context() as patch:
            for key, value in own.items():
                patch.setenv(key, value)
            launch(tmp_path, f"import os; print(os.environ.get({name!r}), os.environ.get({deprecated!r}))", 0, slots)
    assert (tmp_path / "log.txt").read_text().splitlines() == ["None None", "0.45 None", "0.30 None", "None 0.20"]


def test_a_command_whose_parent_has_died_does_not_start(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", die_with_parent.__file__, "1", "0", sys.executable, "-c", "print('started')"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(
    ("status", "outside"),
    [(-signal.SIGKILL, True), (-signal.SIGINT, True), (130, True), (-signal.SIGSEGV, False), (2, False), (1, False)],
)
def test_a_kill_differs_from_a_crash(status: int, outside: bool) -> None:
    assert killed_from_outside(status) is outside


def test_the_exit_status_in_words() -> None:
    assert how_it_ended(3) == "exit status 3"
    assert how_it_ended(-signal.SIGSEGV) == "SIGSEGV"
    assert "memory" in how_it_ended(-signal.SIGKILL)


def test_the_lease_of_a_zombie_process_is_free() -> None:
    code = (
        "import json, sys, time; from whichcar.search.lease import Lease; "
        "print(json.dumps(Lease().record()), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        import json

        record = json.loads(process.stdout.readline())
        me = Lease()
        assert not me.is_free(0, record)
        process.kill()
        until(lambda: me.is_free(0, record))
        assert Path(f"/proc/{process.pid}").exists()  # dead, but still in the table of processes


def test_a_reused_process_number_does_not_hold_the_lease() -> None:
    me = Lease()
    record = me.record() | {"token": "another", "started": 1}
    assert me.is_free(0, record)


def test_a_released_trial_is_free_and_an_own_one_is_not() -> None:
    me = Lease()
    assert me.is_free(0, None)
    assert not me.is_free(0, me.record())
