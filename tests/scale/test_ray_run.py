"""Parts on a real Ray cluster of two nodes, both on this machine, whose workers and nodes are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from whichcar.data.check.check import check
from whichcar.data.check.page import write_report
from whichcar.data.duplicates import scan
from whichcar.detection.crop import crop
from whichcar.errors import ClusterError
from whichcar.scale import parts as parts_module
from whichcar.scale.check import SCANS, check_on_cluster
from whichcar.scale.crop import crop_on_cluster
from whichcar.scale.parts import Part
from whichcar.scale.predict import predict_on_cluster
from whichcar.scale.ray_run import on_ray
from whichcar.scale.work import Counts, Job

from ..colours import COLOURS, draw
from ..search.test_ray_launcher import Cluster, processes_of_session, started
from .test_crop import contents
from .test_predict import known, plain_rows, rows_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with started(2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(30):
        draw(folder / f"{number:02d}.jpg", list(COLOURS.values())[number % 3], (640, 480), number)
    (folder / "30.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "PART_IMAGES", 2)


def after(count: int, do: Callable[[], Any]) -> Callable[[str, Job, Sequence[Part]], Iterator[Counts | None]]:
    """Run on the cluster, and do something once that many parts are finished."""

    def run(address: str, job: Job, parts: Sequence[Part]) -> Iterator[Counts | None]:
        finished = 0
        for counts in on_ray(address, job, parts):
            yield counts
            finished += counts is not None
            if counts is not None and finished == count:
                do()

    return run


def workers(cluster: Cluster) -> list[int]:
    """The processes that do parts, on all nodes."""
    found = [pid for node in cluster.nodes for pid in processes_of_session(node.process.pid)]
    return [pid for pid in found if b"MapWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_killed_worker_loses_and_doubles_nothing(
    cluster: Cluster, images: Path, tmp_path: Path, red_car_file: Path
) -> None:
    killed = []

    def kill() -> None:
        killed.extend(workers(cluster)[:1])
        os.kill(killed[0], signal.SIGKILL)

    totals = crop_on_cluster(cluster.address, images, tmp_path / "out", after(3, kill), detector=red_car_file)
    assert (len(killed), totals.parts, totals.images, totals.unusable) == (1, 16, 31, 1)
    list(crop(images, tmp_path / "plain", detector=red_car_file))
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")


def test_scans_of_a_cluster_are_those_of_this_machine_though_a_worker_was_killed(
    cluster: Cluster, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cleanvision", reason="whichcar[check] is not installed")
    killed: list[int] = []

    def kill() -> None:
        killed.extend(workers(cluster)[:1])
        os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setenv("WHICHCAR_CACHE", str(tmp_path / "plain"))
    write_report(check(images), tmp_path / "plain")
    monkeypatch.setenv("WHICHCAR_CACHE", str(tmp_path / "ray"))
    monkeypatch.setattr(scan, "decoded", None)  # this process reads no image
    checked = check_on_cluster(cluster.address, images, output=tmp_path / "ray", runner=after(3, kill))
    write_report(checked, tmp_path / "ray")
    assert len(killed) == 1
    assert (tmp_path / "ray" / "issues.csv").read_bytes() == (tmp_path / "plain" / "issues.csv").read_bytes()
    assert not (tmp_path / "ray" / SCANS).exists()


def test_another_token_is_one_line(
    cluster: Cluster, images: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    with pytest.raises(
        ClusterError, match=r"no Ray cluster there \(.* or it wants another token .*\); start"
    ) as caught:
        predict_on_cluster(cluster.address, images, tmp_path / "out", bundle)
    assert "\n" not in str(caught.value)


def test_a_stopped_run_is_resumed(
    cluster: Cluster, images: Path, bundle: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.delenv("RAY_AUTH_MODE")  # the token is used anyway
    with pytest.raises(KeyboardInterrupt):
        predict_on_cluster(cluster.address, images, tmp_path / "out", bundle, top=2, runner=after(2, interrupt))
    totals = predict_on_cluster(cluster.address, images, tmp_path / "out", bundle, top=2)
    assert (totals.parts, totals.earlier) == (16, 2)
    assert list(map(known, rows_in(tmp_path / "out"))) == list(map(known, plain_rows(bundle, images)))
    on_bucket = predict_on_cluster(cluster.address, images, f"{bucket}/answers", bundle, top=2)
    assert (on_bucket.images, on_bucket.unusable) == (31, 1)


def test_a_killed_node_loses_and_doubles_nothing(images: Path, bundle: Path, tmp_path: Path) -> None:
    with started(2) as cluster:
        totals = predict_on_cluster(
            cluster.address, images, tmp_path / "out", bundle, top=2, runner=after(3, cluster.nodes[1].end)
        )
    assert (totals.parts, totals.images) == (16, 31)
    assert list(map(known, rows_in(tmp_path / "out"))) == list(map(known, plain_rows(bundle, images)))
