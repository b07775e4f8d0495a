"""One run of a stage in parts: parts that earlier runs finished are skipped, and newly finished parts are recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from whichcar.errors import ClusterError, DataError
from whichcar.progress import Bar
from whichcar.scale.manifest import Manifest
from whichcar.scale.parts import Part
from whichcar.scale.ray_run import on_ray
from whichcar.scale.work import Counts, Job
from whichcar.text import plural

Runner = Callable[[str, Job, Sequence[Part]], Iterator[Counts | None]]


@dataclass(frozen=True, slots=True)
class Totals:
    """What a target holds: finished parts, parts that an earlier run finished, images, and unusable images."""

    parts: int
    earlier: int
    images: int
    unusable: int


def run_parts(address: str, job: Job, parts: Sequence[Part], manifest: Manifest, runner: Runner = on_ray) -> Totals:
    """Run the parts that are missing from the manifest or have changed, and record them there.

    Raises:
        ClusterError: as for `on_ray`, or a part failed.
        DataError: shards are damaged, or another run has taken the target over.
    """
    missing = [part for part in parts if manifest.parts.get(part.name, {}).get("version") != part.version]
    for part in missing:
        manifest.parts.pop(part.name, None)
    known = sum(len(part.files) for part in missing)
    damaged: list[tuple[Part, str]] = []
    by_name = {part.name: part for part in missing}
    total = None if any(part.is_shard for part in missing) else known
    with Bar(f"{job.stage} on {address}", total) as bar:
        for counts in runner(address, job, missing) if missing else ():
            if counts is not None:
                if counts.error:
                    raise ClusterError(f"{counts.error}; what is finished is kept")
                if counts.damaged:
                    damaged.append((by_name[counts.part], counts.damaged))
                else:
                    kept = asdict(counts) | {"version": by_name[counts.part].version}
                    manifest.add(counts.part, {name: kept[name] for name in ("images", "unusable", "version")})
                bar.update(counts.images)
            manifest.beat()
    lost = [part for part in parts if part.name not in manifest.parts]
    if damaged:
        shard, why = job.source.shown(job.source.address(damaged[0][0].files[0])), damaged[0][1]
        others = f" (and {plural(len(damaged) - 1, 'more shard')})" if len(damaged) > 1 else ""
        raise DataError(f"{shard}{others}: {why}; all else is done, and the same command then does the rest")
    if lost:
        raise ClusterError(f"--ray {address}: {plural(len(lost), 'part')} did not come back; run it again")
    records = [manifest.parts[part.name] for part in parts]
    images, unusable = (sum(record[name] for record in records) for name in ("images", "unusable"))
    return Totals(len(parts), len(parts) - len(missing), images, unusable)
