"""Labels that are likely wrong: images that a network not trained on them predicts with confidence as another class."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from whichcar import files
from whichcar.data.check.issues import finding
from whichcar.data.duplicates.find import copies_among, joined
from whichcar.data.labels import draw_folds, named
from whichcar.data.split.split import Split, split
from whichcar.data.split.tree import Tree
from whichcar.data.split_names import TEST, TRAIN
from whichcar.data.split_record import RECORD, read_record
from whichcar.errors import CheckpointError, DataError, MissingExtraError, TrainingError
from whichcar.evaluation.eval_set import has_changed, is_trained_tree, tree_of
from whichcar.inference.classifier import Classifier
from whichcar.progress import track
from whichcar.records import Finding, Label, Sample, Skipped
from whichcar.search.launcher import INTERRUPTED, how_it_ended, tied_command, train_command
from whichcar.training.hardware import release_memory
from whichcar.training.run.checkpoint import find_checkpoint, read_metadata
from whichcar.training.run.signals import graceful_shutdown

log = logging.getLogger(__name__)

Predictions = Iterator[tuple[Sample, npt.NDArray[np.float32]]]

CONFIDENT = 0.5  # probability of the predicted class above which a label error is a warning, else a note


def find_label_errors(data: Path, experiment: Path, folds: int | None = None) -> list[Finding]:
    """Return a finding for each image whose label is likely wrong, the most confident first.

    Confident learning (Northcutt et al. 2021; cleanlab, where both of its pruning methods agree) on out-of-sample
    predictions: by default the experiment's own, for its test and validation images. With `folds`, they cover all
    images: for each fold, a network is trained like the experiment but without that fold, in the experiment's folder
    `label_folds/`. This takes `folds` times as long and resumes after an interruption. How many of the suspected labels
    are wrong depends on how good the network is.

    Args:
        data: the tree the experiment was trained on.
        experiment: a trained experiment's folder.
        folds: number of cross-validation folds, at least 2; None: only the held-out splits.

    Raises:
        DataError: `data` is another tree, `folds` is below 2, no image to predict can be read, a fold leaves no
            usable training image of a class, or `label_folds/` is of other labels or images.
        CheckpointError: there is no usable checkpoint.
        MissingExtraError: cleanlab is not installed.
    """
    tree = check_experiment(data, experiment, folds)
    from cleanlab.filter import find_label_issues

    if folds is None:
        log.warning(
            "%d train images are not checked: the network was trained on them; --folds 4 checks all", len(tree.train)
        )
        predictions = _predict(Classifier(experiment, crop=False), [*tree.validation, *tree.test])
    else:
        held_out = _predict(Classifier(experiment, crop=False), tree.test)
        predictions = itertools.chain(held_out, _predict_folds(experiment, tree, folds))
    samples: list[Sample] = []
    rows: list[npt.NDArray[np.float32]] = []
    for sample, probabilities in predictions:
        samples.append(sample)
        rows.append(probabilities)
    if not samples:
        raise DataError(f"{data}: no image that the network was not trained on can be read; use --folds")
    scores = np.stack(rows).astype(np.float64)
    scores /= scores.sum(axis=1, keepdims=True)
    labels = np.array([sample.class_index for sample in samples])
    suspected = find_label_issues(
        labels, scores, filter_by="both", return_indices_ranked_by="normalized_margin", n_jobs=1
    )
    return [_finding(tree, samples[number], scores[number], rank) for rank, number in enumerate(suspected, start=1)]


def check_experiment(data: Path, experiment: Path, folds: int | None = None) -> Tree:
    """Check the requirements of `find_label_errors` and return the tree that it checks; raises the same errors."""
    if importlib.util.find_spec("cleanlab") is None:
        raise MissingExtraError("cleanlab", "check")
    if folds is not None and folds < 2:
        raise DataError(f"--folds: at least 2 are needed; got {folds}")
    metadata = read_metadata(find_checkpoint(experiment))
    if not is_trained_tree(data, metadata):
        raise DataError(
            f"{data}: {experiment} was trained on {metadata.data_root}, and which of these images it was "
            "trained on is not known; check that folder, or train on this one"
        )
    return tree_of(data, metadata)


def _predict(network: Classifier, samples: list[Sample]) -> Predictions:
    """Yield each readable image with its probabilities, then free the network's memory."""
    scored = network.scored(sample.path for sample in samples)
    for sample, item in track(zip(samples, scored, strict=True), "predicting", len(samples)):
        if not isinstance(item, Skipped):
            yield sample, item.probabilities
    del network, scored
    release_memory()


def _finding(tree: Tree, sample: Sample, probabilities: npt.NDArray[np.float64], rank: int) -> Finding:
    predicted = int(probabilities.argmax())
    detail = (
        f"labelled {tree.class_names[sample.class_index]!r} ({probabilities[sample.class_index]:.0%}); "
        f"the network predicts {tree.class_names[predicted]!r} ({probabilities[predicted]:.0%})"
    )
    severity = "warning" if probabilities[predicted] > CONFIDENT else "note"
    path = sample.path.relative_to(tree.root).as_posix()
    return finding(path, "label_error", detail, severity=severity, rank=rank)


def _predict_folds(experiment: Path, tree: Tree, folds: int) -> Predictions:
    """Yield the images of each fold with the probabilities from a network that was trained without that fold."""
    known = sorted([*tree.train, *tree.validation], key=lambda sample: sample.path)
    names = [sample.path.relative_to(tree.root).as_posix() for sample in known]
    copies = copies_among([sample.path for sample in known])
    classes: dict[str, list[str]] = {}
    for name, sample in zip(names, known, strict=True):
        classes.setdefault(tree.class_folders[sample.class_index], []).append(name)
    settings = _settings(experiment)
    groups = (read_record(tree.root) or {}).get("groups", {})
    group_of = {name: group for group, members in groups.items() for name in members}
    places = {name: number for number, name in enumerate(names)}
    together = joined([*copies, *([places[name] for name in of if name in places] for of in groups.values())])
    drawn = draw_folds(classes, folds, settings["seed"], [[names[number] for number in group] for group in together])
    folders = [experiment / files.LABEL_FOLDS / f"{number + 1}_of_{folds}" for number in range(folds)]
    for number, folder in enumerate(folders):
        rows = [
            Label(
                name,
                tree.class_folders[sample.class_index],
                TEST if drawn[name] == number else TRAIN,
                group_of.get(name, ""),
            )
            for name, sample in zip(names, known, strict=True)
        ]
        done = _split(tree.root, rows, folder, settings)
        if lost := sorted(set(tree.class_folders) - set(done.classes.values())):
            raise DataError(
                f"{tree.root}: without fold {number + 1} of {folds}, no usable training image is left of {named(lost)}"
                f"; see problems in {folder / 'data' / RECORD}"
            )
    for number, folder in enumerate(folders):
        config = {**settings, "data": {**settings["data"], "directory": str((folder / "data").resolve())}}
        files.write_text(folder / files.CONFIG, yaml.safe_dump(config, sort_keys=False))
        log.warning("fold %d of %d: training in %s", number + 1, folds, folder)
        _train(folder / files.CONFIG)
        fold = [sample for name, sample in zip(names, known, strict=True) if drawn[name] == number]
        yield from _predict(_network(folder), fold)


def _split(root: Path, rows: list[Label], folder: Path, settings: dict[str, Any]) -> Split:
    """Build the tree of a fold; raise DataError if it is that of an earlier check, of other labels or images."""
    data = folder / "data"
    try:
        return split(root, rows, data, settings["data"]["validation_split"], settings["seed"], keep_copies=True)
    except DataError as error:
        if isinstance(error.__cause__, OSError) or not (data / RECORD).is_file():
            raise
        raise _outdated(folder) from error


def _network(folder: Path) -> Classifier:
    """Return the network of a fold; raise DataError if it was trained on other images than are in its tree now."""
    network = Classifier(folder, crop=False)
    if has_changed(tree_of(folder / "data", network.metadata), network.metadata):
        raise _outdated(folder)
    return network


def _outdated(folder: Path) -> DataError:
    advice = f"delete {folder.parent}, and run the same command again"
    return DataError(f"{folder}: is of an earlier check, of other labels or images; {advice}")


def _train(config: Path) -> None:
    """Train in a separate process, which frees what a backend keeps in memory for every network it trains."""
    command = tied_command(train_command(config), sorted(os.sched_getaffinity(0)))
    with graceful_shutdown() as stop:  # the training itself reports that it stops
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            while process.poll() is None:
                if stop.wait(0.1):
                    process.terminate()  # it saves its state and exits
                    process.wait()
        finally:
            process.kill()
            status = process.wait()
    if status in (-signal.SIGINT, INTERRUPTED) or stop.is_set():
        raise KeyboardInterrupt
    if status:
        raise TrainingError(f"{config.parent}: its training failed ({how_it_ended(status)}); its messages are above")


def _settings(experiment: Path) -> dict[str, Any]:
    """Return the settings an experiment was trained with, whatever its config.yml says now."""
    record = experiment / files.RESOLVED
    if not record.is_file():
        raise CheckpointError(f"{experiment}: no {files.RESOLVED}, so how it was trained is not known; give its folder")
    known = files.read_json(record, {"settings": dict}, "train again, or give another experiment")
    settings: dict[str, Any] = _without_nulls(known["settings"])
    return settings


def _without_nulls(settings: Any) -> Any:  # noqa: ANN401  (whatever JSON can hold)
    """Remove unset values, which a config omits rather than writing null, except `weights`: null means random ones."""
    if not isinstance(settings, dict):
        return settings
    kept = {key: value for key, value in settings.items() if value is not None or key == "weights"}
    return {key: _without_nulls(value) for key, value in kept.items()}
