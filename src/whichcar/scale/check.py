"""Check on a cluster: its workers scan the images of a folder; this machine compares the scans and finds issues."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from whichcar.data.check.check import Checked, check_collection
from whichcar.data.dataset import collect
from whichcar.data.duplicates.scan import EDITION, ScanCache, from_row
from whichcar.data.fetch.download import is_remote
from whichcar.errors import DataError
from whichcar.progress import track
from whichcar.records import TINY
from whichcar.scale.manifest import Manifest
from whichcar.scale.parquet import rows_in
from whichcar.scale.parts import SHARD, parts_of
from whichcar.scale.ray_run import on_ray
from whichcar.scale.run import Runner, run_parts
from whichcar.scale.storage import storage_at
from whichcar.scale.work import Job, scanning

SCANS = ".scans"  # folder of the scans that this machine has not taken yet


def check_on_cluster(
    address: str,
    data: str | Path,
    labels: str | Path | None = None,
    smallest: int = TINY,
    output: str | Path | None = None,
    runner: Runner = on_ray,
) -> Checked:
    """Check the images of a folder as `data.check.check.check` does, after a cluster has scanned the new ones.

    The workers write the scans of each part to `.scans/` in `output`, and this machine moves them to its scan cache.
    Images in the cache are not sent, nor are parts that an interrupted call finished.

    Args:
        address: of the cluster, as for `ray_cluster.check_address`.
        data, labels, smallest: as for `check`; `data` must be a folder on a disk that all machines share.
        output: a writable folder on such a disk (default: `data`).
        runner: runs the parts.

    Raises:
        ClusterError: there is no such cluster, or a node cannot do the work.
        DataError, MissingExtraError: as for `check`; or `data` is a bucket or a tar file.
    """
    if is_remote(str(data)) or Path(data).is_file():
        raise DataError(
            f"{data}: must be a folder on a disk that all machines share; copy the images of a bucket, or of a tar "
            "file, to one"
        )
    collection = collect(Path(data), Path(labels) if labels else None)
    source, target = storage_at(data), storage_at(Path(data if output is None else output, SCANS))
    job = Job("scan", source, target, {}, {})
    scanning(job)  # so that its errors show now
    paths = track([entry.path for entry in collection.entries], "looking for new images")
    origin = {"stage": "scan", "source": source.place, "edition": EDITION}
    with ScanCache() as cache:
        with Manifest(target, origin).opened(forget=True) as manifest:
            _take(cache, collection.root, manifest)  # what an interrupted call left, which may have had other parts
            new = {}
            for path in paths:
                manifest.beat()
                if not (path.endswith(SHARD) or cache.knows(collection.root / path)):
                    new[path] = source.version(path)
            run_parts(address, job, parts_of(new), manifest, runner)
            _take(cache, collection.root, manifest)
        shutil.rmtree(target.place, ignore_errors=True)
        return check_collection(collection, cache, smallest)


def _take(cache: ScanCache, root: Path, manifest: Manifest) -> None:
    """Move the scans of all finished parts to the cache; a part without a file has been moved before."""
    for part in track(list(manifest.parts), "taking in", unit="parts"):
        content = manifest.target.read(f"{part}.parquet")
        for row in rows_in(content) if content else ():
            path, size, modified, changed, *scan = row.values()
            cache.take(root / os.fsdecode(path), (size, modified, changed), from_row(tuple(scan)))
        manifest.target.remove(f"{part}.parquet")
        manifest.beat()
    manifest.parts.clear()
