"""Where the result of an evaluation is written, and where the uses of its images are counted."""

from __future__ import annotations

from pathlib import Path

from whichcar import files
from whichcar.environment import expanded
from whichcar.errors import DataError
from whichcar.evaluation.eval_set import EvalSet
from whichcar.inference.released import name_of
from whichcar.inference.runtimes import BUNDLES
from whichcar.records import Metadata
from whichcar.text import file_name, one_line
from whichcar.training.run.refits import refitted


def folder_of(
    experiment: Path, eval_set: EvalSet, metadata: Metadata, crop: bool, detector: str | None, family: str | None
) -> Path:
    """Return the folder for the result: the experiment's own for its held-out split, else a separate one."""
    names = [] if experiment.is_dir() else [name_in_folder(experiment)]
    is_held_out = eval_set.own and (eval_set.split == "test" or not _has_test(experiment, metadata))
    names += [] if is_held_out else [eval_set.folder_name]
    names += ["with-crop"] if crop else []
    names += [_with_digest(file) if (file := expanded(detector)).is_file() else file_name(detector)] if detector else []
    names += [family] if family else []
    return home_of(experiment) / files.EVALUATIONS / "-".join(names) if names else experiment


def name_in_folder(experiment: Path) -> str:
    """Return a file's name within the results folder; the paths distinguish bundles of the same name."""
    is_of_user = is_bundle(experiment) and name_of(experiment) == str(experiment)
    return _with_digest(experiment) if is_of_user else file_name(experiment.name)


def _with_digest(file: Path) -> str:
    return file_name(file.name, of=str(file.resolve()))


def _has_test(experiment: Path, metadata: Metadata) -> bool:
    """Return True if the experiment's data had a test split in training, or it was evaluated on one since."""
    path = home_of(experiment) / files.RESULT
    return "test" in metadata.fingerprints or (
        path.is_file() and files.read_json(path, {"data.split": str})["data"]["split"] == "test"
    )


def is_bundle(experiment: Path) -> bool:
    """Return True if `experiment` is a bundle file."""
    return experiment.suffix.lower() in BUNDLES and not experiment.is_dir()


def home_of(experiment: Path) -> Path:
    """Return the experiment's folder; for a bundle, which may be inside the installed package, the current folder."""
    if is_bundle(experiment):
        return Path()
    return experiment if experiment.is_dir() else experiment.parent


def counted_in(experiment: Path) -> Path:
    """Return the folder in which evaluations are counted; an experiment and its refit share one count."""
    if is_bundle(experiment):
        return Path(files.EVALUATIONS)
    return refitted(home_of(experiment)) or home_of(experiment)


def check_writable(folder: Path) -> None:
    """Raise DataError if the folder is not writable."""
    try:
        files.check_writable(folder / files.RESULT)
    except OSError as error:
        raise DataError(
            f"{one_line(folder)}: cannot be written ({error.strerror}), and the evaluation is recorded there; change "
            "its permissions, make room, or evaluate a copy of the experiment's folder"
        ) from error
