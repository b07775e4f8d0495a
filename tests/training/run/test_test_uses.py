"""The count of evaluations on the same images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from whichcar.errors import DataError
from whichcar.files import TEST_USES, read_json, write_json
from whichcar.training.run.test_uses import count_use, keep_uses, read_uses

COUNT_SOME = """
import pathlib, sys
from whichcar.training.run.test_uses import count_use

for _ in range(20):
    count_use(pathlib.Path(sys.argv[1]), "abc", {"time": "now"})
"""


def test_uses_are_counted_by_images_with_what_is_known_of_each(tmp_path: Path) -> None:
    assert count_use(tmp_path, "abc", {"time": "monday", "checkpoint": "a.h5"}) == 1
    assert count_use(tmp_path, "xyz", {"time": "tuesday"}) == 1
    assert count_use(tmp_path, "abc", {"time": "wednesday"}) == 2
    content = read_json(tmp_path / TEST_USES)
    assert content["abc"]["uses"] == [{"time": "monday", "checkpoint": "a.h5"}, {"time": "wednesday"}]


def test_evaluations_at_once_are_all_counted(tmp_path: Path) -> None:
    workers = [subprocess.Popen([sys.executable, "-c", COUNT_SOME, str(tmp_path)]) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0] * 3
    assert read_uses(tmp_path)["abc"]["times"] == 60


def test_counts_of_earlier_results_are_taken_over(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", {"data": {"fingerprint": "abc", "evaluations": 3}})
    write_json(tmp_path / "evaluations" / "x" / "result.json", {"data": {"fingerprint": "abc", "evaluations": 5}})
    assert count_use(tmp_path, "abc", {}) == 6


@pytest.mark.parametrize("name", ["refit/result.json", "refit/evaluations/x/result.json"])
def test_counts_of_earlier_results_of_a_refit_are_taken_over(tmp_path: Path, name: str) -> None:
    write_json(tmp_path / "result.json", {"data": {"fingerprint": "abc", "evaluations": 1}})
    write_json(tmp_path / name, {"data": {"fingerprint": "abc", "evaluations": 5}})
    assert count_use(tmp_path, "abc", {}) == 6


def test_counts_of_earlier_results_of_bundles_are_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, times in (("a", 7), ("b", 2)):
        result = {"data": {"fingerprint": "abc", "evaluations": times}, "checkpoint": {"blake2b": f"of {name}"}}
        write_json(Path("evaluations") / name / "result.json", result)
    assert count_use(Path("evaluations"), "abc of a", {}) == 8
    assert count_use(Path("evaluations"), "abc of b", {}) == 3


def test_counts_of_earlier_results_are_kept_when_these_are_about_to_be_deleted(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", {"data": {"fingerprint": "abc", "evaluations": 3}})
    keep_uses(tmp_path)
    (tmp_path / "result.json").unlink()
    assert count_use(tmp_path, "abc", {}) == 4


def test_nothing_to_keep_leaves_no_file(tmp_path: Path) -> None:
    keep_uses(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_result_that_is_about_to_be_deleted_is_no_obstacle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "result.json").write_text("{")
    keep_uses(tmp_path)
    assert "result.json: damaged" in caplog.text


@pytest.mark.parametrize(
    "content", ["", "[]", '{"abc": 3}', '{"abc": {"times": "2", "uses": []}}', '{"abc": {"times": 2}}']
)
def test_a_damaged_count_is_not_reset_silently(tmp_path: Path, content: str) -> None:
    (tmp_path / TEST_USES).write_text(content)
    with pytest.raises(DataError, match=r"damaged.*the count of evaluations is in it"):
        count_use(tmp_path, "abc", {})
