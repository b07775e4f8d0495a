from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from whichcar.cli import main
from whichcar.errors import DataError
from whichcar.evaluation.compare.experiments import experiments_table, write_table
from whichcar.evaluation.compare.markdown import BEGIN, END
from whichcar.evaluation.evaluate import evaluate
from whichcar.evaluation.result_file import read_result
from whichcar.files import checksum, write_json, write_text

from ...colours import add_refit

HISTORY = """epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,image_size,images_per_second,seconds,checkpoint
1,2.0,0.3,1.9,0.4,0.02,128x128,30.0,600,model.01-1.9000.keras
2,1.0,0.7,0.9,0.8,0.02,128x128,20.0,1500,model.02-0.1234.keras
3,0.9,0.8,1.0,0.8,0.01,128x128,30.0,2100,model.03-1.0000.keras
"""


@pytest.fixture
def trained(experiment: Path) -> Path:
    write_text(experiment / "config.yml", "seed: 7\n")
    write_text(experiment / "history.csv", HISTORY)
    write_json(experiment / "resolved.json", {"finished": True, "settings": {"seed": 7}})
    environment = {
        "command": "whichcar train c.yml",
        "backend": "jax",
        "precision": "float32",
        "device": "CPU",
        "cores": 2,
    }
    write_json(experiment / "environment.json", environment)
    return experiment


def cells(table: str, row: int) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[row].strip("|").split("|")]


def test_the_table_has_accuracy_interval_cost_and_seed_of_each_experiment(trained: Path) -> None:
    evaluate(trained)
    table = experiments_table([trained])
    shown = dict(zip(cells(table, 0), cells(table, 2), strict=True))
    assert shown == {
        "experiment": "exp_9",
        "top-1": "**0.800**",
        "95 % interval": "0.284–0.995",
        "images": "5 test",
        "epochs": "2 of 3",
        "training": "35 min",
        "images/s": "25.7",
        "size": "24 x 32",
        "seed": "7",
    }


def test_a_refit_has_a_row_below_its_experiment(trained: Path, tree: Path, colour_model: object) -> None:
    refit = add_refit(trained, tree, colour_model)
    for folder in (trained / "model.02-0.1234.keras", trained):
        evaluate(folder)
    with pytest.raises(DataError, match=f"was not evaluated before its refit; give {refit}"):
        read_result(trained)
    table = experiments_table([trained, refit])
    rows = [dict(zip(cells(table, 0), cells(table, row), strict=True)) for row in (2, 3)]
    assert [(row["experiment"], row["top-1"], row["`data.train_on_validation`"]) for row in rows] == [
        ("exp_9", "not evaluated", "–"),
        ("exp_9/refit", "**0.800**", "true"),
    ]
    assert "the test images were used 2 times" in table
    write_json(trained / "best.json", {"checkpoint": "model.02-0.1234.keras", "blake2b": "another"})
    assert "exp_9/refit" not in experiments_table([trained])


def test_the_commands_stand_below_the_table(trained: Path) -> None:
    evaluate(trained)
    evaluate(trained)
    evidence = experiments_table([trained]).splitlines()[-1]
    assert evidence.startswith("- exp_9: `whichcar train c.yml` on jax, float32, CPU, 2 cores; `whichcar evaluate ")
    assert "checkpoint `model.02-0.1234.keras`; the test images were used 2 times" in evidence


def test_a_result_of_an_earlier_checkpoint_is_reported(trained: Path) -> None:
    evaluate(trained)
    checkpoint = "model.02-0.1234.keras"
    write_json(trained / "best.json", {"checkpoint": checkpoint, "blake2b": checksum(trained / checkpoint)})
    assert "warning" not in experiments_table([trained])
    write_json(trained / "best.json", {"checkpoint": checkpoint, "blake2b": "another"})
    warning = "warning: the result is of another checkpoint than best.json names; run: `whichcar evaluate "
    assert warning in experiments_table([trained])


def test_experiments_that_differ_in_their_seed_only_get_mean_and_spread(trained: Path, tmp_path: Path) -> None:
    evaluate(trained)
    folders = []
    for seed, right in enumerate((0.6, 0.7, 0.8)):
        folder = tmp_path / "seeds" / f"run_{seed}"
        shutil.copytree(trained, folder)
        result = json.loads((folder / "result.json").read_text())
        result["top_1"]["value"] = right
        level = result["levels"][0]
        result["levels"] += [level | {"name": "make", "top_1": {"value": right + 0.1}}]
        result["levels"] += [level | {"name": "model", "top_1": {"value": 1}}] if seed else []  # one does not have it
        level["macro"]["f1"]["value"] = right - 0.1
        write_json(folder / "result.json", result)
        write_json(folder / "resolved.json", {"settings": {"seed": seed, "data": {"directory": "a"}}})
        folders.append(folder)
    other = tmp_path / "seeds" / "other"
    shutil.copytree(folders[0], other)
    write_json(other / "resolved.json", {"settings": {"seed": 9, "data": {"directory": "b"}}})
    table = experiments_table([*folders, other]).splitlines()
    where = table.index("| same settings | mean top-1 | standard deviation | range | macro F1 | make | seeds |")
    means = "0.600 ± 0.100 | 0.800 ± 0.100"
    assert table[where + 2] == f"| run_0, run_1, run_2 | **0.700** | 0.100 | 0.600–0.800 | {means} | 0, 1, 2 |"
    assert table[where + 3] == ""
    assert "same settings" not in experiments_table([folders[0], other])


def test_an_experiment_that_is_not_evaluated_yet_shows_its_validation_accuracy(trained: Path) -> None:
    write_json(
        trained / "best.json", {"checkpoint": "x.keras", "epoch": 2, "val_accuracy": 0.81, "image_size": [24, 32]}
    )
    (trained / "config.yml").unlink()
    table = experiments_table([trained])
    shown = dict(zip(cells(table, 0), cells(table, 2), strict=True))
    assert [shown[name] for name in ("experiment", "top-1", "95 % interval", "top-5", "images")] == [
        *("exp_9", "not evaluated", "–", "–", "–")
    ]
    assert (shown["validation"], shown["training"]) == ("0.810", "35 min")


def test_a_validation_accuracy_that_is_not_there_is_a_dash(trained: Path) -> None:
    for best in ("{}", '{"val_accuracy": null}'):
        (trained / "best.json").write_text(best)
        table = experiments_table([trained])
        assert dict(zip(cells(table, 0), cells(table, 2), strict=True))["validation"] == "–"


def test_epochs_of_one_step_have_no_rate(trained: Path) -> None:
    write_text(trained / "history.csv", HISTORY.replace(",30.0,", ",,").replace(",20.0,", ",,"))
    table = experiments_table([trained])
    assert dict(zip(cells(table, 0), cells(table, 2), strict=True))["images/s"] == "–"


def copies(trained: Path, *settings: dict) -> list[Path]:
    """Copies of an experiment, run_0 and so on, with these settings."""
    folders = [trained.parent / f"run_{number}" for number in range(len(settings))]
    for folder, own in zip(folders, settings, strict=True):
        shutil.copytree(trained, folder)
        write_json(folder / "resolved.json", {"finished": True, "settings": own})
    return folders


def test_few_settings_that_differ_are_columns(trained: Path) -> None:
    base = {"seed": 1, "data": {"image_size": [32, 32]}, "model": {"input_shape": [32, 32, 3]}, "same": [1, {"a": 2}]}
    folders = copies(
        trained,
        base | {"recipe": {"mixup": 0.2, "rand_augment": None}},
        base | {"seed": 2, "recipe": {"mixup": 0, "rand_augment": {"num_ops": 2}}},
        base | {"data": {"image_size": [64, 64]}, "model": {"input_shape": [64, 64, 3]}, "recipe": {"mixup": 0}},
    )
    table = experiments_table([*folders, trained / "plots", trained]).splitlines()
    named = [cell.strip() for cell in table[0].strip("|").split("|")][-5:]
    assert named == ["seed", "`data.image_size`", "`same`", "`recipe.mixup`", "`recipe.rand_augment.num_ops`"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")][-4:] for line in table[2:6]]
    assert rows == [
        ["[32, 32]", '[1, {"a": 2}]', "0.2", "–"],
        ["[32, 32]", '[1, {"a": 2}]', "0", "2"],
        ["[64, 64]", '[1, {"a": 2}]', "0", "–"],
        ["–"] * 4,
    ]
    assert "`" not in experiments_table([folders[0], trained / "no"]).splitlines()[0]


@pytest.mark.parametrize(
    ("split", "groups"), [("test", ["run_0, run_1", "run_2, run_3"]), ("validation", ["run_0, run_1, run_2, run_3"])]
)
def test_a_mean_is_over_the_same_test_images_and_over_validation_images_that_the_seed_draws(
    trained: Path, split: str, groups: list[str]
) -> None:
    evaluate(trained)
    folders = copies(trained, *({"seed": seed} for seed in range(4)))
    for folder, fingerprint in zip(folders, "aabb", strict=True):
        result = json.loads((folder / "result.json").read_text())
        data = result["data"] | {"split": split, "fingerprint": fingerprint}
        write_json(folder / "result.json", result | {"data": data})
    table = experiments_table(folders).splitlines()
    where = next(number for number, line in enumerate(table) if line.startswith("| same settings |"))
    assert [cells(line, 0)[0] for line in table[where + 2 : table.index("", where)]] == groups


def test_many_settings_that_differ_are_listed_below_the_table(trained: Path) -> None:
    many = {f"s{number}": number for number in range(5)}
    folders = copies(trained, many, {**many, **dict.fromkeys(many, "x")}, {"s0": 7})
    table = experiments_table(folders).splitlines()
    assert table[0].endswith("| seed |")
    where = table.index("Settings that differ:")
    assert table[where + 2 :] == [
        "- run_0: `s0: 0`, `s1: 1`, `s2: 2`, `s3: 3`, `s4: 4`",
        "- run_1: `s0: x`, `s1: x`, `s2: x`, `s3: x`, `s4: x`",
        "- run_2: `s0: 7`",
    ]


def answered(folder: Path, right: Sequence[bool], fingerprint: str = "f") -> Path:
    """An experiment's folder as evaluation leaves it, with an image for each of these answers."""
    paths = [f"test/A/{number}.jpg" for number in range(len(right))]
    rows = [f"{path},A,A,0.5,{int(one)},1,0.5," for path, one in zip(paths, right, strict=True)]
    write_text(folder / "predictions.csv", "path,label,predicted,probability,correct,rank,label_probability,error\n"
               + "\n".join(rows) + "\n")  # fmt: skip
    share = {"value": sum(right) / len(right), "correct": sum(right), "total": len(right), "interval_95": [0, 1]}
    data = {"fingerprint": fingerprint, "split": "test", "images": len(right), "root": "cars"}
    data |= {"evaluations": 1, "crops": False}
    origin = {"command": "whichcar evaluate", "time": "2026-11-24", "checkpoint": {"file": "m"}, "image_size": [2, 2]}
    origin |= {"predictions": {"blake2b": checksum(folder / "predictions.csv")}, "classes": [{}] * 6, "warnings": []}
    origin |= {"mean_recall": 0.5, "log_loss": 1.0, "most_confused": []}
    write_json(folder / "result.json", {"top_1": share, "top_5": share, "data": data, **origin})
    return folder


def test_every_experiment_is_tested_against_one(tmp_path: Path) -> None:
    base = answered(tmp_path / "base", [True] * 50 + [False] * 50)
    better = answered(tmp_path / "better", [True] * 90 + [False] * 10)
    worse = answered(tmp_path / "worse", [False] * 10 + [True] * 40 + [False] * 50)
    alike = answered(tmp_path / "alike", [True] * 49 + [False, True] + [False] * 49)
    other = answered(tmp_path / "other", [True] * 100, "of others")
    table = experiments_table([better, worse, alike, other], base).splitlines()
    assert cells("\n".join(table), 2)[0] == "base"
    where = table.index(
        "| against base | points | 95 % interval | gained | lost | p | McNemar's test | meaning |",
    )
    assert table[where + 2 : where + 6] == [
        "| better | +40.0 | +29.4 to +49.1 | 40 | 0 | < 0.0001 | chi-squared | better |",
        "| worse | -10.0 | -16.2 to -3.4 | 0 | 10 | 0.0020 | exact | worse |",
        "| alike | +0.0 | -3.8 to +3.8 | 1 | 1 | 1.0000 | exact | no difference shown |",
        "| other | – | – | – | – | – | – | not tested |",
    ]
    reason = f"- {other}: measured on other images (100 test of cars) than {base} (100 test of cars); "
    assert any(line.startswith(reason) for line in table[where + 6 :])


def test_results_for_other_images_are_tested_and_named_with_their_experiments(tmp_path: Path) -> None:
    base, other = (tmp_path / name / "evaluations" / "photos-1" for name in ("a", "b"))
    for folder in (base, other):
        answered(folder, [True])
        write_json(folder.parents[1] / "best.json", {})
        result = json.loads((folder / "result.json").read_text())
        write_json(folder / "result.json", result | {"data": result["data"] | {"split": "images"}})
    table = experiments_table([other], base)
    assert "| against a/photos-1 |" in table and "| b/photos-1 | +0.0 |" in table
    assert "; the images were used once)" in table
    (other / "predictions.csv").unlink()
    with pytest.raises(DataError, match=r"make it again with: whichcar evaluate$"):  # the command of the result
        experiments_table([other], base)


@pytest.mark.parametrize(
    ("home", "file", "key"), [("exp", "m.keras", "f"), ("exp/refit", "m.keras", "f"), ("", "cars.whichcar", "f abc")]
)
def test_a_result_for_other_images_has_the_present_count_of_its_experiment_or_bundle(
    tmp_path: Path, home: str, file: str, key: str
) -> None:
    folder = answered(tmp_path / home / "evaluations" / "photos-1", [True])
    result = json.loads((folder / "result.json").read_text())
    write_json(folder / "result.json", result | {"checkpoint": {"file": file, "blake2b": "abc"}})
    for experiment in ("exp", "exp/refit"):
        write_json(tmp_path / experiment / "best.json", {})
    write_json(tmp_path / ("exp" if home else "evaluations") / "test_uses.json", {key: {"times": 3, "uses": []}})
    assert "the test images were used 3 times" in experiments_table([folder])


def test_where_nothing_can_be_tested_the_reason_is_an_error(tmp_path: Path, trained: Path) -> None:
    base = answered(tmp_path / "base", [True])
    with pytest.raises(DataError, match=r"other: measured on other images .* --data DIR`, and compare the folders"):
        experiments_table([answered(tmp_path / "other", [True], "g")], base)
    with pytest.raises(DataError, match=r"exp_9: has not been evaluated; run: whichcar evaluate .*exp_9"):
        experiments_table([base], trained)
    with pytest.raises(DataError, match="nothing to test against it"):
        experiments_table([base], base)


def test_what_is_no_experiment_is_passed_over(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "sweeps").mkdir()
    given = [tmp_path / "README.md", tmp_path / "sweeps", trained]
    assert experiments_table(given).count("\n| ") == 2
    assert main.run(["compare", *map(str, given)]) == 0


def test_no_experiment_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither an experiment nor a search .*; give folders of `whichcar train`"):
        experiments_table([tmp_path])


def test_a_folder_that_is_not_there_or_holds_experiments_is_an_error(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["compare", str(trained), str(tmp_path / "nope")]) == 2
    assert f"error: {tmp_path / 'nope'}: no such folder; give folders of" in capsys.readouterr().err
    assert main.run(["compare", str(trained), "--against", str(tmp_path / "nope")]) == 2
    assert f"error: --against {tmp_path / 'nope'}: no such folder" in capsys.readouterr().err
    assert main.run(["compare", str(trained.parent)]) == 2
    assert f"compare those in it: whichcar compare {trained}" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main.run(["compare"]) == 2
    assert "error: no experiment in experiments/ of this folder; give folders of" in capsys.readouterr().err


def test_only_what_stands_between_the_markers_is_replaced(trained: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Mine\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n", encoding="utf-8")
    table = write_table(readme, [trained])
    assert readme.read_text(encoding="utf-8") == f"# Mine\n\nBefore.\n\n{BEGIN}\n{table}\n{END}\n\nAfter.\n"
    once = readme.read_bytes()
    write_table(readme, [trained])
    assert readme.read_bytes() == once


def test_a_file_may_have_several_tables(trained: Path, tmp_path: Path) -> None:
    evaluate(trained)
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\nfirst\n{END}\n<!-- results crops -->\nold\n<!-- /results crops -->\nAfter.\n")
    table = write_table(readme, [trained], "crops")
    expected = f"{BEGIN}\nfirst\n{END}\n<!-- results crops -->\n{table}\n<!-- /results crops -->\nAfter.\n"
    assert readme.read_text(encoding="utf-8") == expected


def test_a_second_opening_marker_ends_the_table_too(trained: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\nold\n{BEGIN}\nAfter.\n", encoding="utf-8")
    table = write_table(readme, [trained])
    assert readme.read_text(encoding="utf-8") == f"{BEGIN}\n{table}\n{BEGIN}\nAfter.\n"


def test_a_mistyped_file_or_block_is_an_error_and_nothing_is_written(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\nold\n{END}\n", encoding="utf-8")
    assert main.run(["compare", str(trained), "--write", f"{tmp_path}/REDME.md"]) == 2
    advice = "REDME.md: no such file; name one that has the lines <!-- results --> and <!-- /results -->\n"
    assert capsys.readouterr() == ("", f"error: {tmp_path}/{advice}")
    assert main.run(["compare", str(trained), "--write", str(readme), "--block", "corps"]) == 2
    advice = "has no line <!-- results corps -->; write it and <!-- /results corps --> where the table belongs\n"
    assert capsys.readouterr() == ("", f"error: {readme}: {advice}")
    assert list(tmp_path.glob("*.md")) == [readme]
    assert readme.read_text(encoding="utf-8") == f"{BEGIN}\nold\n{END}\n"


def test_a_table_without_an_end_is_an_error_and_the_file_stays(trained: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\nold\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"README\.md"):
        write_table(readme, [trained])
    assert readme.read_text(encoding="utf-8") == f"{BEGIN}\nold\n"


def test_the_column_of_top_5_is_for_more_than_five_classes(trained: Path) -> None:
    evaluate(trained)
    assert "top-5" not in cells(experiments_table([trained]), 0)
    result = json.loads((trained / "result.json").read_text())
    write_json(trained / "result.json", {**result, "classes": 2 * result["classes"]})
    assert "top-5" in cells(experiments_table([trained]), 0)


def test_a_name_with_a_line_break_stays_on_its_row(trained: Path) -> None:
    odd = trained.rename(trained.with_name("exp\n9"))
    table = experiments_table([odd])
    assert cells(table, 2)[0] == "exp\\n9"


def test_crops_are_tested_against_the_whole_images_of_the_same_paths(tmp_path: Path) -> None:
    whole = answered(tmp_path / "whole", [True] * 50 + [False] * 50)
    crops = answered(tmp_path / "crops", [True] * 90, "of crops")  # of ten, no vehicle was found
    with pytest.raises(DataError, match=r"measured on other images .* only the same files, or crops of them"):
        experiments_table([crops], whole)
    result = json.loads((crops / "result.json").read_text())
    write_json(crops / "result.json", {**result, "data": {**result["data"], "crops": True}})
    table = experiments_table([crops], whole)
    assert "| crops | +44.4 | " in table
    assert "Crops are matched with whole images by their paths in the split: crops." in table
    (crops / "predictions.csv").write_text((crops / "predictions.csv").read_text().replace("test/A/", "test/B/"))
    others = {"predictions": {"blake2b": checksum(crops / "predictions.csv")}}
    write_json(crops / "result.json", json.loads((crops / "result.json").read_text()) | others)
    with pytest.raises(DataError, match="measured on other images"):
        experiments_table([crops], whole)
