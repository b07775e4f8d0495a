from __future__ import annotations

import csv
import math
import re
import resource
import struct
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.errors import DataError
from whichcar.training.run.history import Epoch, EventLog, draw_curves, read_history, write_history

COLUMNS = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "image_size"]
COLUMNS += ["images_per_second", "seconds", "checkpoint"]


def history(count: int) -> list[Epoch]:
    """A run that learns, at a larger size from the fifth epoch on."""
    return [
        Epoch(
            epoch=n,
            loss=4 * 0.8**n + 0.5,
            accuracy=1 - 0.8**n,
            val_loss=4 * 0.82**n + 0.6 + 0.05 * (-1) ** n,
            val_accuracy=0.95 * (1 - 0.8**n),
            learning_rate=0.01 * (1 + math.cos(math.pi * n / count)),
            image_size="128x128" if n < 5 else "176x176",
            images_per_second=31.25,
            seconds=1234.56789 * n,
            checkpoint=f"model.{n:02d}-0.1234.keras",
        )
        for n in range(1, count + 1)
    ]


def test_the_history_is_a_table_with_one_row_an_epoch(tmp_path: Path) -> None:
    write_history(tmp_path / "history.csv", history(3))
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[2]["loss"]) == pytest.approx(4 * 0.8**3 + 0.5, rel=1e-5)
    assert (rows[0]["image_size"], rows[0]["checkpoint"]) == ("128x128", "model.01-0.1234.keras")
    assert rows[1]["seconds"] == "2469.14"


def test_a_longer_history_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    for count in (1, 2):
        write_history(tmp_path / "history.csv", history(count))
    assert (tmp_path / "history.csv").read_text().count("\n") == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["history.csv"]


def test_what_was_not_measured_is_an_empty_cell(tmp_path: Path) -> None:
    write_history(tmp_path / "history.csv", [replace(history(1)[0], val_loss=math.nan, checkpoint="")])
    row = next(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert (row["val_loss"], row["checkpoint"]) == ("", "")
    (epoch,) = read_history(tmp_path / "history.csv")
    assert math.isnan(epoch.val_loss)
    assert epoch.val_accuracy == pytest.approx(history(1)[0].val_accuracy, rel=1e-5)


def test_tensorboard_is_given_no_nan(tmp_path: Path, model: object, caplog: pytest.LogCaptureFixture) -> None:
    log = EventLog(tmp_path, histogram_freq=0, start=0)
    log.add(replace(history(1)[0], val_loss=math.nan, val_accuracy=math.nan, images_per_second=math.nan), model)
    log.close()
    assert "NaN or Inf found in input tensor" not in caplog.text
    assert {tag for tag, _, _ in events(tmp_path / "validation")} == {"purged"}
    assert {tag for tag, _, _ in events(tmp_path / "train")} == {
        "purged",
        "epoch_loss",
        "epoch_accuracy",
        "epoch_learning_rate",
    }


@pytest.mark.parametrize("count", [1, 12])
def test_curves_are_drawn_in_two_colours_on_white(tmp_path: Path, count: int) -> None:
    draw_curves(tmp_path / "curves.png", history(count), "exp_003")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1320, 396)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (pixels >= 254).all(-1).mean() > 0.7
    for colour in ((31, 119, 180), (255, 127, 14)):
        near = (np.abs(pixels - colour) <= 10).all(-1)  # a figure has few colours
        assert near.sum() > 20, "a line for training and one for validation"


def test_the_legend_of_the_losses_says_what_only_the_training_loss_has(tmp_path: Path) -> None:
    for number, harder in enumerate(([], ["mixed images", "co-tuning"])):
        draw_curves(tmp_path / f"{number}.png", history(3), "exp_003", harder)
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()


def test_curves_are_drawn_without_validation(tmp_path: Path) -> None:
    without = [replace(epoch, val_loss=math.nan, val_accuracy=math.nan) for epoch in history(3)]
    draw_curves(tmp_path / "curves.png", without, "no validation")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def events(folder: Path) -> list[tuple[str, int, float]]:
    """Read (tag, step, value) of every scalar, and (tag, step, count) of every histogram, in the order written."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.glob("events.out.tfevents.*"), key=lambda file: file.stat().st_mtime_ns):
        data = file.read_bytes()
        while data:
            # A record: its length (8 bytes), a checksum (4), the event, a checksum (4).
            length = struct.unpack("<Q", data[:8])[0]
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            if event.session_log.status:
                found.append(("purged", event.step, math.nan))
            for value in event.summary.value:
                number = value.histo.num if value.HasField("histo") else value.simple_value
                found.append((value.tag, event.step, number))
    return found


@pytest.fixture
def model() -> object:
    from whichcar.training.hardware import prepare

    prepare("float32")
    import keras

    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(inputs))


def test_tensorboard_reads_back_what_keras_would_have_written(tmp_path: Path, model: object) -> None:
    log = EventLog(tmp_path / "logs", 0, 0)
    for epoch in history(2):
        log.add(epoch, model)  # type: ignore[arg-type]
    log.close()
    train, validation = events(tmp_path / "logs" / "train"), events(tmp_path / "logs" / "validation")
    assert {tag for tag, _, _ in train} - {"purged"} == {
        "epoch_loss",
        "epoch_accuracy",
        "epoch_learning_rate",
        "epoch_images_per_second",
    }
    assert [(step, value) for tag, step, value in train if tag == "epoch_loss"] == [
        (0, pytest.approx(3.7)),
        (1, pytest.approx(3.06)),
    ]
    assert [(tag, step) for tag, step, _ in validation if tag != "purged"] == [
        ("epoch_loss", 0),
        ("epoch_accuracy", 0),
        ("epoch_loss", 1),
        ("epoch_accuracy", 1),
    ]


def test_events_are_there_after_each_epoch(tmp_path: Path, model: object) -> None:
    log = EventLog(tmp_path / "logs", 0, 0)
    log.add(history(1)[0], model)  # type: ignore[arg-type]
    written = [step for tag, step, _ in events(tmp_path / "logs" / "train") if tag == "epoch_loss"]
    log.close()
    assert written == [0]


def test_events_that_cannot_be_written_are_one_warning_and_end_no_training(
    tmp_path: Path, model: object, caplog: pytest.LogCaptureFixture
) -> None:
    log = EventLog(tmp_path / "logs", 0, 0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # as a full disk, which then gets room
    try:
        log.add(history(1)[0], model)  # type: ignore[arg-type]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'logs'}: cannot be written (File too large); TensorBoard gets no more epochs until the training "
        "is resumed"
    ]
    for epoch in history(12):
        log.add(epoch, model)  # type: ignore[arg-type]
    log.close()
    assert len(caplog.records) == 1


def test_a_resumed_run_hides_events_after_its_state(tmp_path: Path, model: object) -> None:
    first = EventLog(tmp_path / "logs", 0, 0)
    for epoch in history(3):
        first.add(epoch, model)  # type: ignore[arg-type]
    first.close()
    second = EventLog(tmp_path / "logs", 0, 2)
    second.add(history(3)[2], model)  # type: ignore[arg-type]
    second.close()
    assert ("purged", 2) in [(tag, step) for tag, step, _ in events(tmp_path / "logs" / "train")]


def test_histograms_are_written_at_the_given_frequency(tmp_path: Path, model: object) -> None:
    log = EventLog(tmp_path / "logs", 2, 0)
    for epoch in history(4):
        log.add(epoch, model)  # type: ignore[arg-type]
    log.close()
    found = [(tag, step, count) for tag, step, count in events(tmp_path / "logs" / "train") if "head" in tag]
    assert found == [("head/kernel", 1, 6), ("head/bias", 1, 2), ("head/kernel", 3, 6), ("head/bias", 3, 2)]


@pytest.mark.parametrize("title", ["Ba$$in $", "$\\bad$", "a\nb", "长城 🚗"])
def test_curves_take_any_title(tmp_path: Path, title: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_curves(tmp_path / "curves.png", history(2), title)
    assert (tmp_path / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("place", "text", "message"),
    [
        (2, "2,abc,0.5,1,0.5,0.01,32x32,,20,", "row 2: loss is 'abc', not a number"),
        (2, "2,1.5,0.5", "row 2: has not the columns epoch, loss"),
        (2, "3,1,1,1,1,1,32x32,1,1,", "row 2: is of epoch 3"),
        (3, '3,"1', "row 3: "),
        (0, "epoch,loss", "row 1: has not the columns epoch, loss"),
    ],
)
def test_a_damaged_row_is_reported_with_the_reason(tmp_path: Path, place: int, text: str, message: str) -> None:
    path = tmp_path / "history.csv"
    write_history(path, history(3))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:place], text, *lines[place + 1 :]]) + "\n")
    with pytest.raises(DataError, match=re.escape(f"{path}: damaged ({message}")):
        read_history(path)
