"""Crop on a cluster: every image of a folder, of tar shards or of a bucket, to files of the same names."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from whichcar.config.crop import crop_settings
from whichcar.data import boxes
from whichcar.data.split_record import records_in
from whichcar.detection.crop import RECORD, record_of
from whichcar.detection.cropper import Cropper
from whichcar.detection.onnx import OnnxDetector
from whichcar.errors import DataError
from whichcar.files import NO_IMAGES, remove_empty
from whichcar.scale.manifest import Manifest
from whichcar.scale.parts import SHARD, Part, parts_of, place_of, source_of
from whichcar.scale.ray_run import on_ray
from whichcar.scale.run import Runner, Totals, run_parts
from whichcar.scale.storage import Storage, storage_at, temporary_file
from whichcar.scale.work import TABLES, Job
from whichcar.text import as_text, without_password


def crop_on_cluster(
    address: str,
    source: str | Path,
    target: str | Path,
    runner: Runner = on_ray,
    detector: str | Path | None = None,
    **settings: Any,  # noqa: ANN401  (checked by crop_settings)
) -> Totals:
    """Crop all images of a source to their vehicles; the target then holds what `detection.crop.crop` writes.

    A tar file becomes a tar file of the same name, with the crops and all other members. Parts that an earlier call
    finished are skipped.

    Args:
        address: of the cluster, as for `ray_cluster.check_address`.
        source: a folder, a tar file, or an `s3://` address of either; tar files in a folder are shards of images.
        target: a folder or an `s3://` address, empty or written by an earlier call with the same settings.
        runner: runs the parts.
        detector: a name, or a file that exists under the same path on every node.
        **settings: the other fields of `CropSettings`.

    Raises:
        ClusterError: there is no such cluster, or a node cannot do the work.
        ConfigError, DetectorError: as for `detection.crop.crop`.
        DataError: no images, a damaged shard, a damaged or unfinished split.json, a target with other files, or a
            bucket that does not answer.
    """
    checked = crop_settings(detector=None if detector is None else str(detector), **settings)
    storage, names = source_of(source)
    to = storage_at(target)
    if _overlap(storage, to, is_file=str(source).endswith(SHARD)):
        raise DataError(f"{target}: is inside {source}, or contains it; give a folder next to it")
    # split.json is copied, so that the same images are held out for validation, and read now, so that errors show.
    folders = sorted({name.partition("/")[0] for name in names if "/" in name})
    splits = records_in(without_password(storage.root), folders, storage.read)
    cropper, record = Cropper(checked, threads=1), record_of(checked)
    if isinstance(cropper.detector, OnnxDetector):
        record["detector"]["read_as"] = cropper.detector.read_as
    parts = parts_of(names)
    job = Job("crop", storage, to, record["settings"], {})
    record = {"source": storage.place, **record}
    # The folder of a detector file does not matter, only its name and checksum.
    used = {name: value for name, value in record["settings"].items() if name != "detector"}
    origin = {"stage": "crop", **record, "settings": used, "source": place_of(source, storage)}
    with Manifest(to, origin).opened() as manifest:
        _describe(to, record, finished=False)
        for name, content in splits.items():
            to.write(name, content)
        totals = run_parts(address, job, parts, manifest, runner)
        _remove_stale(to, parts, names)
        _join_tables(to, parts)
        _describe(to, record, finished=True)
        manifest.finish(part.name for part in parts)
    if not totals.images:
        raise DataError(f"{source}: {NO_IMAGES}")
    return totals


def _overlap(source: Storage, target: Storage, is_file: bool) -> bool:
    """Return whether the target contains the source or lies in it; `is_file`: the source is one file in `source`."""
    if source.is_remote != target.is_remote:
        return False
    places = [storage.place for storage in (source, target)]
    one, other = places if source.is_remote else [str(Path(place).resolve()) for place in places]
    return f"{one}/".startswith(f"{other}/") or (not is_file and f"{other}/".startswith(f"{one}/"))


def _describe(target: Storage, record: dict[str, Any], finished: bool) -> None:
    content = json.dumps({"finished": finished, **record}, indent=1, ensure_ascii=False, allow_nan=False)
    target.write(RECORD, f"{as_text(content)}\n".encode())


def _remove_stale(target: Storage, parts: Sequence[Part], present: Container[str]) -> None:
    """Delete the crops of files that are no longer in the source; otherwise they would be trained on."""
    tables, current = storage_at(target.address(TABLES)), {part.name for part in parts}
    for listing in [name for name in tables.walk() if name.endswith(".json")]:
        part = listing.removesuffix(".json")
        if part in current:
            continue
        for name in json.loads(tables.read(listing) or b"[]"):
            if name not in present:
                target.remove(name)
                if not target.is_remote:
                    remove_empty(Path(target.address(name)).parent)
        tables.remove(f"{part}.csv")
        tables.remove(listing)


def _join_tables(target: Storage, parts: Sequence[Part]) -> None:
    """Write boxes.csv from the rows of all parts, in order."""
    with temporary_file() as file:
        file.write(boxes.HEADER.encode())
        for part in parts:
            file.write(target.read(f"{TABLES}/{part.name}.csv") or b"")
        file.flush()
        target.write(boxes.FILE, Path(file.name))
