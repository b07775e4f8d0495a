import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from whichcar.cli import demo, main
from whichcar.errors import DataError


@pytest.fixture(scope="module")
def whole_way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """The demo, quick, with what it said."""
    said: list[str] = []
    into = tmp_path_factory.mktemp("it's: a demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHICHCAR_QUIET", "1")
        patch.setenv("WHICHCAR_CACHE", str(into / "cache"))
        demo.run(into, quick=True, say=said.append)
    yield into, said


def test_the_whole_way_leaves_checkpoint_report_and_numbers(whole_way: tuple[Path, list[str]]) -> None:
    into, _ = whole_way
    experiment = into / "experiments" / "demo"
    result = json.loads((experiment / "result.json").read_text())
    assert result["top_1"]["of"] == 6
    assert (experiment / result["checkpoint"]["file"]).is_file()
    assert (experiment / "report.html").is_file()
    assert list((experiment / "plots").glob("*.png"))
    with (experiment / "predictions.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 6


def test_the_story_names_chance_and_the_files_and_what_comes_next(whole_way: tuple[Path, list[str]]) -> None:
    into, said = whole_way
    text = "\n".join(said)
    assert "95 % interval" in text
    assert "by chance   33.3%" in text
    assert f"report   {into / 'experiments' / 'demo' / 'report.html'}" in text
    assert "Alder Meridian Sedan 2012" in text
    assert "what to type next" in text
    assert "config.yml" in text


def test_the_settings_are_to_be_seen_and_read_back(whole_way: tuple[Path, list[str]]) -> None:
    into, _ = whole_way
    settings = yaml.safe_load((into / "experiments" / "demo" / "config.yml").read_text())
    assert settings["model"]["weights"] is None
    assert settings["data"]["directory"] == str(into / "data")


def test_a_second_run_trains_and_measures_nothing_again(
    whole_way: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into, _ = whole_way
    monkeypatch.setenv("WHICHCAR_CACHE", str(into / "cache"))
    before = {path: path.stat().st_mtime_ns for path in into.rglob("*.keras")}
    said: list[str] = []
    result = demo.run(into, quick=True, say=said.append)
    assert {path: path.stat().st_mtime_ns for path in into.rglob("*.keras")} == before
    assert result["data"]["evaluations"] == 1
    assert "     measured before" in said


def test_predictions_of_the_demo_come_as_json_from_folder_list_and_file(
    whole_way: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    into, _ = whole_way
    pictures = sorted((into / "data" / "test").rglob("*.jpg"))
    names = f"{pictures[0]}\n{into}/no.jpg\n".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(names)))
    arguments = [str(into / "experiments" / "demo"), str(pictures[1]), str(into / "data" / "test"), "-"]
    assert main.run(["predict", *arguments, "--json", "--top", "2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["path"] for row in rows] == [
        str(pictures[1]), *map(str, pictures), str(pictures[0]), str(into / "no.jpg"),
    ]  # fmt: skip
    assert all(row["probability"] >= row["probability_2"] for row in rows[:-1])
    assert [row["problem"] is None for row in rows] == [True] * (len(rows) - 1) + [False]


def test_images_in_class_folders_are_divided_and_used(tmp_path: Path, drawn: Path) -> None:
    with (drawn / "car_dataset_labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            folder = tmp_path / "mine" / row["class"].replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(drawn / "car_ims" / row["img_name"], folder)
    said: list[str] = []
    to_learn = demo._images(tmp_path / "into", tmp_path / "mine", demo.FULL, said.append)
    assert to_learn == 20
    assert len(list((tmp_path / "into" / "data" / "test").rglob("*.jpg"))) == 8
    assert not (tmp_path / "into" / "raw").exists()


def test_images_with_a_label_file_keep_its_subsets(tmp_path: Path, drawn: Path) -> None:
    demo._images(tmp_path, drawn, demo.FULL, lambda line: None)
    with (drawn / "car_dataset_labels.csv").open(newline="") as file:
        test = {row["img_name"] for row in csv.DictReader(file) if row["subset"] == "test"}
    assert {path.name for path in (tmp_path / "data" / "test").rglob("*.jpg")} == test


def test_a_folder_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        demo.run(tmp_path, real=tmp_path / "nowhere", say=lambda line: None)


@pytest.mark.parametrize(("pictures", "epochs"), [(20, demo.FULL.epochs), (1_000_000, 2)])
def test_many_images_get_fewer_epochs(tmp_path: Path, pictures: int, epochs: int) -> None:
    demo._write_config(tmp_path / "config.yml", tmp_path, demo.FULL, pictures)
    assert yaml.safe_load((tmp_path / "config.yml").read_text())["fit"]["epochs"] == epochs


def test_settings_changed_by_hand_are_kept(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("mine\n")
    demo._write_config(tmp_path / "config.yml", tmp_path, demo.FULL, 100)
    assert (tmp_path / "config.yml").read_text() == "mine\n"
