"""Predicting in parts: the rows of the plain command, resumed, from folders, shards and buckets."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from whichcar.cli import main
from whichcar.detection import zoo
from whichcar.errors import ClusterError, DataError, WhichcarError
from whichcar.inference.bundle import write_bundle
from whichcar.inference.classifier import Classifier
from whichcar.scale import manifest as manifest_module
from whichcar.scale import parts as parts_module
from whichcar.scale import storage as storage_module
from whichcar.scale.manifest import NAME, Manifest
from whichcar.scale.parts import DamagedShardError, Part, items_of
from whichcar.scale.predict import predict_on_cluster
from whichcar.scale.storage import Storage, _system, storage_at
from whichcar.scale.work import TRIES, Counts, Job, Worker

from ..bundles import colour_bundle
from ..colours import COLOURS, draw
from .conftest import Here

parquet = pytest.importorskip("pyarrow.parquet", reason="whichcar[ray] is not installed")
pytest.importorskip("s3fs", reason="whichcar[fetch] is not installed")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images in two folders, and a file that is none; not to be written to."""
    folder = tmp_path_factory.mktemp("images")
    for number, colour in enumerate([*COLOURS.values(), *COLOURS.values()]):
        draw(folder / "ab"[number % 2] / f"{number}.jpg", colour, seed=number)
    (folder / "a" / "broken.jpg").write_bytes(b"no image")
    (folder / "a" / ".hidden.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "PART_IMAGES", 3)


def rows_in(target: Path) -> list[dict[str, Any]]:
    return sorted(
        (row for file in target.glob("*.parquet") for row in parquet.read_table(file).to_pylist()),
        key=lambda row: str(row["path"]),
    )


def plain_rows(bundle: Path, source: Path, **options: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    rows = [row.as_row() for row in Classifier(bundle, options.get("crop"), options.get("detector")).predict(source, 2)]
    return sorted(rows, key=lambda row: str(row["path"]))


def shard_of(images: Path, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for path in sorted(images.rglob("*.jpg")):
            tar.add(path, str(path.relative_to(images)))
        label = tarfile.TarInfo("a/0.cls")
        label.size = 1
        tar.addfile(label, io.BytesIO(b"7"))
    return file


def put_all(images: Path, prefix: str) -> None:
    for path in images.rglob("*.jpg"):
        storage_at(prefix).write(str(path.relative_to(images)), path.read_bytes())


def known(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


@pytest.mark.parametrize("crop", [False, True])
def test_the_rows_are_those_of_the_plain_command(
    bundle: Path, images: Path, tmp_path: Path, here: Here, red_car_file: Path, crop: bool
) -> None:
    options = {"crop": True, "detector": red_car_file} if crop else {}
    totals = predict_on_cluster("here", images, tmp_path / "out", bundle, top=2, runner=here, **options)
    assert (totals.parts, totals.images, totals.unusable) == (3, 7, 1)
    found, expected = rows_in(tmp_path / "out"), plain_rows(bundle, images, **options)
    assert list(map(known, found)) == list(map(known, expected))
    assert {len(row) for row in found} == {14 if crop else 6}


def test_the_target_is_read_as_one_table(bundle: Path, images: Path, tmp_path: Path, here: Here) -> None:
    predict_on_cluster("here", images, tmp_path, bundle, top=2, runner=here)
    rows = parquet.read_table(tmp_path).to_pylist()  # as pandas.read_parquet does
    assert sorted(rows, key=lambda row: str(row["path"])) == rows_in(tmp_path)


def test_a_second_run_does_the_rest(bundle: Path, images: Path, tmp_path: Path, here: Here) -> None:
    target = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict_on_cluster("here", images, target, bundle, top=2, runner=Here(stop=1))
    assert len(list(target.glob("*.parquet"))) == 1
    totals = predict_on_cluster("here", images, target, bundle, top=2, runner=here)
    assert (len(here.done), totals.parts, totals.earlier) == (2, 3, 1)
    assert list(map(known, rows_in(target))) == list(map(known, plain_rows(bundle, images)))
    nothing = Here()
    predict_on_cluster("here", images, target, bundle, top=2, runner=nothing)
    assert nothing.done == []


def test_what_left_the_source_leaves_the_target(bundle: Path, images: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number in range(7):
        draw(source / f"{number}.jpg", COLOURS["Red Sedan 2011"], seed=number)
    predict_on_cluster("here", source, tmp_path / "out", bundle, runner=Here())
    (source / "6.jpg").unlink()
    predict_on_cluster("here", source, tmp_path / "out", bundle, runner=Here())
    assert [Path(row["path"]).name for row in rows_in(tmp_path / "out")] == [f"{number}.jpg" for number in range(6)]


@pytest.mark.parametrize("place", ["shard", "bucket", "shard of a bucket"])
def test_what_was_replaced_under_its_name_is_done_again(
    bundle: Path, tmp_path: Path, request: pytest.FixtureRequest, place: str
) -> None:
    root = request.getfixturevalue("bucket") + "/in" if "bucket" in place else str(tmp_path / "in")
    name = "000.tar" if "shard" in place else "0.jpg"
    source, found = f"{root}/{name}" if place == "shard of a bucket" else root, []
    for number, colour in enumerate(("Red Sedan 2011", "Green Coupe 2010", "")):
        if colour:
            image = draw(tmp_path / str(number) / "0.jpg", COLOURS[colour])
            file = shard_of(image.parent, image.with_suffix(".tar")) if "shard" in place else image
            storage_at(root).write(name, file.read_bytes())
        here = Here()
        predict_on_cluster("here", source, tmp_path / "out", bundle, runner=here)
        found += [(len(here.done), row["prediction"]) for row in rows_in(tmp_path / "out")]
    assert found == [(1, "Red Sedan 2011"), (1, "Green Coupe 2010"), (0, "Green Coupe 2010")]


def test_a_shard_is_a_part_and_its_rows_name_its_members(
    bundle: Path, images: Path, tmp_path: Path, here: Here
) -> None:
    shard = shard_of(images, tmp_path / "shards" / "000.tar")
    predict_on_cluster("here", shard.parent, tmp_path / "out", bundle, top=2, runner=here)
    assert [part.files for part in here.done] == [("000.tar",)]
    expected = plain_rows(bundle, images)
    for row in expected:
        row["path"] = str(row["path"]).replace(str(images), str(shard))
    assert list(map(known, rows_in(tmp_path / "out"))) == list(map(known, expected))
    again = Here()
    predict_on_cluster("here", shard, tmp_path / "one", bundle, top=2, runner=again)
    assert rows_in(tmp_path / "one") == rows_in(tmp_path / "out")


def test_a_damaged_shard_keeps_its_rows_and_is_done_again(
    bundle: Path, images: Path, tmp_path: Path, here: Here
) -> None:
    whole = shard_of(images, tmp_path / "shards" / "000.tar").read_bytes()
    shard_of(images, tmp_path / "shards" / "001.tar")
    (tmp_path / "shards" / "000.tar").write_bytes(whole[:3000])
    with pytest.raises(DataError, match=r"000\.tar: the tar file is damaged .*; copy it again; all else is done"):
        predict_on_cluster("here", tmp_path / "shards", tmp_path / "out", bundle, top=2, runner=here)
    problems = [row["problem"] for row in rows_in(tmp_path / "out") if str(row["path"]).endswith("000.tar")]
    assert len(problems) == 1
    assert "the tar file is damaged" in problems[0]
    (tmp_path / "shards" / "000.tar").write_bytes(whole)
    rest = Here()
    predict_on_cluster("here", tmp_path / "shards", tmp_path / "out", bundle, top=2, runner=rest)
    assert [part.files for part in rest.done] == [("000.tar",)]
    assert len(rows_in(tmp_path / "out")) == 14


def test_the_rows_of_a_part_that_was_never_finished_go_with_its_images(
    bundle: Path, images: Path, tmp_path: Path
) -> None:
    for name in ("000.tar", "001.tar"):
        shard_of(images, tmp_path / "shards" / name)
    damaged = tmp_path / "shards" / "000.tar"
    damaged.write_bytes(damaged.read_bytes()[:3000])
    with pytest.raises(DataError, match="the tar file is damaged"):
        predict_on_cluster("here", tmp_path / "shards", tmp_path / "out", bundle, runner=Here())
    damaged.unlink()
    predict_on_cluster("here", tmp_path / "shards", tmp_path / "out", bundle, runner=Here())
    assert len(rows_in(tmp_path / "out")) == 7
    assert not any("000.tar" in str(row["path"]) for row in rows_in(tmp_path / "out"))


def test_a_link_to_a_shard_that_is_not_there_says_so_and_is_done_once_it_is(
    bundle: Path, images: Path, tmp_path: Path
) -> None:
    source, gone = tmp_path / "source", tmp_path / "gone.tar"
    shutil.copytree(images / "a", source)
    (source / "linked.tar").symlink_to(gone)
    with pytest.raises(DataError, match=rf"linked\.tar: a link to {gone}, which is not there; .*; all else is done"):
        predict_on_cluster("here", source, tmp_path / "out", bundle, runner=Here())
    problems = {Path(row["path"]).name: row["problem"] for row in rows_in(tmp_path / "out")}
    assert len(problems) == 5 and problems["linked.tar"].startswith(f"a link to {gone}")
    shard_of(images, gone)
    rest = Here()
    predict_on_cluster("here", source, tmp_path / "out", bundle, runner=rest)
    assert [part.files for part in rest.done] == [("linked.tar",)]


def test_a_bucket_is_read_and_written_as_a_folder_is(
    bundle: Path, images: Path, tmp_path: Path, bucket: str, here: Here
) -> None:
    put_all(images, f"{bucket}/deep/images")
    predict_on_cluster("here", f"{bucket}/deep/images/", f"{bucket}/answers", bundle, top=2, runner=here)
    answers = storage_at(f"{bucket}/answers")
    for name in answers.walk():
        (tmp_path / name).write_bytes(answers.read(name) or b"")
    expected = plain_rows(bundle, images)
    for row in expected:
        row["path"] = str(row["path"]).replace(str(images), f"{bucket}/deep/images")
    assert list(map(known, rows_in(tmp_path))) == list(map(known, expected))
    assert json.loads((tmp_path / NAME).read_text())["finished"]
    rest = Here()
    predict_on_cluster("here", f"{bucket}/deep/images", f"{bucket}/answers", bundle, top=2, runner=rest)
    assert rest.done == []


@pytest.fixture
def trained_on_crops(tmp_path: Path, red_car_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that crops its images with the detector of `red_car_file`."""
    monkeypatch.setenv(zoo.FILE_VARIABLE, str(red_car_file))
    model = tmp_path / "crops.whichcar"
    write_bundle(colour_bundle(crop={"settings": {}, "detector": {"name": "yolox-nano", "sha256": None}}), model)
    return model


def test_crops_in_a_bucket_are_not_cropped_again_as_in_a_folder(
    tmp_path: Path, bucket: str, red_car_file: Path, trained_on_crops: Path
) -> None:
    rows = []
    for place, options in (("whole", {}), ("crops", {"detector": red_car_file})):
        draw(tmp_path / place / "in" / "0.jpg", COLOURS["Red Sedan 2011"])
        put_all(tmp_path / place, f"{bucket}/{place}")
        if place == "crops":
            for root in (str(tmp_path), bucket):
                storage_at(f"{root}/crops").write("crop.json", b"{}")
        for source in (f"{bucket}/{place}/in", tmp_path / place / "in"):
            target = tmp_path / f"{place}{len(rows)}"
            predict_on_cluster("here", source, target, trained_on_crops, runner=Here(), **options)
            rows += [row | {"path": ""} for row in rows_in(target)]
    assert rows[0] == rows[1] and rows[2] == rows[3]
    assert [row["outcome"] for row in rows[1:3]] == ["cropped", None]


def test_objects_that_represent_folders_are_no_files(
    bundle: Path, images: Path, tmp_path: Path, bucket: str, here: Here
) -> None:
    for name in ("answers/", "answers/later/"):
        _system().pipe_file(f"{bucket}/{name}", b"")
    predict_on_cluster("here", images, f"{bucket}/answers", bundle, runner=here)
    assert len(here.done) == 3


def test_files_of_formats_that_are_not_opened_are_counted(
    bundle: Path, tmp_path: Path, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    image = draw(tmp_path / "in" / "a" / "0.jpg", COLOURS["Red Sedan 2011"])
    for number, root in enumerate((str(tmp_path / "in"), f"{bucket}/in")):
        for name in ("a/0.jpg", "a/phone.HEIC", "a/._phone.HEIC"):
            storage_at(root).write(name, image.read_bytes())
        predict_on_cluster("here", root, tmp_path / str(number), bundle, runner=Here())
        line = "1 file of a format that is not opened, such as HEIC, not used; convert to JPEG or PNG"
        assert caplog.messages.pop() == f"{root}: {line}"


def test_a_bucket_that_fails_within_a_shard_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError(None, "Please reduce your request rate.")

    monkeypatch.setattr(Storage, "open", lambda *_: Failing())
    with pytest.raises(DataError, match=r"s3://scale/000\.tar: .*request rate") as caught:
        list(items_of(storage_at("s3://scale"), Part("x", ("000.tar",))))
    assert not isinstance(caught.value, DamagedShardError)


def refused(*arguments: Any, **options: Any) -> str:  # noqa: ANN401
    with pytest.raises(WhichcarError) as caught:
        predict_on_cluster("here", *arguments, runner=Here(), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_is_no_source_or_no_target_is_one_line(bundle: Path, images: Path, tmp_path: Path, bucket: str) -> None:
    assert "no such folder" in refused(tmp_path / "nowhere", tmp_path / "out", bundle)
    assert "no images in it" in refused(f"{bucket}/nothing", tmp_path / "out", bundle)
    storage_at(bucket).write("car.jpg", b"")
    storage_at(f"{bucket}/folder.tar").write("0.jpg", b"")
    assert "no images in it" in refused(f"{bucket}/car.jpg", tmp_path / "out", bundle)
    for name in ("00.tar", "folder.tar"):  # one that is mistyped, and one that is a folder
        assert f"{name}: no such file; give a folder, a" in refused(f"{bucket}/{name}", tmp_path / "out", bundle)
    assert not (tmp_path / "out").exists()
    assert "there is no such file; check bucket" in refused("s3://no-such-bucket/x", tmp_path / "out", bundle)
    assert "must be a folder, a tar file or an s3:// address" in refused("https://example.org/x", tmp_path, bundle)
    assert "contains files of something else" in refused(images, images.parent, bundle)


def test_shards_without_an_image_are_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    shard = shard_of(tmp_path / "nothing", tmp_path / "000.tar")
    assert refused(shard, tmp_path / "out", bundle).startswith(f"{shard}: no images in it")


def test_other_settings_are_refused(bundle: Path, images: Path, tmp_path: Path) -> None:
    predict_on_cluster("here", images, tmp_path / "out", bundle, runner=Here())
    message = refused(images, tmp_path / "out", bundle, top=2)
    assert "was written with another columns (8 values, now 6 values); give the same, or another" in message


def test_another_shard_of_the_same_folder_is_refused(bundle: Path, images: Path, tmp_path: Path) -> None:
    one, other = (shard_of(images, tmp_path / "shards" / name) for name in ("000.tar", "001.tar"))
    predict_on_cluster("here", one, tmp_path / "out", bundle, runner=Here())
    for source in (other, one.parent):
        message = refused(source, tmp_path / "out", bundle)
        assert f"was written with another source ({one}, now {source}); give the same, or another folder" in message
    assert len(rows_in(tmp_path / "out")) == 7


def test_cropping_what_is_cropped_already_is_another_setting(
    images: Path, tmp_path: Path, trained_on_crops: Path
) -> None:
    predict_on_cluster("here", images, tmp_path / "out", trained_on_crops, runner=Here())
    assert "was written with another crop" in refused(images, tmp_path / "out", trained_on_crops, crop=True)


def test_missing_credentials_are_one_line(
    bundle: Path, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _system.cache_clear()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no credentials were found; set AWS_ACCESS_KEY_ID" in refused(f"{bucket}/x", tmp_path / "out", bundle)
    _system.cache_clear()


def test_a_name_that_no_bucket_can_have_is_one_line_at_once(bundle: Path, tmp_path: Path, s3: str) -> None:
    message = "s3://A B!/x: no bucket can have this name; check the address"
    assert refused("s3://A B!/x", tmp_path / "out", bundle) == message


def test_wrong_credentials_are_one_line_wherever_the_bucket_is(
    bundle: Path, images: Path, tmp_path: Path, bucket: str, s3: str
) -> None:
    count_of_free_calls(s3, 0)
    try:
        message = "access is refused"
        assert message in refused(f"{bucket}/x", tmp_path / "out", bundle)
        assert message in refused(images, f"{bucket}/out", bundle)
    finally:
        count_of_free_calls(s3, 1_000_000)


def count_of_free_calls(server: str, count: int) -> None:
    """Say after how many further calls the server checks keys."""
    plain = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{server}/moto-api/reset-auth", str(count).encode(), plain, method="POST")
    with urllib.request.urlopen(request, timeout=10):
        pass


def test_two_runs_do_not_write_to_one_target(bundle: Path, images: Path, tmp_path: Path) -> None:
    target = storage_at(tmp_path / "out")
    with Manifest(target, {}).opened():
        with pytest.raises(
            DataError, match=r"out: another run writes there \(process \d+ on .*\); wait for it$"
        ) as caught:
            Manifest(target, {}).opened().__enter__()
        assert "\n" not in str(caught.value)
    with Manifest(target, {}).opened():  # it was given back
        pass


def test_a_run_that_was_taken_over_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "HEARTBEAT_SECONDS", 0)
    target = storage_at(tmp_path / "out")
    with Manifest(target, {}).opened() as first:
        first.beat()
        Manifest(target, {})._write(finished=False)  # as a machine does whose clock is far ahead
        with pytest.raises(DataError, match=r"another run writes there now .*; this one stops"):
            first.beat()


def test_a_busy_bucket_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "PAUSE", 0.001)

    class Busy:
        answers = 3

        def pipe_file(self, *_: object) -> None:
            self.answers -= 1
            if self.answers:
                raise OSError("Please reduce your request rate.")

    busy = Busy()
    monkeypatch.setattr(storage_module, "_system", lambda: busy)
    storage_at("s3://scale").write("a", b"")
    assert busy.answers == 0
    busy.answers = 100
    with pytest.raises(DataError, match=r"s3://scale/a: Please reduce your request rate\."):
        storage_at("s3://scale").write("a", b"")


def errors_of_workers(jobs: Callable[[Job], list[Job]], begun: int, *arguments: Any) -> list[str]:  # noqa: ANN401
    """Let a worker do the first part of each job, and return the errors."""
    found: list[str] = []

    def runner(_: str, job: Job, parts: Sequence[Part]) -> Iterator[Counts | None]:
        row = {"part": json.dumps(asdict(parts[0]))}
        found.extend(json.loads(Worker(changed, lambda _: begun)(row)["counts"])["error"] for changed in jobs(job))
        yield from ()

    with pytest.raises(ClusterError, match="3 parts did not come back"):
        predict_on_cluster("here", *arguments, runner=runner)
    return found


def test_a_node_without_the_model_or_with_another_version_says_so(
    bundle: Path, images: Path, tmp_path: Path, unbound: None
) -> None:
    messages = errors_of_workers(
        lambda job: [
            replace(job, version="0.0"),
            replace(job, settings={**job.settings, "model": str(tmp_path / "gone.whichcar")}),
            replace(job, settings={**job.settings, "blake2b": "0" * 32}),
            replace(job, target=storage_at(tmp_path / "another disk")),
            replace(job, source=storage_at(tmp_path / "another disk")),
        ],
        1, images, tmp_path / "out", bundle,
    )  # fmt: skip
    assert all(message.startswith("node ") and "\n" not in message for message in messages)
    assert "has whichcar" in messages[0]
    assert "gone.whichcar: no such experiment, checkpoint or bundle" in messages[1]
    assert "is another file than on the machine that began the run" in messages[2]
    assert all("another disk; all nodes need the same disk for it, or a bucket" in text for text in messages[3:])


def test_a_part_on_which_several_workers_died_is_named(
    bundle: Path, images: Path, tmp_path: Path, unbound: None
) -> None:
    assert errors_of_workers(lambda job: [job], TRIES, images, tmp_path / "out", bundle) == [""]
    assert errors_of_workers(lambda job: [job], TRIES + 1, images, tmp_path / "other", bundle) == [
        f"{images}/a/0.jpg or one of the 2 images after it: 4 workers died on it, as when memory is used up; leave it "
        "out or repair it"
    ]


def test_an_error_of_a_worker_ends_the_run_and_keeps_what_is_done(bundle: Path, images: Path, tmp_path: Path) -> None:
    def failing(address: str, job: Any, parts: Any) -> Any:  # noqa: ANN401
        for counts in Here()(address, job, parts):
            yield counts if counts is None or counts.part != parts[-1].name else replace(counts, error="node x: full")

    with pytest.raises(ClusterError, match="node x: full; what is finished is kept"):
        predict_on_cluster("here", images, tmp_path / "out", bundle, runner=failing)
    rest = Here()
    predict_on_cluster("here", images, tmp_path / "out", bundle, runner=rest)
    assert len(rest.done) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--annotate", "x", "--vehicles", "all"], "--ray: writes Parquet files only; leave --annotate out"),
        ([], "--ray: takes one folder, tar file or s3:// address, and --output"),
    ],
)
def test_the_command_says_what_it_needs(
    options: list[str], message: str, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["predict", str(images), "--ray", "auto", *options]) == 2
    assert message in capsys.readouterr().err


def test_no_cluster_is_one_line_and_leaves_the_target_usable(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="whichcar[ray] is not installed")
    command = ["predict", "--model", str(bundle), str(images), "--ray", "127.0.0.1:9"]
    assert main.run([*command, "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("error: --ray 127.0.0.1:9: no Ray cluster there (Connection refused)")
    predict_on_cluster("here", images, tmp_path / "out", bundle, runner=Here())


def test_the_command_counts_images_and_files(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict_on_cluster("here", images, tmp_path / "out", bundle, runner=Here())
    command = ["predict", "--model", str(bundle), str(images), "--ray", "127.0.0.1:9"]
    assert main.run([*command, "--output", str(tmp_path / "out")]) == 0  # all is done, and no cluster is needed
    counted = "7 images, 1 of them not usable, in 3 files, 3 of them from an earlier run"
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: {counted}\n"
