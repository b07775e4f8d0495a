import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from whichcar.cli import main
from whichcar.errors import DataError, Interrupted

COMMANDS = (
    "fetch",
    "check",
    "split",
    "explore",
    "crop",
    "detectors",
    "config",
    "cache",
    "new",
    "train",
    "sweep",
    "evaluate",
    "predict",
    "models",
    "compare",
    "export",
    "serve",
    "demo",
)
HEAVY = ("numpy", "PIL", "pydantic", "yaml", "rich", "keras", "tensorflow", "jax", "matplotlib")


def in_new_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("start", ["import whichcar", "from whichcar.cli.main import run; run(['--help'])"])
def test_nothing_heavy_is_loaded_for_help(start: str) -> None:
    code = f"{start}\nimport sys\nprint('loaded:', [name for name in {HEAVY!r} if name in sys.modules])"
    assert in_new_process(code).rstrip().endswith("loaded: []")


def test_a_photo_is_answered_without_what_other_work_needs(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WHICHCAR_DETECTOR", raising=False)
    photo = str(next((drawn / "car_ims").iterdir()))
    start = f"from whichcar.cli.main import run; assert run(['predict', {photo!r}, '--json']) == 0"
    unused = ("pydantic", "yaml", "requests", "rich", "PIL.ImageDraw", "PIL.ImageCms", "whichcar.taxonomy")
    code = f"{start}\nimport sys\nprint('loaded:', [name for name in {unused!r} if name in sys.modules])"
    row, loaded = in_new_process(code).splitlines()
    assert json.loads(row)["outcome"], "the detector ran"
    assert loaded == "loaded: []"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([command, "--help"]) == 0
    assert f"  whichcar {command}" in capsys.readouterr().out.split("Example", 1)[1]


def test_commands_are_listed_in_the_order_of_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    main.run(["--help"])
    listed = capsys.readouterr().out.split("Commands:")[1].split("Environment variables:")[0]
    assert re.findall(r"^  (\w+)", listed, re.MULTILINE) == list(COMMANDS)


def test_a_mistake_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main.run(["split", str(tmp_path), str(tmp_path / "no.csv"), str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert status == 2
    assert error.startswith("error: ")
    assert "no.csv" in error
    assert error.count("\n") == 1


def test_all_mistakes_of_a_settings_file_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.yml"
    file.write_text("seed: 1\ndata: {directory: d}\nmodel: {droput_rate: 0.1}\nfit: {epochs: 0}\n")
    assert main.run(["config", str(file)]) == 2
    error = capsys.readouterr().err
    assert "2 problems" in error
    assert "model.droput_rate" in error
    assert "fit.epochs" in error


def test_an_unknown_option_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["train", "config.yml", "--no-such"]) == 2
    assert "No such option" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("whichcar.data.decoded_cache.list_caches", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main.run(["cache"])


def test_an_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("whichcar.data.decoded_cache.list_caches", stopped)
    assert main.run(["cache"]) == 130


def test_an_interrupt_while_the_command_is_loaded_is_one_line() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, function = project["scripts"]["whichcar"].split(":")
    code = (
        f"import sys; from {module} import {function} as command\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'click': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "command()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "interrupted\n")


def with_command(*body: str) -> list[str]:
    """Return the command line of a process whose command has this body."""
    code = (
        "import multiprocessing, sys, time; from whichcar.__main__ import main; from whichcar.cli import main as cli\n"
        "from whichcar.cli.streams import say\n"
        "@cli.whichcar.command('try')\n"
        f"def _():\n{''.join(f'    {line}' + chr(10) for line in body)}"
        "sys.argv[1:] = ['try']\n"
        "main()"
    )
    return [sys.executable, "-c", code]


def start(*words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    """Start the first process of a group, and wait for its first line."""
    process = subprocess.Popen(
        words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def test_calls_that_are_running_after_an_interrupt_are_not_waited_for_and_exit_functions_run() -> None:
    body = (
        "import atexit, threading",
        "atexit.register(say, 'cleaned')",
        "threading.Thread(target=time.sleep, args=(120,)).start()",
        "raise KeyboardInterrupt",
    )
    done = subprocess.run(with_command(*body), capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "cleaned\n", "\ninterrupted\n")


def test_ctrl_c_ends_the_loop_of_a_shell() -> None:
    waits = with_command("say('started')", "time.sleep(9)")
    with start("bash", "-c", 'for number in 1 2; do "$@"; done; echo "the end"', "bash", *waits) as shell:
        os.killpg(shell.pid, signal.SIGINT)  # as a terminal does
        assert shell.communicate(timeout=60) == ("", "\ninterrupted\n")
    assert shell.returncode == -signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_a_closed_terminal_end_a_command_as_ctrl_c_does(number: signal.Signals) -> None:
    cleans = ("try:", "    say('started')", "    time.sleep(60)", "finally:", "    say('cleaning')")
    with start(*with_command(*cleans, "    time.sleep(2)", "    say('clean')")) as process:
        process.send_signal(number)
        assert process.stdout is not None
        assert process.stdout.readline() == "cleaning\n"
        process.send_signal(number)  # as `timeout` and the shell of a closed terminal do
        assert process.communicate(timeout=60) == ("clean\n", "\ninterrupted\n")
    assert process.returncode == -signal.SIGINT


def test_a_closed_terminal_does_not_end_a_command_under_nohup() -> None:
    with start("nohup", *with_command("say('started')", "say(input())"), stdin=subprocess.PIPE) as process:
        process.send_signal(signal.SIGHUP)
        assert process.communicate("the end", timeout=60) == ("the end\n", "")
    assert process.returncode == 0


def test_a_process_that_a_library_forks_is_terminated_silently() -> None:
    body = (
        "outside, inside = multiprocessing.Pipe()",
        "wait = lambda: (inside.send('started'), time.sleep(60))",
        "forked = multiprocessing.get_context('fork').Process(target=wait)",
        "forked.start(); outside.recv(); forked.terminate(); forked.join(); say(str(forked.exitcode))",
    )
    done = subprocess.run(with_command(*body), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{-signal.SIGTERM}\n", "")


def test_an_interrupted_training_says_how_to_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise Interrupted("my exp: stopped in epoch 3")

    monkeypatch.setattr("whichcar.training.train.train", stopped)
    assert main.run(["train", "my exp/config.yml", "--set", "fit.epochs=3", "--track", "mlflow"]) == 130
    error = capsys.readouterr().err
    assert "my exp: stopped in epoch 3\n" in error
    assert "resume with: whichcar train 'my exp/config.yml' --set fit.epochs=3 --resume --track mlflow\n" in error


def test_a_reader_that_left_early_is_no_error() -> None:
    code = (
        "import sys; from whichcar.cli import main as cli; from whichcar.cli.streams import say_lines\n"
        "@cli.whichcar.command()\n"
        "def flood():\n"
        "    say_lines('x' * 99 for _ in range(99999))\n"
        "sys.exit(cli.run(['flood']))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


def test_split_says_what_went_where_and_what_did_not(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels.csv"
    rows = (drawn / "car_dataset_labels.csv").read_text()
    odd = '"two\nlines.jpg",Alder Meridian Sedan 2012,train\n,Alder Meridian Sedan 2012,train\n'
    labels.write_text(rows + "missing.jpg,Alder Meridian Sedan 2012,train\n" + odd)
    assert main.run(["split", str(drawn), str(labels), str(tmp_path / "v1"), "--validation", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "4 classes\n" in out
    assert "train 24 images, 12 of them for validation; test 8 images\n" in out
    assert "3 rows could not be used" in out
    assert "    missing.jpg: " in out
    assert "    two\\nlines.jpg: " in out
    assert "    (no name): img_name is empty" in out
    assert json.loads((tmp_path / "v1" / "split.json").read_text())["validation_share"] == 0.5


def test_config_shows_where_each_setting_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.yml"
    file.write_text("seed: 1\ndata: {directory: d}\n")
    assert main.run(["config", str(tmp_path), "--set", "fit.epochs=3"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["seed", "file", "1"] in lines
    assert ["fit.epochs", "--set", "3"] in lines
    assert ["data.batch_size", "default", "32"] in lines


def test_config_prints_values_as_a_file_has_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.yml"
    file.write_text(
        "seed: 1\n"
        "data: {directory: Citroën}\n"
        "recipe: {stages: [{epochs: 4, image_size: [64, 96]}, {epochs: 2, image_size: [128, 192]}]}\n"
    )
    assert main.run(["config", str(file)]) == 0
    out = capsys.readouterr().out
    values = {line.split()[0]: line.split(maxsplit=2)[2] for line in out.splitlines()}
    assert values["recipe.stages"] == "[{epochs: 4, image_size: [64, 96]}, {epochs: 2, image_size: [128, 192]}]"
    assert values["data.directory"] == "Citroën"
    overrides = [f"{name}={value}" for name, value in values.items()]
    assert main.run(["config", str(file), *(word for override in overrides for word in ("--set", override))]) == 0
    again = capsys.readouterr().out
    assert {line.split()[0]: line.split(maxsplit=2)[2] for line in again.splitlines()} == values


def test_cache_lists_and_clears(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from whichcar.data.decoded_cache import decode_all

    decode_all(sorted((drawn / "car_ims").glob("*.jpg")), (32, 32))
    assert main.run(["cache"]) == 0
    assert "32x32" in capsys.readouterr().out
    assert main.run(["cache", "clear"]) == 0
    assert main.run(["cache"]) == 0
    assert "no cache" in capsys.readouterr().out


def test_clearing_an_unknown_cache_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["cache", "clear", "abc"]) == 2
    assert "no cache abc" in capsys.readouterr().err


def test_an_error_of_ours_from_python_is_a_value_error() -> None:
    assert issubclass(DataError, ValueError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "exp", "a.jpg", "--json", "--csv"), "--json and --csv exclude each other"),
        (("predict", "exp", "a.jpg", "--csv", "--json"), "--json and --csv exclude each other"),
        (("train", "exp", "--resume", "--overwrite"), "resume and overwrite exclude each other"),
        (("train", "exp", "--overwrite", "--resume"), "resume and overwrite exclude each other"),
        (("compare", "exp", "--block", "crops"), "--block needs --write FILE"),
        (("export", "exp", "--format", "openvino"), "--format needs --plain DIR"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["nope"], ["split"], ["split", "photos"], ["check"], ["check", "photos", "--smallest", "0"], ["crop", "--nope"]],
)
def test_a_wrong_command_line_is_reported_like_any_other_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == 2
    *usage, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert usage[0].startswith("Usage: whichcar")
    assert not any("rror: " in line for line in usage)


def test_split_without_an_output_reports_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["split", str(tmp_path)]) == 2
    assert f"error: no output folder; give one: whichcar split {tmp_path} OUTPUT" in capsys.readouterr().err
