"""Predict on a cluster: from the images of a folder, tar shards or a bucket to rows in Parquet files."""

from __future__ import annotations

import contextlib
from pathlib import Path, PurePosixPath

from whichcar.errors import DataError
from whichcar.files import CROP_RECORD, NO_IMAGES
from whichcar.inference.classifier import Classifier
from whichcar.inference.input_crop import Vehicles
from whichcar.inference.predict import columns
from whichcar.inference.released import DEFAULT, released
from whichcar.scale.manifest import Manifest
from whichcar.scale.parts import parts_of, place_of, source_of
from whichcar.scale.ray_run import on_ray
from whichcar.scale.run import Runner, Totals, run_parts
from whichcar.scale.storage import Storage, storage_at
from whichcar.scale.work import Job


def predict_on_cluster(
    address: str,
    source: str | Path,
    target: str | Path,
    model: str | Path | None = None,
    top: int = 5,
    crop: bool | None = None,
    detector: str | Path | None = None,
    family: str | None = None,
    confidence: float | None = None,
    vehicles: Vehicles | None = None,
    runner: Runner = on_ray,
) -> Totals:
    """Classify all images of a source; the rows of each part are written to `part-….parquet` in the target.

    Rows and columns are the same as in `inference.predict.predict`. Parts that an earlier call finished are skipped.

    Args:
        address: of the cluster, as for `ray_cluster.check_address`.
        source: a folder, a tar file, or an `s3://` address of either; tar files in a folder are shards of images.
        target: a folder or an `s3://` address, empty or written by an earlier call with the same settings.
        model, crop, detector, family: as for `Classifier`. A file must exist under the same path on every node.
        top, confidence, vehicles: as for `Classifier.predict`.
        runner: runs the parts.

    Raises:
        ClusterError: there is no such cluster, or a node cannot do the work.
        DataError: no (usable) images, a damaged shard, a target with other files, or a bucket that does not answer.
        CheckpointError, ConfigError, DetectorError: as for `Classifier`.
    """
    crop = True if crop is None and vehicles is not None else crop
    classifier = Classifier(model, crop, detector, family)
    classifier.predicting(top, confidence)  # so that their errors show now
    top = min(top, len(classifier.class_names))
    crops, blake2b = classifier.input_crop.crops, classifier.checksum
    names = columns(top, crops, confidence is not None, vehicles is not None)
    storage, images = source_of(source)
    settings = {
        "model": _everywhere(DEFAULT if model is None else str(model), classifier.checkpoint),
        "blake2b": blake2b,
        "crop": crop,
        "detector": None if detector is None else _everywhere(str(detector), Path(str(detector))),
        "family": family,
        "top": top,
        "confidence": confidence,
        "vehicles": vehicles,
        "columns": names,
    }
    if crop is None and storage.is_remote and _is_cropped(storage):  # workers find crop.json in folders, not in buckets
        settings |= {"crop": False, "detector": None, "family": None}
    origin = {
        "stage": "predict",
        "source": place_of(source, storage),
        "model": {"name": classifier.checkpoint.name, "blake2b": blake2b},
        "columns": names,
        "crop": classifier.input_crop.origin(vehicles),
        "confidence": confidence,
        "vehicles": vehicles,
    }
    parts = parts_of(images)
    job = Job("predict", storage, storage_at(target), settings, {})
    with Manifest(job.target, origin).opened() as manifest:
        totals = run_parts(address, job, parts, manifest, runner)
        results = {f"{part.name}.parquet" for part in parts}
        for name in list(job.target.walk()):  # including parts that no run could finish, which no manifest names
            if name.startswith("part-") and name.endswith(".parquet") and name not in results:
                job.target.remove(name)
        manifest.finish(part.name for part in parts)
    if not totals.images:
        raise DataError(f"{source}: {NO_IMAGES}")
    if totals.unusable == totals.images:
        raise DataError(f"{source}: none of {totals.images:,} images could be used; {target} has the reasons")
    return totals


def _is_cropped(storage: Storage) -> bool:
    """Return whether `whichcar crop` wrote this part of a bucket or one that contains it."""
    place = PurePosixPath(storage.place.removeprefix("s3://"))
    with contextlib.suppress(DataError):  # the credentials may be for this part only
        return any(storage_at(f"s3://{path}").read(CROP_RECORD) is not None for path in (place, *place.parents[:-1]))
    return False


def _everywhere(name: str, path: Path) -> str:
    """Return the name of a model or detector that the package has or downloads, else the absolute path of a file."""
    is_named = name in released() or not Path(name).exists()
    return name if is_named else str(path.absolute())
