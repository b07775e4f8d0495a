"""Export a trained network: measured next to Keras' on real images, then written as one file."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from whichcar import files
from whichcar.config.backbones import DEFAULT
from whichcar.errors import CheckpointError, ConfigError, DataError
from whichcar.evaluation.result import read_result
from whichcar.exporting.images import NOISE, ExportImages, batches, calibration_images, export_images, noise
from whichcar.exporting.model_card import with_card
from whichcar.exporting.onnx import check_installed, float32_copy, to_onnx
from whichcar.exporting.quantize import candidates
from whichcar.exporting.verify import Verification, measure
from whichcar.inference.bundle import PLAIN_SUFFIX, SUFFIX, Bundle, Precision, write_bundle
from whichcar.inference.runtimes import KerasRuntime, OnnxRuntime, Runtime
from whichcar.parallel import usable_cores
from whichcar.records import Metadata
from whichcar.text import one_line, plural
from whichcar.training.hardware import processor_name
from whichcar.training.run.checkpoint import find_checkpoint, read_metadata
from whichcar.training.run.folder import versions
from whichcar.training.run.refits import experiment_name, in_use
from whichcar.version import VERSION

KERAS, ONNX = "Keras float32", "ONNX"
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
    data: str | Path | None = None,
    licence: str = LICENCE,
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
        plain: a folder that `model.onnx` is written to as well: the network for any runtime, the rest as its metadata.
        data: where the dataset that it was trained on lies, if it was moved.
        licence: the terms under which the network may be used.

    Raises:
        CheckpointError: there is no usable checkpoint, a layer cannot be exported, or the exported network disagrees.
        DataError: `data` is another dataset, or its images cannot be read.
        ConfigError: `precision` is unknown, or `to` has another suffix.
        MissingExtraError: the extra `export` is not installed.
        OSError: the file cannot be written.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision: must be one of {', '.join(get_args(Precision))}; got {precision!r}")
    experiment = in_use(Path(experiment))
    checkpoint = find_checkpoint(experiment)
    metadata = read_metadata(checkpoint)
    target, others = _targets(experiment, to, plain)
    check_installed()
    images = export_images(None if data is None else Path(data), metadata)
    if precision == "int8" and images.split == NOISE:
        raise DataError(
            f"{metadata.data_root}: the dataset is not there, and int8 is calibrated and verified on its images; "
            "name it with --data DIR, or export with --precision float32"
        )
    model = float32_copy(checkpoint)
    network = to_onnx(model, metadata.image_size, one_line(checkpoint))
    bundle = _bundle(experiment, metadata, network, licence)
    networks: dict[str, tuple[Runtime, int]] = {
        KERAS: (KerasRuntime(model, len(metadata.class_names), np.uint8), checkpoint.stat().st_size),
        f"{ONNX} float32": (OnnxRuntime(bundle, target), len(network)),
    }
    if precision == "int8":
        bundle, verification = _int8(bundle, networks, images, metadata, checkpoint, target)
    else:
        verification = _verified(networks, images, metadata)
        _accept(verification, checkpoint)
    bundle = with_card(bundle, verification, _result(experiment, checkpoint))
    write_bundle(bundle, target)
    for path in others:
        write_bundle(bundle, path)
    return Exported(target, others, verification)


def _targets(experiment: Path, to: str | Path | None, plain: str | Path | None) -> tuple[Path, tuple[Path, ...]]:
    """Return the bundle's path and those of the other files, all of which can be written."""
    home = experiment if experiment.is_dir() else experiment.parent
    name = experiment_name(experiment).replace("/", "-") if experiment.is_dir() else experiment.stem
    target = home / f"{name}{SUFFIX}" if to is None else Path(to)
    if target.suffix != SUFFIX:
        raise ConfigError(f"{target}: the name of a bundle ends in {SUFFIX}; give {target.with_suffix(SUFFIX)}")
    others = () if plain is None else (Path(plain) / f"model{PLAIN_SUFFIX}",)
    for path in (target, *others):
        files.check_writable(path)
    return target, others


def _verified(networks: Mapping[str, tuple[Runtime, int]], images: ExportImages, metadata: Metadata) -> Verification:
    """Measure the networks on the images of an export."""
    size, samples = metadata.image_size, images.verifying
    forms = measure(networks, noise(size) if images.split == NOISE else batches(samples, size), len(samples))
    if not forms:
        raise DataError(f"{metadata.data_root}: none of its images can be read; check it with `whichcar check`")
    return Verification(images.split, images.trained_on, tuple(forms), processor_name(), usable_cores())


def _int8(
    bundle: Bundle,
    networks: dict[str, tuple[Runtime, int]],
    images: ExportImages,
    metadata: Metadata,
    checkpoint: Path,
    target: Path,
) -> tuple[Bundle, Verification]:
    """Return the first int8 form of a bundle that is accurate enough, with its measurements next to `networks`."""
    for calibration, candidate in candidates(bundle, calibration_images(images, metadata.image_size), target):
        networks[f"{ONNX} int8"] = OnnxRuntime(candidate, target), len(candidate.network)
        verification = replace(_verified(networks, images, metadata), calibration=calibration.name)
        _accept(verification, checkpoint)
        if _lost(verification) <= LARGEST_LOSS:
            return candidate, verification
    before, after = (form.top_1 for form in (verification.forms[0], verification.forms[-1]) if form.top_1)
    raise CheckpointError(
        f"{checkpoint}: int8 loses {100 * _lost(verification):.1f} points of accuracy on "
        f"{plural(before.total, f'{verification.split} image')} ({before.value:.1%} to {after.value:.1%}), more than "
        f"{100 * LARGEST_LOSS:g}, and was not written; export it with --precision float32"
    )


def _lost(verification: Verification) -> float:
    """Return how much less accurate the last form is than the first."""
    before, after = verification.forms[0].top_1, verification.forms[-1].top_1
    return before.value - after.value if before and after else 0.0


def _accept(verification: Verification, checkpoint: Path) -> None:
    """Raise where the float32 network does not answer as Keras' does."""
    form = verification.forms[1]
    if form.difference > LARGEST_DIFFERENCE or not np.isfinite(form.difference):
        raise CheckpointError(
            f"{checkpoint}: the {form.name} network disagrees with Keras', by up to {form.difference:.2g} in a "
            f"probability ({LARGEST_DIFFERENCE:g} is allowed), and was not written; predict with the checkpoint itself"
        )


def _result(experiment: Path, checkpoint: Path) -> dict[str, Any] | None:
    """Return the content of the experiment's result.json where it is about this checkpoint."""
    if not (experiment / files.RESULT).is_file():
        return None
    result = read_result(experiment)
    return result if result["checkpoint"].get("blake2b") == files.checksum(checkpoint) else None


def _bundle(experiment: Path, metadata: Metadata, network: bytes, licence: str) -> Bundle:
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
    )
