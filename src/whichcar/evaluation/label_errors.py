"""Labels that are likely wrong: images of which a network that has not learnt from them is sure of another class."""

from __future__ import annotations

import itertools
import logging
import os
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
from whichcar.data.labels import draw_folds
from whichcar.data.split.split import split
from whichcar.data.split.tree import Tree, read_record
from whichcar.data.split_names import TEST, TRAIN
from whichcar.errors import CheckpointError, DataError, MissingExtraError, TrainingError
from whichcar.evaluation.eval_set import is_trained_tree, tree_of
from whichcar.inference.classifier import Classifier
from whichcar.progress import track
from whichcar.records import Finding, Label, Sample, Skipped
from whichcar.search.launcher import INTERRUPTED, how_it_ended, tied_command, train_command
from whichcar.text import nfc
from whichcar.training.hardware import release_memory
from whichcar.training.run.checkpoint import find_checkpoint, read_metadata
from whichcar.training.run.signals import graceful_shutdown

log = logging.getLogger(__name__)

Answers = Iterator[tuple[Sample, npt.NDArray[np.float32]]]

FOLDER = "label_folds"
SURE = 0.5  # probability of another class from which a label is more than a note


def find_label_errors(data: Path, experiment: Path, folds: int | None = None) -> list[Finding]:
    """Return a finding for each image whose label is likely wrong, the most confident first.

    Confident learning (Northcutt et al. 2021; the package cleanlab, where both of its ways to prune agree) on
    predictions for images the network has not learnt from. Those are the test and the validation part, which the
    experiment itself is asked about. With `folds` they are all images: as many networks are trained as the experiment
    was, each without one fold, in the experiment's folder `label_folds/`; that takes as many times as long, and goes on
    where it was stopped. How many of the suspected labels are wrong depends on how good the network is.

    Args:
        data: the tree the experiment was trained on.
        experiment: a trained experiment's folder.
        folds: how many, at least 2; None: only the parts held out.

    Raises:
        DataError: another tree, or a number of folds below 2.
        CheckpointError: there is no usable checkpoint.
        MissingExtraError: cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise MissingExtraError("cleanlab", "check") from error
    if folds is not None and folds < 2:
        raise DataError(f"--folds: at least 2 are needed; got {folds}")
    metadata = read_metadata(find_checkpoint(experiment))
    if not is_trained_tree(data, metadata):
        raise DataError(
            f"{data}: {experiment} was trained on {metadata.data_root}, and which of these images it has "
            "learnt is not known; check that folder, or train on this one"
        )
    tree = tree_of(data, metadata)
    if tree.class_folders != tuple(map(nfc, metadata.class_folders)):
        raise CheckpointError(f"{experiment}: was trained on other classes than {data} has now; train again")
    if folds is None:
        log.warning(
            "%d train images are not judged: the network has learnt them; --folds 4 judges all", len(tree.train)
        )
        judged = _answers(Classifier(experiment), [*tree.validation, *tree.test])
    else:
        held_out = _answers(Classifier(experiment), tree.test)
        judged = itertools.chain(held_out, _answers_of_folds(experiment, tree, folds))
    samples: list[Sample] = []
    rows: list[npt.NDArray[np.float32]] = []
    for sample, probabilities in judged:
        samples.append(sample)
        rows.append(probabilities)
    if not samples:
        raise DataError(f"{data}: no image that the network has not learnt can be read; use --folds")
    answers = np.stack(rows).astype(np.float64)
    answers /= answers.sum(axis=1, keepdims=True)
    labels = np.array([sample.class_index for sample in samples])
    suspected = find_label_issues(
        labels, answers, filter_by="both", return_indices_ranked_by="normalized_margin", n_jobs=1
    )
    return [_finding(tree, samples[number], answers[number], rank) for rank, number in enumerate(suspected, start=1)]


def _answers(network: Classifier, part: list[Sample]) -> Answers:
    """Yield what a network says of each image, and then let go of all memory that networks took."""
    scored = network.scored(sample.path for sample in part)
    for sample, item in track(zip(part, scored, strict=True), "asking the network", len(part)):
        if not isinstance(item, Skipped):
            yield sample, item.probabilities
    del network, scored
    release_memory()


def _finding(tree: Tree, sample: Sample, answer: npt.NDArray[np.float64], rank: int) -> Finding:
    said = int(answer.argmax())
    detail = (
        f"labelled {tree.class_names[sample.class_index]!r} ({answer[sample.class_index]:.0%}); "
        f"the network says {tree.class_names[said]!r} ({answer[said]:.0%})"
    )
    severity = "warning" if answer[said] > SURE else "note"
    path = sample.path.relative_to(tree.root).as_posix()
    return finding(path, "label_error", detail, severity=severity, rank=rank)


def _answers_of_folds(experiment: Path, tree: Tree, folds: int) -> Answers:
    """Yield, for each fold, what a network that was trained without it says of its images."""
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
    for number in range(folds):
        folder = experiment / FOLDER / f"{number + 1}_of_{folds}"
        rows = [
            Label(
                name,
                tree.class_folders[sample.class_index],
                TEST if drawn[name] == number else TRAIN,
                group_of.get(name, ""),
            )
            for name, sample in zip(names, known, strict=True)
        ]
        split(
            tree.root, rows, folder / "data", settings["data"]["validation_split"], settings["seed"], keep_copies=True
        )
        config = {**settings, "data": {**settings["data"], "directory": str((folder / "data").resolve())}}
        files.write_text(folder / files.CONFIG, yaml.safe_dump(config, sort_keys=False))
        log.warning("fold %d of %d: training in %s", number + 1, folds, folder)
        _train(folder / files.CONFIG)
        fold = [sample for name, sample in zip(names, known, strict=True) if drawn[name] == number]
        yield from _answers(Classifier(folder), fold)


def _train(config: Path) -> None:
    """Train in a process of its own: what a backend keeps of every network it trained goes with it."""
    command = tied_command(train_command(config), sorted(os.sched_getaffinity(0)))
    with graceful_shutdown() as stop:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            while process.poll() is None:
                if stop.wait(0.1):
                    process.terminate()  # it saves its state and ends
                    process.wait()
        finally:
            process.kill()
            status = process.wait()
    if status == INTERRUPTED or stop.is_set():
        raise KeyboardInterrupt
    if status:
        raise TrainingError(f"{config.parent}: its training failed ({how_it_ended(status)}), as told above")


def _settings(experiment: Path) -> dict[str, Any]:
    """Return the settings an experiment was trained with, whatever its config.yml says now."""
    record = experiment / files.RESOLVED
    if not record.is_file():
        raise CheckpointError(f"{experiment}: no {files.RESOLVED}, so how it was trained is not known; give its folder")
    known = files.read_json(record, {"settings": dict}, "train again, or give another experiment")
    settings: dict[str, Any] = _without_nulls(known["settings"])
    return settings


def _without_nulls(settings: Any) -> Any:  # noqa: ANN401  (whatever JSON can hold)
    """Leave out what is not set: a config does not say so with null, but for weights, where null means random ones."""
    if not isinstance(settings, dict):
        return settings
    kept = {key: value for key, value in settings.items() if value is not None or key == "weights"}
    return {key: _without_nulls(value) for key, value in kept.items()}
