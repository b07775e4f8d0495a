"""Export a trained network: compare it with Keras' on real images, then write it as one file."""

from __future__ import annotations

import datetime
import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from whichcar import files
from whichcar.config.backbones import DEFAULT
from whichcar.errors import ConfigError, DataError, MissingExtraError
from whichcar.evaluation.calibration import calibrate
from whichcar.evaluation.result_file import read_result
from whichcar.exporting.comparison import TITLES, Comparison, Format
from whichcar.exporting.images import NOISE, export_images
from whichcar.exporting.model_card import with_card
from whichcar.exporting.onnx import check_installed, divide_logits, float32_copy, to_onnx
from whichcar.exporting.verify import Verification
from whichcar.inference.answer import Calibration
from whichcar.inference.bundle import PLAIN_SUFFIX, SUFFIX, Bundle, Precision, write_bundle
from whichcar.inference.runtimes import KerasRuntime
from whichcar.records import Metadata
from whichcar.taxonomy import taxonomy_of
from whichcar.text import one_line
from whichcar.training.run.checkpoint import find_checkpoint, read_metadata, unfinished
from whichcar.training.run.folder import versions
from whichcar.training.run.refits import experiment_name, in_use
from whichcar.version import VERSION

log = logging.getLogger(__name__)

SUFFIXES: dict[Format, str] = {"onnx": PLAIN_SUFFIX, "openvino": ".xml", "litert": ".tflite"}
PACKAGES: dict[Format, str] = {"openvino": "openvino", "litert": "ai_edge_litert"}  # extras are named like formats
LICENCE = "not stated; ask whoever trained it"


@dataclass(frozen=True, slots=True)
class Exported:
    """The files an export wrote: the bundle and those for other runtimes; and the measurements stored in them."""

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

    Before anything is written, the exported network and Keras' classify the same validation images, and the export
    fails if they disagree. Without validation images, training images are used, and without the dataset, noise.

    Args:
        experiment: an experiment's folder (for its refit, else its best checkpoint by validation) or a checkpoint file.
        to: the bundle, a file that ends in `.whichcar` (default: `NAME.whichcar` in the experiment's folder, for a
            refit `refit/NAME-refit.whichcar`). An existing file is overwritten.
        precision: `float32`, or `int8` (weights and activations, calibrated on training images), which fails if it
            loses more than 0.3 points of accuracy on the validation images.
        plain: a folder for the network alone, for other runtimes, with everything else as its metadata.
        formats: formats to write there: `onnx` (`model.onnx`), `openvino` (`model.xml` and `model.bin`), `litert`
            (`model.tflite`).
        data: the location of the dataset the network was trained on, if it was moved.
        licence: the terms under which the network may be used.
        notes: sentences for the model card, such as the origin of the data.

    Raises:
        CheckpointError: there is no usable checkpoint, a layer cannot be exported, or the exported network disagrees.
        DataError: `data` is another dataset, its images cannot be read, the dataset is missing for int8, or the
            experiment's result.json is damaged.
        ConfigError: `precision` or a format is unknown, or `to` has another suffix.
        MissingExtraError: the extra `export`, or that of a format, is not installed.
        OSError: a file cannot be written.
    """
    chosen = [("precision", precision, get_args(Precision)), *(("format", word, get_args(Format)) for word in formats)]
    for what, word, known in chosen:
        if word not in known:
            raise ConfigError(f"{what}: must be one of {', '.join(known)}; got {word!r}")
    check_installed()
    if plain is None:
        formats = ()
    for extra, package in PACKAGES.items():
        if extra in formats and importlib.util.find_spec(package) is None:
            raise MissingExtraError(TITLES[extra], extra)
    experiment = in_use(Path(experiment))
    checkpoint = find_checkpoint(experiment)
    metadata = read_metadata(checkpoint)
    if warning := unfinished(experiment, "exported"):
        log.warning("%s", warning)
    # The name becomes part of a file's name, and of a server's addresses.
    name = experiment_name(experiment).replace("/", "-") if experiment.is_dir() else experiment.stem
    target, others = _targets(experiment, name, to, plain, formats)
    result = _result(experiment, checkpoint)
    images = export_images(None if data is None else Path(data), metadata)
    if precision == "int8" and images.split == NOISE:
        raise DataError(
            f"{metadata.data_root}: the dataset is not there, and int8 is calibrated and verified on its images; "
            "name it with --data DIR, or export with --precision float32"
        )
    # Loaded before images are classified for the calibration: that would choose JAX with a GPU, and meanwhile a running
    # training may delete the file.
    model, size = float32_copy(checkpoint), checkpoint.stat().st_size
    if calibration := _calibration(checkpoint, data):
        divide_logits(model, calibration.temperature)
    network = to_onnx(model, metadata.image_size, one_line(checkpoint))
    bundle = _bundle(name, metadata, network, licence, calibration)
    keras = KerasRuntime(model, len(metadata.class_names), np.uint8)
    comparison = Comparison(keras, checkpoint, size, metadata, images, formats)
    compared = (comparison.float32 if precision == "float32" else comparison.int8)(bundle)
    bundle = with_card(compared.bundle, compared.verification, result, notes)
    write_bundle(bundle, target)
    written: list[Path] = []
    for word, path in others.items():
        if word == "onnx":
            write_bundle(bundle, path)
            written.append(path)
        else:
            written += compared.others[word].write(bundle, path)
    return Exported(target, tuple(written), compared.verification)


def _targets(
    experiment: Path, name: str, to: str | Path | None, plain: str | Path | None, formats: Sequence[Format]
) -> tuple[Path, dict[Format, Path]]:
    """Return the paths of the bundle and of the other formats, after checking that all can be written."""
    home = experiment if experiment.is_dir() else experiment.parent
    target = home / f"{name}{SUFFIX}" if to is None else Path(to)
    if target.suffix != SUFFIX:
        advice = target / f"{name}{SUFFIX}" if target.is_dir() else target.with_suffix(SUFFIX)
        raise ConfigError(f"{target}: the name of a bundle ends in {SUFFIX}; give {advice}")
    others = {} if plain is None else {word: Path(plain) / f"model{SUFFIXES[word]}" for word in formats}
    for path in (target, *others.values()):
        files.check_writable(path)
    return target, others


def _result(experiment: Path, checkpoint: Path) -> dict[str, Any] | None:
    """Return the content of the experiment's result.json if it is about this checkpoint."""
    if not (experiment / files.RESULT).is_file():
        return None
    result = read_result(experiment)
    return result if result["checkpoint"].get("blake2b") == files.checksum(checkpoint) else None


def _calibration(checkpoint: Path, data: str | Path | None) -> Calibration | None:
    """Return the calibration of a checkpoint, or log why there is none and return None."""
    try:
        return calibrate(checkpoint, data)
    except DataError as error:
        log.warning("%s; probabilities are exported as they are", error)
        return None


def _bundle(name: str, metadata: Metadata, network: bytes, licence: str, calibration: Calibration | None) -> Bundle:
    return Bundle(
        name=name,
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
