import json
import random
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from whichcar.cli import main
from whichcar.data.check.check import check
from whichcar.data.labels import draw_share, read_labels, write_labels
from whichcar.data.split.groups import SUGGESTED, likely_groups
from whichcar.data.split.split import Split, split
from whichcar.data.split.tree import read_tree
from whichcar.errors import DataError
from whichcar.records import Label

CARS = {"Audi A4 2012": 8, "BMW X3 2012": 7, "Kia Rio 2011": 6}  # cars of each class, three images of each


def cars(root: Path) -> Path:
    """Draw `CLASS/carN_a.png` ... `_c.png`, images of nothing, and some images that are of no group."""
    shade = 0
    for class_name, count in CARS.items():
        (root / class_name).mkdir(parents=True)
        names = [f"car{number}_{letter}.png" for number in range(count) for letter in "abc"]
        for name in [*names, "one.png", "another.png"]:
            shade += 1
            Image.new("RGB", (8, 6), (shade, 40, 90)).save(root / class_name / name)
    return root


def sides(output: Path) -> dict[str, set[str]]:
    """Return the splits that each car's images are in, by class and car."""
    tree = read_tree(output, 0.2, 123)
    found: dict[str, set[str]] = defaultdict(set)
    for name, samples in (("train", tree.train), ("validation", tree.validation), ("test", tree.test)):
        for sample in samples:
            if "_" in sample.path.name:
                found[f"{sample.path.parent.name}/{sample.path.name.partition('_')[0]}"].add(name)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_images_of_a_group_end_on_one_side_and_every_class_on_each(tmp_path: Path, seed: int) -> None:
    result = split(cars(tmp_path / "cars"), tmp_path / "v1", seed=seed, group_by=r"^(.+)_[a-z]\.png$")
    assert result.groups == 21
    found = sides(tmp_path / "v1")
    assert len(found) == 21
    assert all(len(splits) == 1 for splits in found.values())
    for class_name, count in CARS.items():
        of = [next(iter(splits)) for car, splits in found.items() if car.startswith(class_name)]
        assert set(of) == {"train", "validation", "test"}
        assert of.count("test") <= round(count / 3)
    assert 14 <= result.counts["test"] <= 20  # a quarter of 69 images is 17
    assert not [one for one in check(tmp_path / "v1").findings if one.issue == "likely_group"]
    record = json.loads((tmp_path / "v1" / "split.json").read_text())
    assert sorted(map(len, record["groups"].values())) == [3] * 21


def test_the_suggested_pattern_names_the_groups_and_leaves_other_names_alone(tmp_path: Path) -> None:
    assert split(cars(tmp_path / "cars"), tmp_path / "v1", group_by=SUGGESTED).groups == 21
    assert all(len(splits) == 1 for splits in sides(tmp_path / "v1").values())


def test_a_whole_match_names_a_group_over_classes(tmp_path: Path) -> None:
    result = split(cars(tmp_path / "cars"), tmp_path / "v1", group_by=r"car\d")
    assert result.groups == 8
    cars_ = {car.rpartition("/")[2]: splits for car, splits in sides(tmp_path / "v1").items()}
    assert all(len(splits) == 1 for splits in cars_.values())


def test_the_column_group_keeps_images_together_and_comes_back(tmp_path: Path) -> None:
    data = cars(tmp_path / "cars")
    rows = [
        Label(f"{folder.name}/{path.name}", folder.name, "", path.name[:4] + folder.name if "_" in path.name else "")
        for folder in sorted(data.iterdir())
        for path in sorted(folder.iterdir())
    ]
    write_labels(tmp_path / "labels.csv", rows)
    assert (tmp_path / "labels.csv").read_text().startswith("img_name,class,subset,group\n")
    assert read_labels(str(tmp_path / "labels.csv")) == rows
    assert split(data, tmp_path / "labels.csv", tmp_path / "v1").groups == 21
    assert all(len(splits) == 1 for splits in sides(tmp_path / "v1").values())
    with pytest.raises(DataError, match="has a column group already"):
        split(data, tmp_path / "labels.csv", tmp_path / "v2", group_by="car")


def given(data: Path) -> tuple[list[Label], Split, Path]:
    rows = []
    for folder in sorted(data.iterdir()):
        for number, path in enumerate(sorted(folder.iterdir())):
            subset = "test" if number % 5 == 0 else "train"
            rows.append(Label(f"{folder.name}/{path.name}", folder.name, subset))
    output = data.parent / "given"
    return rows, split(data, rows, output, group_by=r"^(.+)_[a-z]\.png$"), output


def test_subsets_that_contradict_a_group_are_reported_and_what_is_in_test_stays(tmp_path: Path) -> None:
    rows, result, output = given(cars(tmp_path / "cars"))
    assert all(len(splits) == 1 for splits in sides(output).values())
    assert result.counts["test"] == sum(row.subset == "test" for row in rows)
    assert result.counts["train"] + result.counts["test"] + len(result.problems) == len(rows)
    reported = {problem.path.as_posix(): problem.reason for problem in result.problems}
    assert "Audi A4 2012/car0_a.png" not in reported
    assert reported["Audi A4 2012/car1_a.png"] == "group 'Audi A4 2012/car1' has Audi A4 2012/car1_b.png in test"
    kept = split(tmp_path / "cars", rows, tmp_path / "kept", keep_copies=True, group_by=r"^(.+)_[a-z]\.png$")
    assert kept.problems == []


def test_a_group_and_its_copies_are_one_over_a_chain(tmp_path: Path, drawn_large: Path) -> None:
    """X and y are copies; y and z are of one group; z is in test: neither x nor y stays in train."""
    names = sorted(path.name for path in (drawn_large / "car_ims").iterdir())[:6]
    for name in names:
        (tmp_path / name).write_bytes((drawn_large / "car_ims" / name).read_bytes())
    (tmp_path / "x.jpg").write_bytes((drawn_large / "car_ims" / names[0]).read_bytes())
    rows = [Label(name, "A", "train") for name in names[:4]] + [Label(name, "B", "train") for name in names[4:]]
    rows[0] = Label(names[0], "A", "train", "g")
    rows[1] = Label(names[1], "A", "test", "g")
    result = split(tmp_path, [*rows, Label("x.jpg", "B", "train")], tmp_path / "v1")
    reported = {str(problem.path): problem.reason for problem in result.problems}
    assert reported == {
        names[0]: f"group 'g' has {names[1]} in test",
        "x.jpg": f"linked, over copies and groups, to {names[1]} in test",
    }


def test_rows_of_one_image_with_different_groups_disagree(tmp_path: Path) -> None:
    data = cars(tmp_path / "cars")
    rows = [Label(f"Kia Rio 2011/{name}.png", "Kia Rio 2011", "train", "g") for name in ("one", "another")]
    (problem, _) = split(data, [*rows, Label(rows[0].img_name, "Kia Rio 2011", "train", "h")], tmp_path / "v1").problems
    assert "its rows disagree: train 'Kia Rio 2011' of group 'g' against train" in problem.reason


@pytest.mark.parametrize(
    ("pattern", "reported"),
    [
        ("(", "'(': is not a valid regular expression"),
        ("lorry", "--group-by lorry: matches none of 69 names, such as 'Audi A4 2012/another.png'"),
        (r"\.png", "no image can be set aside for test"),
    ],
)
def test_a_pattern_that_names_no_usable_groups_is_reported(
    tmp_path: Path, pattern: str, reported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = cars(tmp_path / "cars")
    assert main.run(["split", str(data), str(tmp_path / "v1"), "--group-by", pattern]) == 2
    assert reported in capsys.readouterr().err
    assert not (tmp_path / "v1").exists()


def test_check_hints_at_likely_groups_in_several_splits(tmp_path: Path) -> None:
    split(cars(tmp_path / "cars"), tmp_path / "v1")
    found = [one for one in check(tmp_path / "v1").findings if one.issue == "likely_group"]
    apart = {car for car, splits in sides(tmp_path / "v1").items() if len(splits) > 1}
    assert len(apart) == len(found) > 3
    assert {one.severity for one in found} == {"note"}
    assert found[0].path.startswith("test/")
    assert found[0].other.startswith("train/")
    assert f"such as {found[0].other}" in found[0].detail


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["car1_a", "car1_b", "car2_a", "car2_b", "car3"], 2),
        (["car1a", "car1b", "car2a", "car2b"], 2),
        (["7-1", "7-2", "8-1", "8-02", "9"], 2),
        (["x1 (1)", "x1 (2)", "y2 (1)", "y2 (2)"], 2),
        ([f"{car}_jpg.rf.{hash_ * 32}" for car in ("ab", "cd") for hash_ in "0f"], 2),
        (["anna_1", "anna_2", "ben_1", "ben_2"], 2),
        ([f"{number:06d}" for number in range(30)], 0),  # only numbered
        ([f"IMG_{number:04d}" for number in range(30)], 0),
        ([f"front_{number}" for number in range(9)] + [f"rear_{number}" for number in range(9)], 0),  # in both classes
        (["car1_a", "car1_b", "car1_c", "car2_a", "car2_b"], 1),  # one that is most of its class tells nothing
    ],
)
def test_likely_groups_are_reported_by_their_names(names: list[str], groups: int) -> None:
    other = names if "front_0" in names else ["x"]
    classes = {"A": [f"train/A/{name}.jpg" for name in names], "B": [f"train/B/{name}.jpg" for name in other]}
    assert len(list(likely_groups(classes))) == groups


@pytest.mark.parametrize("seed", range(10))
def test_a_drawn_share_takes_whole_groups_near_the_share_and_leaves_every_class_one(seed: int) -> None:
    chance = random.Random(seed)
    classes = {f"c{number}": [f"c{number}/{name}" for name in range(chance.randint(1, 60))] for number in range(12)}
    names = [name for of in classes.values() for name in of]
    groups, rest = [], chance.sample(names, len(names) * 2 // 3)
    while rest:
        size = chance.randint(2, 6)
        groups, rest = [*groups, rest[:size]], rest[size:]
    groups = [group for group in groups if len({name.partition("/")[0] for name in group}) < 3 or chance.random() < 0.1]
    drawn = draw_share(classes, 0.25, seed, groups)
    assert all(len(drawn & set(group)) in (0, len(group)) for group in groups)
    assert all(set(of) - drawn for of in classes.values())
    assert abs(len(drawn) - 0.25 * len(names)) < 0.06 * len(names)
    assert draw_share(mixed(classes, chance), 0.25, seed, [group[::-1] for group in groups[::-1]]) == drawn


def mixed(classes: Mapping[str, list[str]], chance: random.Random) -> dict[str, list[str]]:
    return {name: chance.sample(classes[name], len(classes[name])) for name in reversed(classes)}
