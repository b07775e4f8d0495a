from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from whichcar.search.live_table import LiveTable, Row, Status

from .conftest import DRIVER, Sweeps


@pytest.mark.slow
def test_without_a_terminal_each_trial_is_one_line_with_the_time_left(sweeps: Sweeps) -> None:
    with sweeps.start() as process:
        _, err = process.communicate(timeout=60)
    lines = err.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(
        r"trial 1: val_accuracy 0\.\d{4}, 0:\d\d \(dropout_rate 0\.\d+, batch_size \d\d\); "
        r"2/3 done, best 0\.\d{4} \(trial \d\), 0:\d\d left",
        lines[1],
    )


@pytest.mark.slow
def test_on_a_terminal_a_table_shows_running_trials(sweeps: Sweeps) -> None:
    sweeps.write_base(seconds=2.0)
    sweeps.write(budget={"trials": 1})
    master, terminal = pty.openpty()
    command = [sys.executable, str(DRIVER), "sweep", str(sweeps.file)]
    environment = {**os.environ, "WHICHCAR_QUIET": "0", "COLUMNS": "120", "LINES": "40", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal, env=environment) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                shown += os.read(master, 65536)
            except OSError:  # the other end is closed
                break
        assert process.wait(30) == 0
    os.close(master)
    text = shown.decode()
    for column in ("trial", "epoch", "val_accuracy", "time", "values"):
        assert column in text
    assert "1/1 done, best 0." in text
    assert re.search(r"│ +0 │ +1/3 │ +0\.\d{4} │", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text))


def test_while_a_table_is_on_the_terminal_rows_go_to_standard_output_and_the_search_survives_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    master, terminal = pty.openpty()
    stream = os.fdopen(terminal, "w")
    monkeypatch.delenv("WHICHCAR_QUIET")
    monkeypatch.setattr("sys.stderr", stream)
    spec = SimpleNamespace(name="few", sweep=SimpleNamespace(parallel=1, objective=SimpleNamespace(metric="loss")))
    status = Status(Counter(running=1), 3, None, None, (), None)
    with LiveTable(spec) as table:  # type: ignore[arg-type]
        table.show(status)
        sys.stdout.write("a row\n")
        os.close(master)
        table.say("trial 0: complete")
        table.show(status, last=True)
    assert capsys.readouterr().out == "a row\n"
    with contextlib.suppress(OSError):
        stream.close()


def test_the_time_left_accounts_for_running_trials() -> None:
    rows = (Row(2, 1, 3, None, 4.0, {}), Row(3, 2, 3, None, 99.0, {}))
    status = Status(Counter(complete=1, failed=1, running=2), 6, 0, 0.5, rows, 10.0)
    # four are not ended: 40 seconds, of which 4 and (of one that takes long) 10 are done
    assert status.seconds_left(1) == pytest.approx(26)
    assert status.seconds_left(2) == pytest.approx(13)
    assert Status(Counter(), 6, None, None, (), None).seconds_left(1) is None
