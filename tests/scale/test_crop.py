"""Cropping in parts: the files of the plain command, byte for byte, from folders, shards and buckets."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from whichcar.cli import main
from whichcar.data.boxes import read_boxes
from whichcar.data.split.split import split
from whichcar.detection.crop import crop, read_record
from whichcar.errors import ClusterError, DataError
from whichcar.records import Label
from whichcar.scale import parts as parts_module
from whichcar.scale.crop import crop_on_cluster
from whichcar.scale.manifest import NAME
from whichcar.scale.storage import storage_at

from ..colours import COLOURS, draw
from .conftest import Here
from .test_predict import shard_of

pytest.importorskip("s3fs", reason="whichcar[fetch] is not installed")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split tree of red and blue images, and one that is none since; not to be written to."""
    folder = tmp_path_factory.mktemp("tree")
    rows = []
    for number, (name, colour) in enumerate(COLOURS.items()):
        for copy in range(3):
            draw(folder / "raw" / f"{number}{copy}.jpg", colour, seed=10 * number + copy)
            rows.append(Label(f"{number}{copy}.jpg", name, "train" if copy else "test"))
    split(folder / "raw", rows, folder / "v1")
    broken = next((folder / "v1").rglob("01.jpg"))
    broken.unlink()
    broken.write_bytes(b"no image")
    return folder / "v1"


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "PART_IMAGES", 4)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that both commands write."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != NAME and not path.relative_to(folder).parts[0].startswith(".")
    }


def test_the_files_are_those_of_the_plain_command(tree: Path, tmp_path: Path, red_car_file: Path, here: Here) -> None:
    rows = list(crop(tree, tmp_path / "plain", detector=red_car_file))
    totals = crop_on_cluster("here", tree, tmp_path / "out", here, detector=red_car_file)
    assert (totals.parts, totals.images, totals.unusable) == (3, 9, 1)
    assert {row.kind for row in rows} == {"cropped", "whole", "skipped"}
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")
    assert read_record(tmp_path / "out") == read_record(tmp_path / "plain")
    assert list(crop(tree, tmp_path / "out", detector=red_car_file)) == rows  # the plain command finds its own


def test_a_stopped_run_is_unfinished_and_a_second_one_does_the_rest(
    tree: Path, tmp_path: Path, red_car_file: Path, here: Here
) -> None:
    with pytest.raises(KeyboardInterrupt):
        crop_on_cluster("here", tree, tmp_path / "out", Here(stop=1), detector=red_car_file)
    with pytest.raises(DataError, match="its crop was interrupted"):
        read_record(tmp_path / "out")
    crop_on_cluster("here", tree, tmp_path / "out", here, detector=red_car_file)
    assert len(here.done) == 2
    list(crop(tree, tmp_path / "plain", detector=red_car_file))
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")


def test_the_crop_of_an_image_that_is_gone_goes_too(tmp_path: Path, red_car_file: Path) -> None:
    for number in range(5):
        draw(tmp_path / "source" / f"{number}.jpg", COLOURS["Red Sedan 2011"], seed=number)
    crop_on_cluster("here", tmp_path / "source", tmp_path / "out", Here(), detector=red_car_file)
    (tmp_path / "source" / "1.jpg").unlink()
    crop_on_cluster("here", tmp_path / "source", tmp_path / "out", Here(), detector=red_car_file)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jpg")) == ["0.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert [row.path for row in read_boxes(tmp_path / "out" / "boxes.csv")] == ["0.jpg", "2.jpg", "3.jpg", "4.jpg"]


def test_the_shard_of_a_shard_that_is_gone_goes_too(tmp_path: Path, red_car_file: Path, bucket: str) -> None:
    image = draw(tmp_path / "images" / "0.jpg", COLOURS["Red Sedan 2011"])
    shard = shard_of(image.parent, tmp_path / "000.tar")
    for root in (str(tmp_path), bucket):
        source, target = storage_at(f"{root}/in"), storage_at(f"{root}/out")
        for name in ("a.tar", "b.tar", "c.tar/0.jpg", "c.tar/1.jpg"):  # the last two in a folder of such a name
            source.write(name, shard if name.endswith(".tar") else image)
        crop_on_cluster("here", source.root, target.root, Here(), detector=red_car_file)
        for name in ("a.tar", "c.tar/1.jpg"):
            source.remove(name)
        crop_on_cluster("here", source.root, target.root, Here(), detector=red_car_file)
        assert [name for name in target.walk() if name.endswith((".tar", ".jpg"))] == ["b.tar", "c.tar/0.jpg"]


def test_the_folder_of_a_class_that_is_gone_goes_too(tmp_path: Path, red_car_file: Path) -> None:
    for name in ("a/0.jpg", "b/0.jpg"):
        draw(tmp_path / "source" / name, COLOURS["Red Sedan 2011"])
    crop_on_cluster("here", tmp_path / "source", tmp_path / "out", Here(), detector=red_car_file)
    (tmp_path / "source" / "b").rename(tmp_path / "source" / "c")
    crop_on_cluster("here", tmp_path / "source", tmp_path / "out", Here(), detector=red_car_file)
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*/")) == ["a", "c"]


def test_what_a_part_left_that_was_never_finished_goes_with_its_images(tmp_path: Path, red_car_file: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    shard = shard_of(draw(tmp_path / "images" / "0.jpg", COLOURS["Red Sedan 2011"]).parent, source / "000.tar")
    shard.write_bytes(shard.read_bytes()[:3000])
    odd = "1\u2028.jpg"  # what Python, but no table, takes for a line break
    for name in ("0.jpg", odd):
        draw(source / name, COLOURS["Red Sedan 2011"])

    def killed(*job: Any) -> Iterator[None]:  # noqa: ANN401
        list(Here()(*job))  # no part is noted as finished
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crop_on_cluster("here", source, out, killed, detector=red_car_file)
    assert (out / "000.tar").exists() and (out / odd).exists()
    shard.unlink()
    (source / odd).unlink()
    draw(out / "own.jpg", COLOURS["Red Sedan 2011"])  # no run wrote it
    crop_on_cluster("here", source, out, Here(), detector=red_car_file)
    images = sorted(path.name for path in out.iterdir() if path.suffix in (".jpg", ".tar"))
    assert images == ["0.jpg", "own.jpg"]
    assert len(list((out / ".boxes").iterdir())) == 2  # of the one part


def test_a_shard_becomes_a_shard_with_its_labels(tree: Path, tmp_path: Path, red_car_file: Path, here: Here) -> None:
    shard_of(tree, tmp_path / "shards" / "000.tar")
    crop_on_cluster("here", tmp_path / "shards", tmp_path / "out", here, detector=red_car_file)
    list(crop(tree, tmp_path / "plain", detector=red_car_file))
    with tarfile.open(tmp_path / "out" / "000.tar") as tar:
        members = {member.name: (tar.extractfile(member) or tar).read() for member in tar}  # type: ignore[union-attr]
    assert members.pop("a/0.cls") == b"7"
    assert members == {name: content for name, content in contents(tmp_path / "plain").items() if name.endswith("jpg")}
    rows = [row.path for row in read_boxes(tmp_path / "out" / "boxes.csv")]
    assert rows == [f"000.tar/{row.path}" for row in read_boxes(tmp_path / "plain" / "boxes.csv")]


def test_a_bucket_gets_what_a_folder_gets(
    tree: Path, tmp_path: Path, red_car_file: Path, bucket: str, here: Here
) -> None:
    source = storage_at(f"{bucket}/v1")
    for path in (path for path in tree.rglob("*") if path.is_file()):
        source.write(str(path.relative_to(tree)), path.read_bytes())
    crop_on_cluster("here", f"{bucket}/v1", f"{bucket}/v2", here, detector=red_car_file)
    list(crop(tree, tmp_path / "plain", detector=red_car_file))
    target = storage_at(f"{bucket}/v2")
    found = {name: target.read(name) or b"" for name in target.walk() if name != NAME}
    found["crop.json"] = found["crop.json"].replace(f"{bucket}/v1".encode(), str(tree).encode())  # the source
    assert found == contents(tmp_path / "plain")


@pytest.mark.parametrize("inside", ["", "v1/"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{damaged", "split.json: damaged, not readable as JSON"),
        (b'{"finished": true}', "split.json: damaged, `classes` is missing"),
        (b'{"finished": true, "classes": {}, "validation": [3]}', "split.json: damaged, names of classes or of"),
        (b'{"finished": false, "classes": {}, "validation": []}', ": its split was interrupted; run `whichcar split`"),
    ],
)
def test_a_split_record_that_training_would_refuse_is_refused_before_anything_is_written(
    tmp_path: Path, bucket: str, content: bytes, message: str, inside: str
) -> None:
    for root in (str(tmp_path / "in"), f"{bucket}/in"):
        source = storage_at(root)
        source.write("v1/train/Red/0.jpg", b"not read")
        source.write(f"{inside}split.json", content)
        with pytest.raises(DataError) as caught:
            crop_on_cluster("here", root, tmp_path / "out", Here(), detector=tmp_path / "not_asked_for.onnx")
        text = str(caught.value)
        assert text.startswith(f"{root}/{inside}".rstrip("/")) and message in text
    assert not (tmp_path / "out").exists()


def test_the_split_records_of_folders_in_a_bucket_are_copied_too(
    tree: Path, tmp_path: Path, red_car_file: Path, bucket: str, here: Here
) -> None:
    source = storage_at(f"{bucket}/several")
    image = next(path for path in tree.rglob("02.jpg"))
    for name in ("split.json", str(image.relative_to(tree))):
        source.write(f"v1/{name}", (tree / name).read_bytes())
    crop_on_cluster("here", source.root, tmp_path / "out", here, detector=red_car_file)
    assert (tmp_path / "out" / "v1" / "split.json").read_bytes() == (tree / "split.json").read_bytes()


def test_a_target_inside_the_source_and_a_missing_vehicle_are_refused(
    tree: Path, tmp_path: Path, red_car_file: Path
) -> None:
    with pytest.raises(DataError, match=r"is inside .*; give a folder next to it"):
        crop_on_cluster("here", tree, tree / "out", Here(), detector=red_car_file)
    with pytest.raises(ClusterError, match=r"no car or truck above score .*; what is finished is kept"):
        crop_on_cluster("here", tree, tmp_path / "out", Here(), detector=red_car_file, missing="fail")


def test_another_shard_of_the_same_folder_is_refused(tmp_path: Path, red_car_file: Path) -> None:
    image = draw(tmp_path / "images" / "0.jpg", COLOURS["Red Sedan 2011"])
    one, other = (shard_of(image.parent, tmp_path / "shards" / name) for name in ("000.tar", "001.tar"))
    crop_on_cluster("here", one, tmp_path / "out", Here(), detector=red_car_file)
    with pytest.raises(DataError, match=rf"was written with another source \({one}, now {other}\)"):
        crop_on_cluster("here", other, tmp_path / "out", Here(), detector=red_car_file)
    assert (tmp_path / "out" / "000.tar").exists()


def test_the_crops_of_a_shard_may_lie_next_to_it_but_not_replace_it(
    tmp_path: Path, red_car_file: Path, bucket: str
) -> None:
    image = draw(tmp_path / "images" / "0.jpg", COLOURS["Red Sedan 2011"])
    shard = shard_of(image.parent, tmp_path / "elsewhere.tar")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "000.tar").symlink_to(shard)
    storage_at(f"{bucket}/data").write("000.tar", shard)
    for data in (str(tmp_path / "data"), f"{bucket}/data"):
        crop_on_cluster("here", f"{data}/000.tar", f"{data}/cropped", Here(), detector=red_car_file)
        assert "000.tar" in list(storage_at(f"{data}/cropped").walk())
        with pytest.raises(DataError, match=r"is inside .*000\.tar, or contains it; give a folder next to it"):
            crop_on_cluster("here", f"{data}/000.tar", data, Here(), detector=red_car_file)


def test_another_setting_is_named_and_a_detector_may_move(tmp_path: Path, red_car_file: Path) -> None:
    draw(tmp_path / "source" / "0.jpg", COLOURS["Red Sedan 2011"])
    moved = tmp_path / red_car_file.name
    moved.write_bytes(red_car_file.read_bytes())
    crop_on_cluster("here", tmp_path / "source", tmp_path / "out", Here(), detector=red_car_file)
    assert crop_on_cluster("here", tmp_path / "source", tmp_path / "out", Here(), detector=moved).earlier == 1
    with pytest.raises(DataError, match=r"was written with another settings\.margin \(0\.0, now 0\.05\); give the"):
        crop_on_cluster("here", tmp_path / "source", tmp_path / "out", Here(), detector=red_car_file, margin=0.05)


def test_a_changed_detector_of_the_same_name_is_told_by_its_checksum(tmp_path: Path, red_car_file: Path) -> None:
    draw(tmp_path / "source" / "0.jpg", COLOURS["Red Sedan 2011"])
    crop_on_cluster("here", tmp_path / "source", tmp_path / "out", Here(), detector=red_car_file)
    model = onnx.load(red_car_file)
    model.doc_string = "exported again"
    onnx.save(model, tmp_path / red_car_file.name)
    with pytest.raises(DataError, match=r"was written with another detector\.sha256 \(\w{64}, now \w{64}\); give the"):
        crop_on_cluster("here", tmp_path / "source", tmp_path / "out", Here(), detector=tmp_path / red_car_file.name)


def test_an_image_that_is_a_link_in_a_shard_is_a_row(tmp_path: Path, red_car_file: Path) -> None:
    image = draw(tmp_path / "images" / "0.jpg", COLOURS["Red Sedan 2011"])
    image.with_name("1.jpg").hardlink_to(image)
    shard = shard_of(image.parent, tmp_path / "shards" / "000.tar")
    assert crop_on_cluster("here", shard, tmp_path / "out", Here(), detector=red_car_file).images == 2
    first, second = read_boxes(tmp_path / "out" / "boxes.csv")
    assert first.kind == "cropped" and second.path == "000.tar/1.jpg"
    assert second.outcome.startswith("skipped: is a link in the tar file; pack the image itself")


def test_shards_without_an_image_are_refused(tmp_path: Path, red_car_file: Path) -> None:
    (tmp_path / "nothing").mkdir()
    shard = shard_of(tmp_path / "nothing", tmp_path / "shards" / "000.tar")
    with pytest.raises(DataError, match=r"000\.tar: no images in it"):
        crop_on_cluster("here", shard, tmp_path / "out", Here(), detector=red_car_file)


def test_options_of_one_machine_are_refused(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["crop", str(tree), str(tmp_path / "out"), "--ray", "auto", "--redo", "--workers", "2"]) == 2
    assert "leave --workers and --redo out" in capsys.readouterr().err


def test_the_command_says_what_became_of_the_images(
    tree: Path, tmp_path: Path, red_car_file: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for target in (str(tmp_path / "out"), f"{bucket}/v2"):
        crop_on_cluster("here", tree, target, Here(), detector=red_car_file)
        command = ["crop", str(tree), target, "--ray", "127.0.0.1:9", "--detector", str(red_car_file)]
        assert main.run(command) == 0  # all is done, and no cluster is needed
    there, in_bucket = capsys.readouterr().out.split(f"{bucket}/v2: ")
    assert there.startswith(f"{tmp_path / 'out'}: 9 images\n       3   33.3%  cropped (car 3; median score 0.90)\n")
    assert in_bucket == "9 images, 1 of them left out, in 3 parts, 3 of them from an earlier run\n"


def test_the_command_takes_the_address_of_a_folder(
    tree: Path, tmp_path: Path, red_car_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = f"file://{tmp_path / 'out'}"
    crop_on_cluster("here", tree, target, Here(), detector=red_car_file)
    assert main.run(["crop", str(tree), target, "--ray", "127.0.0.1:9", "--detector", str(red_car_file)]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'out'}: 9 images\n")
