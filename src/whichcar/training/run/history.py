"""The records of a run: history.csv, curves.png and TensorBoard's event files."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import logging
import math
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whichcar.errors import DataError, MissingExtraError
from whichcar.figures import lettering, save_figure
from whichcar.files import write_csv
from whichcar.progress import clock
from whichcar.text import one_line, reason_of

if TYPE_CHECKING:
    import keras
    from tensorboardX.record_writer import RecordWriter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Epoch:
    """One row of history.csv. `epoch` counts from 1; `val_loss` is cross-entropy without smoothing or penalties.

    Values that were not measured are NaN here and empty in the file: `val_loss` and `val_accuracy` without validation
    images, `images_per_second` of too few steps.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    image_size: str
    images_per_second: float
    seconds: float
    checkpoint: str


def write_history(path: Path, history: Sequence[Epoch]) -> None:
    """Write the epochs as CSV."""
    rows = ([_short(value) for value in astuple(epoch)] for epoch in history)
    write_csv(path, [field.name for field in fields(Epoch)], rows)


def read_history(path: Path) -> tuple[Epoch, ...]:
    """Read the epochs of a CSV that `write_history` wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    history: list[Epoch] = []
    damage = "no epoch in it"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, strict=True):
                epoch = _epoch(row)
                if epoch.epoch != len(history) + 1:
                    raise ValueError(f"is of epoch {epoch.epoch}")
                history.append(epoch)
        if history:
            return tuple(history)
    except OSError as error:
        damage = f"cannot be read: {error.strerror}"
    except (ValueError, csv.Error) as error:
        damage = f"row {len(history) + 1}: {one_line(error)}"
    raise DataError(f"{path}: damaged ({damage}); put it back, or train again with --overwrite")


def _epoch(row: Mapping[str, str]) -> Epoch:
    """Return the epoch in a row of the table.

    Raises:
        ValueError: a column is missing or unknown, or holds a value of another type.
    """
    kinds = {field.name: _KINDS[str(field.type)] for field in fields(Epoch)}
    if row.keys() != kinds.keys() or None in row.values():
        raise ValueError(f"has not the columns {', '.join(kinds)}")
    values = {}
    for name, text in row.items():
        try:
            values[name] = kinds[name](text)
        except ValueError:
            raise ValueError(f"{name} is {text!r}, not a number") from None
    return Epoch(**values)


def epoch_line(history: Sequence[Epoch], sizes: Sequence[tuple[int, int]]) -> str:
    """Describe the last epoch in one line: its values, its duration, and the remaining time.

    Args:
        history: the epochs done.
        sizes: (height, width) of each epoch; its duration is taken as proportional to the number of pixels.
    """
    last, done = history[-1], len(history)
    before = history[-2].seconds if done > 1 else 0.0
    own, area = last.seconds - before, math.prod(sizes[done - 1])
    left = own * sum(math.prod(size) for size in sizes[done:]) / area
    parts = [
        f"epoch {last.epoch}/{len(sizes)} at {last.image_size}: loss {last.loss:.4f}, accuracy {last.accuracy:.4f}",
        *(
            [f"validation loss {last.val_loss:.4f}, accuracy {last.val_accuracy:.4f}"]
            if math.isfinite(last.val_loss)
            else []
        ),
        *([f"{last.images_per_second:.1f} images/s"] if math.isfinite(last.images_per_second) else []),
        f"{clock(own)} (elapsed {clock(last.seconds)}{f', remaining {clock(left)}' if left else ''})",
    ]
    return "; ".join(parts)


def check_packages() -> None:
    """Check that the packages that write the records of a run are installed, before any time is spent.

    Raises:
        MissingExtraError: one is missing; the message says how to install it.
    """
    for name in ("matplotlib", "tensorboardX"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(name, "cpu")


def draw_curves(path: Path, history: Sequence[Epoch], title: str, harder: Sequence[str] = ()) -> None:
    """Draw loss, accuracy and learning rate over the epochs as PNG; dotted lines show where the image size changes.

    Args:
        path: the file to write.
        history: the epochs done.
        title: title of the figure.
        harder: what makes the training loss larger than the validation loss, such as co-tuning, for the legend.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    epochs = [epoch.epoch for epoch in history]
    letters = lettering([title])
    figure.suptitle(letters.label(title), fontfamily=letters.families)
    panels = (
        ("loss", ("loss", "val_loss")),
        ("accuracy", ("accuracy", "val_accuracy")),
        ("learning rate", ("learning_rate",)),
    )
    for axes, (name, keys) in zip(figure.subplots(1, 3), panels, strict=True):
        for key in keys:
            if not any(math.isfinite(getattr(epoch, key)) for epoch in history):
                continue  # no validation
            label = "validation" if key.startswith("val_") else "training"
            axes.plot(epochs, [getattr(epoch, key) for epoch in history], marker="o", markersize=3, label=label)
        axes.set(xlabel="epoch", title=name, xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        for before, after in pairwise(history):
            if before.image_size != after.image_size:
                axes.axvline(before.epoch + 0.5, color="grey", linestyle=":", linewidth=1)
                place = {"rotation": "vertical", "transform": axes.get_xaxis_transform()}
                axes.text(before.epoch + 0.6, 0.03, after.image_size, color="grey", fontsize=7, **place)
        if len(keys) > 1:
            note = f"training with {', '.join(harder)}" if harder and name == "loss" else None
            axes.legend(title=note, title_fontsize=7)
    save_figure(figure, path, dpi=110)


class EventLog:
    """TensorBoard events under `folder`: scalars under Keras' names, and histograms of weights.

    tensorboardX's SummaryWriter is not used: after a failed write its thread ends, and the next calls wait forever.
    """

    def __init__(self, folder: Path, histogram_freq: int, start: int) -> None:
        """Open the files; TensorBoard hides what a killed run wrote to earlier ones from epoch `start` (from 0) on."""
        from tensorboardX.proto.event_pb2 import SessionLog

        self._every, self._folder, self._is_whole = histogram_freq, folder, True
        self._train, self._validation = _open_events(folder / "train"), _open_events(folder / "validation")
        for file in (self._train, self._validation):
            _write_event(file, start, session_log=SessionLog(status=SessionLog.START))

    def add(self, epoch: Epoch, model: keras.Model) -> None:
        """Write one epoch; if it cannot be written, such as on a full disk, warn, and write no more events."""
        if not self._is_whole:
            return
        try:
            self._add(epoch, model)
        except OSError as error:
            self._is_whole = False
            log.warning(
                "%s: cannot be written (%s); TensorBoard gets no more epochs until the training is resumed",
                self._folder,
                reason_of(error),
            )

    def _add(self, epoch: Epoch, model: keras.Model) -> None:
        from tensorboardX.summary import histogram, scalar

        step = epoch.epoch - 1
        for key in ("loss", "accuracy", "learning_rate", "images_per_second", "val_loss", "val_accuracy"):
            file = self._validation if key.startswith("val_") else self._train
            if math.isfinite(value := getattr(epoch, key)):
                _write_event(file, step, summary=scalar(f"epoch_{key.removeprefix('val_')}", value))
        if self._every and epoch.epoch % self._every == 0:
            edges = 1e-12 * 1.1 ** np.arange(774)  # up to 1e20: TensorBoard's own bins
            bins = np.concatenate([-edges[::-1], [0], edges])
            for variable in model.weights:
                _write_event(self._train, step, summary=histogram(variable.path, variable.numpy(), bins))
        for file in (self._train, self._validation):
            file.flush()

    def close(self) -> None:
        """Close the files."""
        for file in (self._train, self._validation):
            with contextlib.suppress(OSError):  # the rest of an event that could not be written
                file.close()


def _open_events(folder: Path) -> RecordWriter:
    from tensorboardX.record_writer import RecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    file = RecordWriter(str(folder / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"))
    _write_event(file, 0, file_version="brain.Event:2")
    return file


def _write_event(file: RecordWriter, step: int, **content: Any) -> None:  # noqa: ANN401
    from tensorboardX.proto.event_pb2 import Event

    file.write(Event(wall_time=time.time(), step=step, **content).SerializeToString())


def _float(text: str) -> float:
    return float(text) if text else math.nan


_KINDS: dict[str, Callable[[str], Any]] = {"int": int, "float": _float, "str": str}


def _short(value: Any) -> Any:  # noqa: ANN401
    if not isinstance(value, float):
        return value
    return f"{value:.6g}" if math.isfinite(value) else ""
