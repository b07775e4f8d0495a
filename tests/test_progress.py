import errno
import io
import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from whichcar.progress import Bar, track


def test_track_yields_the_items_and_writes_one_line_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WHICHCAR_QUIET", raising=False)
    assert list(track(["a", "b", "c"], "reading")) == ["a", "b", "c"]
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"reading: 3/3 images, [\d.]+ images/s, 0:00 in all\n", err)


def test_a_generator_is_counted_without_a_total(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WHICHCAR_QUIET", raising=False)
    assert sum(track((n for n in range(4)), "adding", unit="numbers")) == 6
    assert capsys.readouterr().err.startswith("adding: 4 numbers, ")
    assert list(track(iter("a"), "adding")) == ["a"]
    assert capsys.readouterr().err.startswith("adding: 1 image, ")
    assert list(track(iter("a"), "adding", unit="batches")) == ["a"]
    assert capsys.readouterr().err.startswith("adding: 1 batch, ")


def test_an_error_before_the_first_item_stands_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WHICHCAR_QUIET", raising=False)
    with pytest.raises(ValueError, match="no list"):
        list(track((int("no list") for _ in range(1)), "reading"))
    assert capsys.readouterr().err == ""


def test_quiet_writes_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHICHCAR_QUIET", "1")
    assert list(track([1, 2], "reading")) == [1, 2]
    assert capsys.readouterr().err == ""


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time on the clock, in its only item, while bars are shown."""
    monkeypatch.delenv("WHICHCAR_QUIET", raising=False)
    time = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: time[0])
    return time


def test_a_line_says_rate_time_left_and_values(capsys: pytest.CaptureFixture[str], now: list[float]) -> None:
    with Bar("epoch 1", 100) as bar:
        now[0] += 5
        bar.update(20, loss=1.23456, state="warm-up")
        assert capsys.readouterr().err == ""
        now[0] += 5
        bar.update(20, loss=0.98765)
        line = capsys.readouterr().err
        assert line == "epoch 1: 40/100 images, 4 images/s, 0:15 left, loss 0.9877, state warm-up\n"


def test_earlier_work_counts_neither_for_the_rate_nor_for_the_time_left(
    capsys: pytest.CaptureFixture[str], now: list[float]
) -> None:
    with Bar("fetching", 1000, "kB", done=900) as bar:
        now[0] += 10
        bar.update(20)
        assert capsys.readouterr().err == "fetching: 920/1000 kB, 2 kB/s, 0:40 left\n"
    assert capsys.readouterr().err == "fetching: 920/1000 kB, 2 kB/s, 0:10 in all\n"
    with pytest.raises(ValueError, match="no list"), Bar("fetching", 1000, "kB", done=900):
        int("no list")
    assert capsys.readouterr().err == ""  # nothing was done now


def test_a_slow_start_is_forgotten_after_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with Bar("epoch 1", 1000) as bar:
        now[0] = 120.0  # compiling
        for _ in range(40):
            now[0] += 1
            bar.update(10)
        assert "400/1000 images, 10 images/s, 1:00 left" in bar._text(now[0])


def test_an_error_still_ends_the_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WHICHCAR_QUIET", raising=False)
    with pytest.raises(KeyboardInterrupt), Bar("training", 10) as bar:
        bar.update(3)
        raise KeyboardInterrupt
    assert capsys.readouterr().err.startswith("training: 3/10 images")


def on_a_terminal(code: str, output: Path) -> str:
    """Run Python code with a terminal as standard error and a file as standard output; return what is shown."""
    leader, follower = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "WHICHCAR_QUIET": ""}
    with output.open("w") as file:
        command = [sys.executable, "-c", code]
        subprocess.run(command, stdout=file, stderr=follower, env=environment, timeout=60, check=True)
    shown = b""
    while select.select([leader], [], [], 0.2)[0]:
        shown += os.read(leader, 65536)
    os.close(leader)
    os.close(follower)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_shows_a_moving_bar(tmp_path: Path) -> None:
    code = "from whichcar.progress import track; list(track(range(50), 'cut [bold]', unit='boxes'))"
    shown = on_a_terminal(code, tmp_path / "out")
    assert "cut [bold]" in shown and "50/50 boxes" in shown


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_rows_go_to_their_file_and_warnings_to_lines_of_their_own_while_a_bar_is_on_the_terminal(
    tmp_path: Path,
) -> None:
    code = """
import logging
from whichcar.cli import main, streams
from whichcar.progress import track
main.run(["--version"])
for number in track(range(3), "predicting"):
    streams.say(f"row {number}")
    logging.getLogger("whichcar").warning("odd %d", number)
"""
    shown = on_a_terminal(code, tmp_path / "rows")
    assert (tmp_path / "rows").read_text().splitlines()[1:] == ["row 0", "row 1", "row 2"]
    assert [line.rpartition("\r")[2] for line in shown.split("\r\n") if "odd" in line] == ["odd 0", "odd 1", "odd 2"]
    assert "3/3 images" in shown and "row" not in shown


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_that_goes_away_does_not_end_the_work(tmp_path: Path) -> None:
    code = """
import os
from whichcar.progress import Bar
leader, follower = os.openpty()
os.dup2(follower, 2)
with Bar("training", 3) as bar:
    os.close(leader)
    bar.update()
print("trained")
"""
    on_a_terminal(code, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "trained\n"


def test_lines_that_cannot_be_written_do_not_end_the_work(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            lines.append(text)
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stderr", Full())
    with Bar("training", 40) as bar:
        now[0] += 10
        bar.update(20)
    assert [line.partition(",")[0] for line in lines] == ["training: 20/40 images"] * 2


def test_importing_progress_does_not_load_rich() -> None:
    code = "import sys, whichcar.progress; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_to_do_shows_no_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("WHICHCAR_QUIET")
    assert list(track([], "writing the page")) == []
    assert capsys.readouterr().err == ""
    assert list(track([1], "writing the page")) == [1]
    assert "writing the page: 1/1" in capsys.readouterr().err
