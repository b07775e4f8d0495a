"""Which images two sets have in common, and digests of sets."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from whichcar.data.identity import fingerprint, in_common
from whichcar.records import Sample


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_same_file_a_link_and_a_copy_are_in_common(tmp_path: Path) -> None:
    known = write(tmp_path / "train" / "a.jpg", b"content")
    os.link(known, tmp_path / "hard.jpg")
    (tmp_path / "soft.jpg").symlink_to(known)
    shutil.copyfile(known, tmp_path / "copy.jpg")
    paths = [known, *(tmp_path / name for name in ("hard.jpg", "soft.jpg", "copy.jpg"))]
    assert in_common(paths, [known]) == paths


def test_files_of_one_size_or_one_name_are_not_in_common(tmp_path: Path) -> None:
    known = write(tmp_path / "train" / "a.jpg", b"content")
    assert in_common([write(tmp_path / "test" / "a.jpg", b"CONTENT")], [known]) == []


def test_empty_missing_and_special_files_are_not_in_common(tmp_path: Path) -> None:
    known = write(tmp_path / "train" / "a.jpg", b"")
    os.mkfifo(tmp_path / "fifo.jpg")
    paths = [write(tmp_path / "b.jpg", b""), tmp_path / "none.jpg", tmp_path / "fifo.jpg"]
    assert in_common(paths, [known, tmp_path / "gone.jpg", tmp_path / "fifo.jpg"]) == []


def test_a_copy_of_a_set_has_its_fingerprint_and_another_file_changes_it(tmp_path: Path) -> None:
    write(tmp_path / "one" / "class" / "a.jpg", b"content")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = ([Sample(tmp_path / name / "class" / "a.jpg", 0)] for name in ("one", "two"))
    assert fingerprint(one) == fingerprint(two)
    assert fingerprint([*two, Sample(write(tmp_path / "two" / "class" / "b.jpg", b"x"), 0)]) != fingerprint(one)
