"""Export a trained network: measured next to Keras' on real images, then written as one file."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from whichcar import files
from whichcar.config.backbones import DEFAULT
from whichcar.errors import CheckpointError, ConfigError, DataError
from whichcar.evaluation.calibration import calibrate
from whichcar.evaluation.result_file import read_result
from whichcar.exporting.images import NOISE, ExportImages, batches, calibration_images, export_images, noise
from whichcar.exporting.model_card import with_card
from whichcar.exporting.onnx import check_installed, float32_copy, to_onnx
from whichcar.exporting.openvino import OPENVINO_SUFFIX, OpenVinoNetwork, check_openvino
from whichcar.exporting.quantize import candidates
from whichcar.exporting.verify import Verification, measure
from whichcar.inference.answer import Calibration
from whichcar.inference.bundle import PLAIN_SUFFIX, SUFFIX, Bundle, Precision, write_bundle
from whichcar.inference.runtimes import KerasRuntime, OnnxRuntime, Runtime
from whichcar.parallel import usable_cores
from whichcar.records import Metadata
from whichcar.taxonomy import taxonomy_of
from whichcar.text import one_line, plural
from whichcar.training.hardware import processor_name
from whichcar.training.run.checkpoint import find_checkpoint, read_metadata
from whichcar.training.run.folder import versions
from whichcar.training.run.refits import experiment_name, in_use
from whichcar.version import VERSION

log = logging.getLogger(__name__)

Format = Literal["onnx", "openvino"]
Forms = dict[str, tuple[Runtime, int]]  # by name, each with its size in bytes
KERAS = "Keras float32"
LARGEST_DIFFERENCE = 1e-3  # of probabilities in float32; 1e-6 to 1e-4 is usual
LARGEST_LOSS = 0.003  # of accuracy, by int8
LICENCE = "not stated; ask whoever trained it"


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote: the bundle, the files for other runtimes, and the measurements that are stored in it."""

    bundle: Path
    others: tuple[Path, ...]
    verification: Verification


def export(
    experiment: str | Path,
    to: str | Path | None = None,
    precision: Precision = "float32",
    plain: str | Path | None = None,
    formats: Sequence[Format] = ("onnx",),
    data: str | Path | None = None,
    licence: str = LICENCE,
    notes: Sequence[str] = (),
) -> Exported:
    """Write a trained network as one file that predicts without Keras: network, class names, settings, model card.

    Before anything is written, the exported network and Keras' classify the same validation images; the export is
    refused where they disagree. Without validation images it is training images, and where the dataset is not there it
    is noise.

    Args:
        experiment: an experiment's folder (its refit is taken, else its best checkpoint by validation) or a checkpoint
            file.
        to: the bundle, a file that ends in `.whichcar` (default: `NAME.whichcar` in the experiment's folder). One that
            is there is replaced.
        precision: `float32`, or `int8` (weights and activations, calibrated on training images), which is refused where
            it loses more than 0.3 points of accuracy on the validation images.
        plain: a folder for the network alone, for other runtimes, with the rest as its metadata.
        formats: what is written there: `onnx` (`model.onnx`), `openvino` (`model.xml` and `model.bin`) or both.
        data: where the dataset that it was trained on lies, if it was moved.
        licence: the terms under which the network may be used.
        notes: sentences for the model card, such as where the data come from.

    Raises:
        CheckpointError: there is no usable checkpoint, a layer cannot be exported, or the exported network disagrees.
        DataError: `data` is another dataset, or its images cannot be read.
        ConfigError: `precision` or a format is unknown, or `to` has another suffix.
        MissingExtraError: the extra `export`, or `openvino`, is not installed.
        OSError: the file cannot be written.
    """
    _check_word("precision", precision, get_args(Precision))
    for word in formats:
        _check_word("format", word, get_args(Format))
    experiment = in_use(Path(experiment))
    checkpoint = find_checkpoint(experiment)
    metadata = read_metadata(checkpoint)
    if not _is_finished(experiment):
        log.warning("%s: its training is not finished; the best checkpoint so far is exported", experiment)
    target, others = _targets(experiment, to, plain, formats)
    check_installed()
    uses_openvino = any(path.suffix == OPENVINO_SUFFIX for path in others)
    if uses_openvino:
        check_openvino()
    calibration = _calibration(checkpoint, data)
    images = export_images(None if data is None else Path(data), metadata)
    if precision == "int8" and images.split == NOISE:
        raise DataError(
            f"{metadata.data_root}: the dataset is not there, and int8 is calibrated and verified on its images; "
            "name it with --data DIR, or export with --precision float32"
        )
    model = float32_copy(checkpoint, calibration.temperature if calibration else 1.0)
    network = to_onnx(model, metadata.image_size, one_line(checkpoint))
    bundle = _bundle(experiment, metadata, network, licence, calibration)
    forms: Forms = {KERAS: (KerasRuntime(model, len(metadata.class_names), np.uint8), checkpoint.stat().st_size)}
    forms |= _forms(bundle, target, uses_openvino)
    if precision == "float32":
        verification = _verified(forms, images, metadata, checkpoint)
    else:
        bundle, verification = _int8(bundle, forms, images, metadata, checkpoint, target, uses_openvino)
    bundle = with_card(bundle, verification, _result(experiment, checkpoint), notes)
    write_bundle(bundle, target)
    for path in others:
        if path.suffix == OPENVINO_SUFFIX:
            OpenVinoNetwork(bundle).write(bundle, path)
        else:
            write_bundle(bundle, path)
    return Exported(target, others, verification)


def _is_finished(experiment: Path) -> bool:
    """False where the record of an experiment's training says that it has not ended."""
    path = experiment / files.RESOLVED
    return not path.is_file() or bool(
        files.read_json(path, {"finished": bool}, "train again with --overwrite")["finished"]
    )


def _check_word(what: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        raise ConfigError(f"{what}: must be one of {', '.join(known)}; got {word!r}")


def _targets(
    experiment: Path, to: str | Path | None, plain: str | Path | None, formats: Sequence[Format]
) -> tuple[Path, tuple[Path, ...]]:
    """Return the bundle's path and those of the other files, all of which can be written."""
    home = experiment if experiment.is_dir() else experiment.parent
    name = experiment_name(experiment).replace("/", "-") if experiment.is_dir() else experiment.stem
    target = home / f"{name}{SUFFIX}" if to is None else Path(to)
    if target.suffix != SUFFIX:
        raise ConfigError(f"{target}: the name of a bundle ends in {SUFFIX}; give {target.with_suffix(SUFFIX)}")
    suffixes = {"onnx": PLAIN_SUFFIX, "openvino": OPENVINO_SUFFIX}
    others = () if plain is None else tuple(Path(plain) / f"model{suffixes[word]}" for word in dict.fromkeys(formats))
    for path in (target, *others):
        files.check_writable(path)
    return target, others


def _forms(bundle: Bundle, target: Path, uses_openvino: bool) -> Forms:
    """Return the forms of a bundle's network that are measured, by name."""
    forms: Forms = {f"ONNX {bundle.precision}": (OnnxRuntime(bundle, target), len(bundle.network))}
    if uses_openvino:
        network = OpenVinoNetwork(bundle)
        forms[f"OpenVINO {bundle.precision}"] = network, network.size
    return forms


def _verified(forms: Forms, images: ExportImages, metadata: Metadata, checkpoint: Path) -> Verification:
    """Measure the networks on the images of an export.

    Raises:
        CheckpointError: a float32 network does not answer as Keras' does.
        DataError: none of the images can be read.
    """
    size, samples = metadata.image_size, images.verifying
    measured = measure(forms, noise(size) if images.split == NOISE else batches(samples, size), len(samples))
    if not measured:
        raise DataError(f"{metadata.data_root}: none of its images can be read; check it with `whichcar check`")
    for form in measured:
        if form.name.endswith("float32") and not form.difference <= LARGEST_DIFFERENCE:
            raise CheckpointError(
                f"{checkpoint}: the {form.name} network disagrees with Keras', by up to {form.difference:.2g} in a "
                f"probability ({LARGEST_DIFFERENCE:g} is allowed), and was not written; predict with the checkpoint"
            )
    return Verification(images.split, images.trained_on, tuple(measured), processor_name(), usable_cores())


def _int8(
    bundle: Bundle,
    forms: Forms,
    images: ExportImages,
    metadata: Metadata,
    checkpoint: Path,
    target: Path,
    uses_openvino: bool,
) -> tuple[Bundle, Verification]:
    """Return the first int8 form of a bundle that is accurate enough, measured next to `forms`."""
    for calibration, candidate in candidates(bundle, calibration_images(images, metadata.image_size), target):
        measured = _verified(forms | _forms(candidate, target, uses_openvino), images, metadata, checkpoint)
        before, *after = (form.top_1 for form in measured.forms if form.top_1)
        worst = min(after, key=lambda accuracy: accuracy.value)
        if before.value - worst.value <= LARGEST_LOSS:
            return candidate, replace(measured, calibration=calibration.name)
    raise CheckpointError(
        f"{checkpoint}: int8 loses {100 * (before.value - worst.value):.1f} points of accuracy on "
        f"{plural(before.total, f'{images.split} image')} ({before.value:.1%} to {worst.value:.1%}), more than "
        f"{100 * LARGEST_LOSS:g}, and was not written (one image is {100 / before.total:.1f} points); "
        "export it with --precision float32"
    )


def _result(experiment: Path, checkpoint: Path) -> dict[str, Any] | None:
    """Return the content of the experiment's result.json where it is about this checkpoint."""
    if not (experiment / files.RESULT).is_file():
        return None
    result = read_result(experiment)
    return result if result["checkpoint"].get("blake2b") == files.checksum(checkpoint) else None


def _calibration(checkpoint: Path, data: str | Path | None) -> Calibration | None:
    """Return the calibration of a checkpoint; None, and a line that says why, where there is none to be had."""
    try:
        return calibrate(checkpoint, data)
    except DataError as error:
        log.info("%s; probabilities are exported as they are", error)
        return None


def _bundle(
    experiment: Path, metadata: Metadata, network: bytes, licence: str, calibration: Calibration | None
) -> Bundle:
    return Bundle(
        name=experiment_name(experiment) if experiment.is_dir() else experiment.stem,
        network=network,
        class_names=metadata.class_names,
        class_folders=metadata.class_folders,
        image_size=metadata.image_size,
        precision="float32",
        backbone=metadata.settings.get("model", {}).get("backbone", DEFAULT),
        licence=licence,
        created=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        whichcar=VERSION,
        experiment=metadata.settings,
        versions=versions(),
        fingerprints=metadata.fingerprints,
        crop=metadata.crop,
        taxonomy=taxonomy_of(metadata.class_names).as_json(),
        temperature=calibration.temperature if calibration else 1.0,
        thresholds=asdict(calibration) if calibration else None,
    )
