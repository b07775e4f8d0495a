from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ALL_KINDS = "Citroën 車 🚗 caf\udce9"
COMMAND = [sys.executable, "-m", "whichcar"]


def with_command(body: str) -> list[str]:
    """Return a command line whose sub-command `try` has this body."""
    code = "import sys, json, time; from whichcar.cli import main as cli; from whichcar.cli.streams import say_lines\n"
    code += f"@cli.whichcar.command('try')\ndef _():\n  {body}\n"
    return [sys.executable, "-c", f"{code}sys.exit(cli.run(['try']))"]


def shell(redirection: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command with its streams as a shell arranges them."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *words], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "utf-8:strict"])
def test_every_text_is_printed_whatever_the_encoding(encoding: str) -> None:
    command = with_command(f"say_lines([json.dumps({ALL_KINDS!r}, ensure_ascii=False)])")
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}, check=True)
    assert json.loads(done.stdout.decode(encoding.partition(":")[0])) == ALL_KINDS
    assert done.stderr == b""


def test_an_error_is_printed_whatever_the_encoding(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(
        [*COMMAND, "config", f"{tmp_path}/Citroën.yml"], capture_output=True, env=environment, check=False
    )
    assert done.returncode == 2
    assert b"Citro\\u00ebn.yml" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["config"], ["detectors"]])
def test_a_full_disk_is_one_line_and_status_2(
    words: list[str], unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    done = shell(">/dev/full", *COMMAND, *words)
    assert (done.returncode, done.stderr) == (2, "error: standard output: No space left on device\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_help_on_a_full_disk_is_one_line_and_status_2(unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    done = shell(">/dev/full", *COMMAND, "config", "--help")
    assert (done.returncode, done.stderr) == (2, "error: No space left on device\n")


def test_a_full_disk_in_the_middle_of_the_rows_is_one_line() -> None:
    done = shell(">/dev/full", *with_command("say_lines('x' * 99 for _ in range(9999))"))
    assert (done.returncode, done.stderr) == (2, "error: standard output: No space left on device\n")


def test_a_file_that_the_system_refuses_is_one_line(tmp_path: Path) -> None:
    done = shell("", *with_command(f"open({str(tmp_path)!r}, 'w')"))
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path}: Is a directory\n")


def test_a_closed_standard_output_is_refused() -> None:
    done = shell(">&-", *COMMAND, "config")
    assert done.returncode == 2
    assert done.stderr == "error: standard output is closed; send it to a file, or to /dev/null\n"


@pytest.mark.parametrize("redirection", ["2>&-", "<&-", "<&- 2>&-", "2>/dev/full"])
def test_a_closed_input_or_standard_error_does_not_matter(redirection: str) -> None:
    done = shell(redirection, *COMMAND, "config")
    assert done.returncode == 0
    assert "data.directory" in done.stdout
    failed = shell(redirection, *COMMAND, "config", "gone.yml")
    assert (failed.returncode, failed.stdout) == (2, "")


def test_a_file_opened_later_does_not_take_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    body = f"file = open({str(tmp_path / 'a')!r}, 'w'); say_lines([str(file.fileno() > 2)])"
    assert shell("<&- 2>&-", *with_command(body)).stdout == "True\n"


def test_rows_before_ctrl_c_are_printed() -> None:
    body = "say_lines(str(n) if n < 3 else time.sleep(60) for n in range(9))"
    with subprocess.Popen(with_command(body), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert [process.stdout.readline() for _ in range(3)] == ["0\n", "1\n", "2\n"]  # each as soon as it is ready
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read().split() == ["interrupted"]
