"""From an experiment to its numbers: result.json, predictions.csv, report.html and plots."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import platform
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from whichcar import __version__, files, metrics, progress
from whichcar.errors import DataError
from whichcar.evaluation import plots
from whichcar.evaluation.classifier import Classifier, Probabilities, best_of
from whichcar.evaluation.part import Part, held_out, is_same_tree, labelled
from whichcar.evaluation.report import write_report
from whichcar.evaluation.result import FILE, Mistake, Origin, Result
from whichcar.records import Prediction, Sample, Skipped
from whichcar.text import as_text
from whichcar.training.experiment import versions
from whichcar.training.tracking import tracking_of

TOP = 5
MISTAKES = 24


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said of one picture; `rank` is the true class's place, 1 is best."""

    sample: Sample
    said: int
    rank: int
    probability: float
    truth_probability: float


def evaluate(
    experiment: Path,
    data: Path | None = None,
    batch_size: int = 32,
    crop: bool = False,
    detector: str | None = None,
    track: str | None = None,
) -> Result:
    """Ask an experiment's checkpoint about pictures it has not learnt from, and write down what it says.

    Args:
        experiment: an experiment's folder (its best checkpoint by validation is taken) or a checkpoint file.
        data: a tree with `test/`, or a folder with one folder a class; by default the tree it was trained on.
        batch_size: pictures the network sees at once.
        crop: cut every picture to its vehicle first.
        detector: the detector for that: a name or a file (default: the one that cut those trained on).
        track: the tracking service that the result is logged to as well, such as `mlflow`.

    The files go into the experiment's folder. Other `data` than it was trained beside, a checkpoint file, or `crop` get
    a folder of their own under `evaluations/`, so that the experiment's own result stays.

    Raises:
        CheckpointError: there is no usable checkpoint.
        DataError: the pictures are missing, none can be read, or their classes are not the checkpoint's.
        TrackingError: the tracking service refuses; one that is down is warned of.
    """
    tracking = tracking_of(track, _home(experiment))
    classifier = Classifier(experiment, crop, detector)
    recorded = Path(classifier.metadata.data_root)
    own = data is None or is_same_tree(data, recorded)
    part = held_out(data or recorded, classifier.metadata) if own else labelled(data or recorded, classifier.metadata)
    folder = _folder(experiment, None if own else data, crop)
    start = time.perf_counter()
    answers, unreadable = _ask(classifier, part, folder / "predictions.csv", batch_size)
    seconds = time.perf_counter() - start
    origin = _origin(classifier, part, experiment, data, crop, detector)
    result, matrix = _result(classifier, origin, answers, unreadable, seconds, folder)
    plots.plot_confusion(folder / "plots" / "confusion.png", matrix, classifier.class_names)
    plots.plot_classes(folder / "plots" / "classes.png", result.classes, result.mean_recall)
    plots.plot_reliability(folder / "plots" / "reliability.png", result.reliability)
    write_report(result)
    result.write()
    tracking.result(result.as_json(), folder)
    return result


def _home(experiment: Path) -> Path:
    return experiment if experiment.is_dir() else experiment.parent


def _folder(experiment: Path, data: Path | None, crop: bool) -> Path:
    names = [] if experiment.is_dir() else [experiment.stem]
    names += ([] if data is None else [data.resolve().name]) + (["with-crop"] if crop else [])
    return _home(experiment) / "evaluations" / "-".join(names) if names else experiment


def _ask(classifier: Classifier, part: Part, table: Path, batch_size: int) -> tuple[list[Answer], tuple[Skipped, ...]]:
    """Classify every picture of the part and write predictions.csv as the answers come."""
    answers: list[Answer] = []
    unreadable: list[Skipped] = []
    scored = classifier.scored((sample.path for sample in part.samples), batch_size)
    told = zip(part.samples, scored, strict=True)
    with files.replaced(table) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_columns())
        for sample, item in progress.track(told, "evaluating", len(part.samples)):
            inside = sample.path.relative_to(part.root)
            start = [as_text(inside), classifier.class_names[sample.class_index]]
            if isinstance(item, Skipped):
                unreadable.append(Skipped(inside, item.reason))
                writer.writerow([*start, *[""] * (5 + 2 * TOP), item.reason])
                continue
            answers.append(_answer(sample, item.probabilities))
            writer.writerow(
                [*start, *_cells(answers[-1], best_of(item, classifier.class_names, TOP), classifier.class_names)]
            )
    if not answers:
        raise DataError(f"{part.root}: not one of its {len(unreadable)} pictures can be read; see {table}")
    return answers, tuple(unreadable)


def _answer(sample: Sample, probabilities: Probabilities) -> Answer:
    truth = sample.class_index
    rank = int(metrics.ranks(probabilities[None], np.array([truth]))[0])
    # Among equal probabilities the true class counts as said last, as in top_k_accuracy.
    lowered = probabilities.copy()
    lowered[truth] = np.nextafter(lowered[truth], np.float32(-1))
    said = int(lowered.argmax())
    return Answer(sample, said, rank, float(probabilities[said]), float(probabilities[truth]))


def _columns() -> list[str]:
    more = [name for number in range(1, TOP + 1) for name in (f"class_{number}", f"probability_{number}")]
    return ["path", "truth", "prediction", "probability", "right", "rank", "truth_probability", *more, "problem"]


def _cells(answer: Answer, best: Prediction, names: tuple[str, ...]) -> list[str]:
    pairs = list(zip(best.classes, best.probabilities, strict=True))
    top = [text for name, probability in pairs for text in (name, f"{probability:.6f}")]
    told = [names[answer.said], f"{answer.probability:.6f}", str(int(answer.rank == 1)), str(answer.rank)]
    return [*told, f"{answer.truth_probability:.6f}", *top, *[""] * (2 * TOP - len(top)), ""]


def _result(
    classifier: Classifier,
    origin: Origin,
    answers: list[Answer],
    unreadable: tuple[Skipped, ...],
    seconds: float,
    folder: Path,
) -> tuple[Result, npt.NDArray[np.int64]]:
    names = classifier.class_names
    truth, said = np.array([a.sample.class_index for a in answers]), np.array([a.said for a in answers])
    rank, probability = np.array([a.rank for a in answers]), np.array([a.probability for a in answers])
    matrix = metrics.confusion(truth, said, len(names))
    wrong = sorted((a for a in answers if a.rank > 1), key=lambda a: -a.probability)[:MISTAKES]
    result = Result(
        origin=origin,
        top_1=metrics.Share(int((rank == 1).sum()), len(answers)),
        top_5=metrics.Share(int((rank <= TOP).sum()), len(answers)),
        log_loss=metrics.log_loss(np.array([a.truth_probability for a in answers])),
        classes=tuple(metrics.per_class(matrix, names)),
        confused=tuple(metrics.most_confused(matrix, names)),
        mistakes=tuple(_mistake(answer, names) for answer in wrong),
        unreadable=unreadable,
        reliability=tuple(metrics.reliability(probability, rank == 1)),
        seconds=seconds,
        folder=folder,
    )
    return result, matrix


def _mistake(answer: Answer, names: tuple[str, ...]) -> Mistake:
    sample = answer.sample
    return Mistake(
        sample.path, names[sample.class_index], names[answer.said], answer.probability, answer.truth_probability
    )


def _origin(
    classifier: Classifier, part: Part, experiment: Path, data: Path | None, crop: bool, detector: str | None
) -> Origin:
    fingerprint = part.fingerprint
    # As the user wrote it: the checkpoint's data_root is absolute, and says nothing elsewhere.
    root = str(data or classifier.metadata.settings["data"]["directory"])
    home = _home(experiment)
    command = ["whichcar", "evaluate", str(experiment), *([] if data is None else ["--data", str(data)])]
    command += (["--crop"] if crop else []) + (["--detector", detector] if detector else [])
    hardware = classifier.hardware
    return Origin(
        command=shlex.join(command),
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={"python": platform.python_version(), "whichcar": __version__, **versions()},
        hardware={name: str(value) for name, value in dataclasses.asdict(hardware).items()},
        experiment=home.resolve().name,
        checkpoint=classifier.checkpoint.name,
        checkpoint_checksum=files.checksum(classifier.checkpoint),
        image_size=classifier.image_size,
        data_root=root,
        part=part.name,
        fingerprint=fingerprint,
        evaluations=1 + _evaluated_before(home, fingerprint),
        crop=classifier.framing.cut_as,
    )


def _evaluated_before(home: Path, fingerprint: str) -> int:
    """Return how often this experiment has been evaluated on these very pictures, by any of its checkpoints."""
    results = [files.read_json(path) for path in (home / FILE, *home.glob(f"evaluations/*/{FILE}")) if path.is_file()]
    counts = [r["data"]["evaluations"] for r in results if r.get("data", {}).get("fingerprint") == fingerprint]
    return max(counts, default=0)
