from __future__ import annotations

import dataclasses
import json
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from whichcar.errors import CheckpointError
from whichcar.inference.bundle import Bundle, read_bundle, write_bundle
from whichcar.inference.onnx_metadata import metadata_of, with_metadata

from ..bundles import colour_bundle, colour_network

FULL = {
    "crop": {"settings": {"margin": 0.1}, "detector": {"name": "yolox_nano", "sha256": "ab"}},
    "metrics": {"float32": {"top_1": 0.5}},
    "versions": {"keras": "3"},
    "fingerprints": {"train": "ab"},
    "taxonomy": {"make": ["Ä"]},
    "temperature": 1.25,
}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    bundle = colour_bundle(**FULL)
    write_bundle(bundle, tmp_path / "new" / "a.whichcar")
    assert read_bundle(tmp_path / "new" / "a.whichcar") == bundle


def test_names_that_are_not_utf_8_are_kept(tmp_path: Path) -> None:
    bundle = colour_bundle()
    bundle = dataclasses.replace(bundle, class_folders=(*bundle.class_folders[:-1], "Citro\udcebn C3 2012"))
    write_bundle(bundle, tmp_path / "a.whichcar")
    assert read_bundle(tmp_path / "a.whichcar") == bundle


def test_the_members_are_stored_in_a_fixed_order_and_the_bytes_are_reproducible(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_bundle(colour_bundle(), tmp_path / f"{name}.whichcar")
    with zipfile.ZipFile(tmp_path / "a.whichcar") as archive:
        assert archive.namelist() == ["bundle.json", "network.onnx", "card.md", "card.html"]
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.read("bundle.json"))["format"] == 1
    assert (tmp_path / "a.whichcar").read_bytes() == (tmp_path / "b.whichcar").read_bytes()


def test_an_onnx_file_of_ours_is_a_bundle_without_a_card_and_valid_for_others(tmp_path: Path) -> None:
    bundle, path = colour_bundle(**FULL), tmp_path / "a.onnx"
    write_bundle(bundle, path)
    assert read_bundle(path) == dataclasses.replace(bundle, card="", page="")
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert json.loads(model.metadata_props[0].value)["class_names"] == list(bundle.class_names)
    onnx.save(model, path)  # as another program may
    assert read_bundle(path).class_names == bundle.class_names


def test_metadata_replaces_what_was_there_and_leaves_the_rest() -> None:
    model = onnx.load_from_string(colour_network())
    onnx.helper.set_model_props(model, {"a": "1", "b": "2" * 300})
    content = with_metadata(with_metadata(model.SerializeToString(), "a", "ä"), "c", "")
    assert metadata_of(content) == {"b": "2" * 300, "a": "ä", "c": ""}
    assert {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props} == metadata_of(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x89HDF\r\n", "is not a bundle"),
        (None, "no such file|No such file"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "x.whichcar"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        read_bundle(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_another_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.whichcar", "w") as archive:
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(CheckpointError, match=r"no bundle.json in it\); give a file that `whichcar export` wrote"):
        read_bundle(tmp_path / "x.whichcar")


def test_every_cut_and_every_changed_byte_of_the_network_is_seen(bundle: Path, tmp_path: Path) -> None:
    content = bundle.read_bytes()
    place = content.index(b"MatMul")
    damaged = [content[:end] for end in range(5, len(content), 97)]
    damaged += [content[:place] + b"m" + content[place + 1 :]]
    directory = content.rindex(b"PK\x05\x06")  # its end; 16 bytes on is where it begins
    damaged += [content[: directory + 17] + b"\x40" + content[directory + 18 :]]
    first = content.index(b"PK\x01\x02")  # 10 bytes on is the compression of bundle.json: 8 is zlib
    damaged += [content[: first + 10] + b"\x08" + content[first + 11 :]]
    for number, part in enumerate(damaged):
        path = tmp_path / f"{number}.whichcar"
        path.write_bytes(part)
        with pytest.raises(CheckpointError, match=r"whichcar: .*(damaged|not a bundle)"):
            read_bundle(path)


def test_a_changed_byte_of_the_network_shows_in_its_checksum(bundle: Path, tmp_path: Path) -> None:
    content = bundle.read_bytes()
    (tmp_path / "x.whichcar").write_bytes(content.replace(b"MatMul", b"matMul"))
    with pytest.raises(CheckpointError, match=r"the bundle is damaged \(its network has another checksum\)"):
        read_bundle(tmp_path / "x.whichcar")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_bundle_that_was_zipped_again_is_the_same(bundle: Path, tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(tmp_path / "x.whichcar", "w") as new:
        for name in old.namelist():
            member = zipfile.ZipInfo(name)
            member.extra = struct.pack("<HH", 0x7777, 4) + b"date"  # such as `zip` writes
            new.writestr(member, old.read(name), method)
    assert read_bundle(tmp_path / "x.whichcar") == read_bundle(bundle)


def test_a_cut_or_changed_onnx_file_is_refused(tmp_path: Path) -> None:
    write_bundle(colour_bundle(), tmp_path / "a.onnx")
    content = (tmp_path / "a.onnx").read_bytes()
    for end in (0, 1, 50, len(content) // 2, len(content) - 1):
        (tmp_path / "b.onnx").write_bytes(content[:end])
        with pytest.raises(CheckpointError, match=r"b.onnx: (is damaged|holds no class names)"):
            read_bundle(tmp_path / "b.onnx")
    weight = np.float32(0.02).tobytes()
    (tmp_path / "b.onnx").write_bytes(content.replace(weight, np.float32(0.5).tobytes(), 1))
    with pytest.raises(CheckpointError, match=r"b.onnx: the bundle is damaged \(its network has another checksum\)"):
        read_bundle(tmp_path / "b.onnx")
    (tmp_path / "foreign.onnx").write_bytes(colour_network())
    with pytest.raises(CheckpointError, match="holds no class names"):
        read_bundle(tmp_path / "foreign.onnx")


def changed(bundle: Path, to: Path, **changes: object) -> Path:
    """Copy a bundle with other values in its bundle.json; None leaves a key out."""
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(to, "w") as new:
        content = json.loads(old.read("bundle.json")) | changes
        new.writestr("bundle.json", json.dumps({key: value for key, value in content.items() if value is not ...}))
        for name in old.namelist()[1:]:
            new.writestr(name, old.read(name))
    return to


def test_a_newer_format_says_which_version_wrote_it(bundle: Path, tmp_path: Path) -> None:
    path = changed(bundle, tmp_path / "new.whichcar", format=2, whichcar="9.1", class_names=...)
    with pytest.raises(CheckpointError, match=r"its format is 2, of whichcar 9.1, and this version reads 1; update"):
        read_bundle(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"class_names": ...}, {"class_names": []}, {"class_names": "ab"}, {"class_folders": ["one"]}, {"format": "1"},
        {"image_size": [0, 2]}, {"image_size": [224]}, {"temperature": "1"}, {"crop": []}, {"network_sha256": "00"},
        {"class_names": [1, 2, 3]}, {"class_folders": [None, "2", "3"]},
    ],
)  # fmt: skip
def test_a_damaged_description_is_refused(bundle: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match=r"x\.whichcar: (damaged, |the bundle is damaged)"):
        read_bundle(changed(bundle, tmp_path / "x.whichcar", **changes))


def test_a_key_of_a_later_version_is_passed_over(bundle: Path, tmp_path: Path) -> None:
    path = changed(bundle, tmp_path / "x.whichcar", colour="red")
    assert isinstance(read_bundle(path), Bundle)


def test_a_bundle_has_a_card_for_people_with_unzip(bundle: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(bundle, tmp_path, "zip")
    assert (tmp_path / "card.md").read_text(encoding="utf-8") == "# colours\n"
