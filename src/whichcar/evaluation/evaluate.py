"""Evaluate an experiment on a split: result.json, predictions.csv, report.html and plots."""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import logging
import platform
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from whichcar import files, metrics
from whichcar.data.split.tree import check_outside
from whichcar.errors import ConfigError, DataError, Interrupted, MissingExtraError
from whichcar.evaluation.averages import averages, check_classes
from whichcar.evaluation.calibration import calibrate
from whichcar.evaluation.caution import warnings_about
from whichcar.evaluation.eval_set import EvalSet, choose_eval_set
from whichcar.evaluation.examples import confused_images, most_confident_errors
from whichcar.evaluation.levels import answered, score_levels
from whichcar.evaluation.plots import plot_confusion
from whichcar.evaluation.predictions import EvaluatedImage, classify
from whichcar.evaluation.report import write_report
from whichcar.evaluation.result import Origin, Result
from whichcar.evaluation.result_file import as_json, read_result
from whichcar.evaluation.result_folder import check_writable, counted_in, folder_of, home_of, is_bundle
from whichcar.evaluation.slices import slices_of
from whichcar.inference.answer import Calibration
from whichcar.inference.classifier import Classifier
from whichcar.inference.input_crop import is_cropped
from whichcar.inference.released import find_model, name_of
from whichcar.records import Metadata
from whichcar.taxonomy import taxonomy_of
from whichcar.text import as_text, shell_command
from whichcar.training.run.checkpoint import read_best, unfinished
from whichcar.training.run.folder import versions
from whichcar.training.run.refits import experiment_name, in_use, refitted
from whichcar.training.run.test_uses import count_use, read_uses
from whichcar.training.tracking import Tracking, tracking_of

log = logging.getLogger(__name__)


def evaluate(
    experiment: str | Path | None,
    data: str | Path | None = None,
    crop: bool = False,
    detector: str | None = None,
    family: str | None = None,
    track: str | None = None,
    tta: Literal["flip"] | None = None,
    others: Sequence[str | Path] = (),
) -> Result:
    """Evaluate an experiment's checkpoint on images it was not trained on, and write the result to its folder.

    Args:
        experiment: an experiment's folder (its refit is used, or else its best checkpoint by validation), a checkpoint
            file, a bundle, the name of a model that comes with the package, or None for its model `cars196`.
        data: a tree with `test/`, or a folder with one folder per class; default: the tree the experiment was trained
            on, which a bundle does not record.
        crop: crop every image to its vehicle first.
        detector: name or file of the detector for cropping (default: the one used for the training images).
        family: family of a detector file whose outputs fit several families, as for `crop`.
        track: tracking service to log the result to as well, such as `mlflow`.
        tta: `flip` also reports the result for probabilities averaged with those of the mirrored image.
        others: experiments, checkpoints or bundles with the same classes; the result for probabilities averaged with
            theirs is also reported. `crop`, `detector` and `family` apply to them too.

    The result for the experiment's own test split (the validation split if its data never had one) is written to its
    folder, or for a refit to `refit/` inside it. A result for other images, for a checkpoint file, or with `crop` is
    written to a separate folder under `evaluations/`, so the experiment's own result is kept; a result for a bundle is
    written to `evaluations/` in the current folder. `test_uses.json` counts how often these images have been used and
    is never reset. Without matplotlib, no plots are written. An evaluation that is interrupted before its end
    writes no result.

    Raises:
        CheckpointError: there is no usable checkpoint or bundle.
        ConfigError: `track` is given with a bundle, `tta` is something else, or one of `others` is given twice.
        DataError: the images are missing, none can be read, their classes are not the checkpoint's, or the folder of
            the experiment, or of one of `others`, is read-only, or the result would lie among the class folders.
        Interrupted: Ctrl-C while the result, which is written, is sent to the tracking service.
        TrackingError: the tracking service rejects the result; if the service is down, only a warning is logged.
    """
    experiment, data = in_use(find_model(experiment)), None if data is None else Path(data)
    paths = [in_use(find_model(other)) for other in others]
    _check(experiment, paths, track, tta)
    tracking = tracking_of(track, home_of(experiment))
    cautions = [warning for path in (experiment, *paths) if (warning := unfinished(path, "evaluated"))]
    classifier = _opened(experiment, crop, detector, family)
    eval_set = choose_eval_set(data, classifier.metadata)
    members = {as_text(name_of(path)): _opened(path, crop, detector, family) for path in paths}
    check_classes(classifier, members)
    warnings = (*cautions, *warnings_about(classifier, members, eval_set, data))
    folder = folder_of(experiment, eval_set, classifier.metadata, crop, detector, family)
    if data is not None:
        check_outside(folder, data)
    check_writable(folder)
    before_refit = _before_refit(experiment, eval_set, classifier.metadata, crop, detector, family)
    calibration = _calibration(classifier, eval_set.trained, crop)
    start = time.perf_counter()
    with files.atomic_write(folder / files.PREDICTIONS) as table:
        images, unreadable = classify(classifier, eval_set, table)
        seconds = time.perf_counter() - start
        averaged = averages(classifier, members, tta is not None, images)
        options = {"data": data, "crop": crop, "detector": detector, "family": family, "tta": tta}
        command = _command(experiment, {**options, "with": [Path(name_of(path)) for path in paths]})
        origin = _origin(classifier, eval_set, experiment, data, command)
        _count_others(dict(zip(paths, members.values(), strict=True)), experiment, eval_set, origin)
        margin = classifier.input_crop.margin if crop else 0.0
        measured = _measured(images, classifier.class_names, calibration)
        result = Result(
            origin=origin,
            **measured,
            misclassified=most_confident_errors(images, classifier),
            examples=confused_images(measured["confused"], images, eval_set, classifier.metadata),
            slices=slices_of(images, eval_set.root, classifier.class_names, classifier.image_size, margin),
            averages=averaged,
            unreadable=unreadable,
            seconds=seconds,
            folder=folder,
            predictions_checksum=files.checksum(table),
            warnings=warnings,
            before_refit=before_refit,
            calibration=calibration,
        )
        _plot(result)
        write_report(result)
        files.write_json(folder / files.RESULT, as_json(result))
    _track(result, tracking)
    return result


def _count_others(members: Mapping[Path, Classifier], experiment: Path, eval_set: EvalSet, origin: Origin) -> None:
    """Count the use of the images for each model that is averaged with, unless it shares the experiment's count."""
    for path, member in members.items():
        count = _count(path, origin.fingerprint)
        if count != _count(experiment, origin.fingerprint):
            count_use(*count, _use(member, eval_set, origin.time))


def _track(result: Result, tracking: Tracking) -> None:
    try:
        tracking.result(as_json(result), result.folder)
    except KeyboardInterrupt:
        where = result.folder
        raise Interrupted(f"{where}: interrupted; the result is written, but not all of it is tracked") from None


def _check(experiment: Path, others: Sequence[Path], track: str | None, tta: str | None) -> None:
    """Raise early for what would fail after the evaluation: wrong options, a damaged use count, a read-only folder."""
    repeated = [name_of(path) for path, times in Counter(path.resolve() for path in others).items() if times > 1]
    if repeated:
        raise ConfigError(f"--with {repeated[0]}: is named twice; name each model once")
    if track is not None and is_bundle(experiment):
        raise ConfigError(
            f"{name_of(experiment)}: a bundle has no run to track; evaluate its experiment with --track {track}"
        )
    if tta not in (None, "flip"):
        raise ConfigError(f"tta: must be flip; got {tta!r}")
    for path in (experiment, *others):
        folder = counted_in(path)
        read_uses(folder)
        if folder.is_dir() or is_bundle(path):
            check_writable(folder)


def _measured(
    images: Sequence[EvaluatedImage], names: tuple[str, ...], calibration: Calibration | None
) -> dict[str, Any]:
    """Return the fields of a `Result` that are computed from its images."""
    taxonomy = taxonomy_of(names)
    probabilities = np.stack([image.probabilities for image in images])
    labels = np.array([image.sample.class_index for image in images])
    levels = score_levels(probabilities, labels, taxonomy, calibration)
    crops = [image.crop for image in images]
    return {
        "levels": levels,
        "log_loss": metrics.log_loss(probabilities[np.arange(len(labels)), labels]),
        "confused": tuple(metrics.most_confused(levels[0].matrix, names)),
        "answered": () if calibration is None else answered(probabilities, labels, taxonomy.levels, calibration, crops),
    }


def _plot(result: Result) -> None:
    """Replace the plot of an earlier evaluation; without matplotlib, only delete it."""
    folder = result.folder / files.PLOTS
    shutil.rmtree(folder, ignore_errors=True)
    if importlib.util.find_spec("matplotlib") is None:
        log.warning("%s: has no plots: %s", result.folder, MissingExtraError("matplotlib", "cpu"))
        return
    names = [score.name for score in result.classes]
    plot_confusion(folder / "confusion.png", result.levels[0].matrix, names)


def _before_refit(
    experiment: Path, eval_set: EvalSet, metadata: Metadata, crop: bool, detector: str | None, family: str | None
) -> metrics.Proportion | None:
    """Return the accuracy, on the same images, of the checkpoint this one was refitted from; None if it is unknown."""
    before = refitted(home_of(experiment))
    best = None if before is None else read_best(before)
    if before is None or best is None:
        return None
    # Once there is a refit, the experiment's folder means the refit, so its own checkpoint is evaluated as a file.
    for one in (before, before / best["checkpoint"]):
        with contextlib.suppress(DataError):  # not evaluated, or damaged
            result = read_result(folder_of(one, eval_set, metadata, crop, detector, family))
            is_refitted = result["checkpoint"].get("blake2b") == metadata.settings.get("refit_of")
            if is_refitted and result["data"]["fingerprint"] == eval_set.fingerprint:
                return metrics.Proportion(result["top_1"]["correct"], result["top_1"]["total"])
    return None


def _calibration(classifier: Classifier, trained: Path | None, crop: bool) -> Calibration | None:
    if is_bundle(classifier.checkpoint):
        return classifier.calibration
    try:
        return calibrate(classifier.checkpoint, trained, None if crop else classifier)
    except DataError as error:
        log.warning("%s", error)
        return None


def _command(experiment: Path, options: Mapping[str, object]) -> str:
    """Return the command line; True becomes a flag, a list a repeated option, and unset options are left out."""
    command: list[str | Path] = ["whichcar", "evaluate", Path(name_of(experiment))]
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value] if value else []:
            command += [f"--{name}"] if one is True else [f"--{name}", one if isinstance(one, Path) else str(one)]
    return shell_command(command)


def _origin(classifier: Classifier, eval_set: EvalSet, experiment: Path, data: Path | None, command: str) -> Origin:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    use, fingerprint = _use(classifier, eval_set, now), eval_set.fingerprint
    return Origin(
        command=command,
        time=now,
        versions={"python": platform.python_version(), **versions()},
        hardware=classifier.hardware,
        experiment=experiment.stem if is_bundle(experiment) else experiment_name(home_of(experiment)),
        checkpoint=use["checkpoint"]["file"],
        checkpoint_checksum=use["checkpoint"]["blake2b"],
        image_size=classifier.image_size,
        # As the user wrote it: the checkpoint's data_root is absolute, so it means nothing on another machine.
        data_root=as_text(Path(data or classifier.metadata.settings["data"]["directory"])),
        split=eval_set.split,
        fingerprint=fingerprint,
        evaluations=count_use(*_count(experiment, fingerprint), use),
        crop=classifier.input_crop.record,
        crops=is_cropped(eval_set.root.absolute()),
    )


def _opened(path: Path, crop: bool, detector: str | None, family: str | None) -> Classifier:
    classifier = Classifier(path, crop, detector, family)
    _ = classifier.checksum  # now, since a running training may delete or rewrite the file
    return classifier


def _count(experiment: Path, fingerprint: str) -> tuple[Path, str]:
    """Return the folder and the key of a use count; bundles share a folder, so their keys include their checksums."""
    key = f"{fingerprint} {files.checksum(experiment)}" if is_bundle(experiment) else fingerprint
    return counted_in(experiment), key


def _use(classifier: Classifier, eval_set: EvalSet, now: str) -> dict[str, Any]:
    """Return an entry of test_uses.json."""
    checkpoint = {"file": classifier.checkpoint.name, "blake2b": classifier.checksum}
    return {"time": now, "split": eval_set.split, "images": len(eval_set.samples), "checkpoint": checkpoint}
