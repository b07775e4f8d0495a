"""Files of an experiment that are truncated or hold something else: one line that names the file, in every command."""

from __future__ import annotations

from pathlib import Path

import pytest

from whichcar.cli.main import run
from whichcar.files import write_json

RESULT = {
    "command": "whichcar evaluate x", "time": "2026-01-01", "checkpoint": {"file": "a.h5"}, "image_size": [8, 8],
    "predictions": {"blake2b": "0"}, "classes": [], "warnings": [],
    "top_1": {"value": 0.5, "correct": 1, "total": 2, "interval_95": [0.1, 0.9]},
    "top_5": {"value": 1.0, "interval_95": [0.3, 1]}, "mean_recall": 0.5, "log_loss": 1, "most_confused": [],
    "data": {"split": "test", "root": "data", "fingerprint": "f", "images": 2, "evaluations": 1, "crops": False},
}  # fmt: skip
HISTORY = """epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,image_size,images_per_second,seconds,checkpoint
1,2.0,0.3,1.9,0.4,0.02,8x8,3.0,2.0,a.h5
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An experiment with all files that `compare` reads."""
    folder = tmp_path / "exp"
    write_json(folder / "result.json", RESULT)
    write_json(folder / "resolved.json", {"finished": True, "settings": {"seed": 1}})
    write_json(folder / "environment.json", {"command": "whichcar train"})
    write_json(folder / "best.json", {"checkpoint": "a.h5", "epoch": 1, "val_accuracy": 0.5, "image_size": [8, 8]})
    (folder / "history.csv").write_text(HISTORY)
    return folder


def message(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """Run a command that must end with one line on an input at fault."""
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


DAMAGED = ["", "{", "[]", "null", "\x00", '"text"', "[" * 100_000]


@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize("name", ["result.json", "resolved.json", "environment.json", "best.json", "test_uses.json"])
def test_compare_names_the_damaged_file(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    (folder / name).write_text(content)
    assert f"{folder / name}: damaged" in message(capsys, ["compare", str(folder)])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("result.json", RESULT | {"top_1": []}),
        ("result.json", RESULT | {"top_1": {"value": "much", "correct": 1, "total": 2, "interval_95": [0, 1]}}),
        ("result.json", RESULT | {"data": None}),
        ("result.json", {}),
        *(("result.json", RESULT | {name: None}) for name in ("mean_recall", "log_loss", "most_confused")),
        ("resolved.json", {"settings": []}),
        ("best.json", {"val_accuracy": "0.5"}),
        ("best.json", {"val_accuracy": True}),
        ("test_uses.json", {"f": []}),
    ],
)
def test_compare_names_what_is_of_another_kind(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, content: dict[str, object]
) -> None:
    write_json(folder / name, content)
    assert f"{folder / name}: damaged" in message(capsys, ["compare", str(folder)])


@pytest.mark.parametrize("content", ["epoch,seconds\n1,2\n", HISTORY + "x,y,z\n", HISTORY + "2\n"])
def test_compare_names_a_damaged_history(folder: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (folder / "history.csv").write_text(content + "2,3\n")
    assert f"{folder / 'history.csv'}: damaged" in message(capsys, ["compare", str(folder)])


@pytest.mark.parametrize("content", [*DAMAGED, "{}", '{"checkpoint": 3}', '{"checkpoint": []}'])
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_predict_and_evaluate_name_a_damaged_best_json(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, content: str
) -> None:
    (folder / "result.json").unlink()
    (folder / "best.json").write_text(content)
    arguments = [command, str(folder), *(["x.jpg"] if command == "predict" else [])]
    assert f"{folder / 'best.json'}: damaged" in message(capsys, arguments)


@pytest.mark.parametrize("content", [*DAMAGED, "{}", '{"finished": true, "settings": []}', '{"settings": {}}'])
@pytest.mark.parametrize("option", ["--resume", None])
def test_train_names_a_damaged_record_of_its_settings(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str | None, content: str
) -> None:
    (folder / "config.yml").write_text("seed: 1\ndata: {directory: data}\n")
    (folder / "resolved.json").write_text(content)
    arguments = ["train", str(folder / "config.yml"), *([option] if option else [])]
    assert f"{folder / 'resolved.json'}: damaged" in message(capsys, arguments)


def test_searches_with_damaged_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"metric": "val_accuracy", "sampler": "tpe", "pruner": "none", "command": "whichcar sweep x"}
    folder = tmp_path / "search"
    write_json(folder / "sweep.json", settings)
    (folder / "trials.csv").write_text("outcome,value,epochs,seconds\n")
    assert "`maximize` is missing" in message(capsys, ["compare", str(folder)])
    write_json(folder / "sweep.json", settings | {"maximize": True})
    (folder / "trials.csv").write_text("outcome,value,epochs,seconds\ncomplete,0.5,1\n")
    assert "trials.csv: damaged" in message(capsys, ["compare", str(folder)])
