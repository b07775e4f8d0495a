from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from whichcar.errors import DataError
from whichcar.evaluation.compare import BEGIN, END, experiments_table, write_table
from whichcar.evaluation.evaluate import evaluate
from whichcar.files import write_json, write_text

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
        "95 % interval": "0.376–0.964",
        "top-5": "1.000",
        "pictures": "5 test",
        "epochs": "2 of 3",
        "training": "35 min",
        "images/s": "25.7",
        "size": "24 x 32",
        "seed": "7",
    }


def test_the_commands_stand_below_the_table(trained: Path) -> None:
    evaluate(trained)
    evaluate(trained)
    evidence = experiments_table([trained]).splitlines()[-1]
    assert evidence.startswith("- exp_9: `whichcar train c.yml` on jax, float32, CPU, 2 cores; `whichcar evaluate ")
    assert "checkpoint `model.02-0.1234.keras`; the test pictures were used 2 times" in evidence


def test_experiments_that_differ_in_their_seed_only_get_mean_and_spread(trained: Path, tmp_path: Path) -> None:
    evaluate(trained)
    folders = []
    for seed, right in enumerate((0.6, 0.7, 0.8)):
        folder = tmp_path / "seeds" / f"run_{seed}"
        shutil.copytree(trained, folder)
        result = json.loads((folder / "result.json").read_text())
        result["top_1"]["value"] = right
        write_json(folder / "result.json", result)
        write_json(folder / "resolved.json", {"settings": {"seed": seed, "data": {"directory": "a"}}})
        folders.append(folder)
    other = tmp_path / "seeds" / "other"
    shutil.copytree(folders[0], other)
    write_json(other / "resolved.json", {"settings": {"seed": 9, "data": {"directory": "b"}}})
    table = experiments_table([*folders, other]).splitlines()
    where = table.index("| same settings | mean top-1 | standard deviation | range | seeds |")
    assert table[where + 2] == "| run_0, run_1, run_2 | **0.700** | 0.100 | 0.600–0.800 | 0, 1, 2 |"
    assert table[where + 3] == ""
    assert "same settings" not in experiments_table([folders[0], other])


def test_an_experiment_that_is_not_evaluated_yet_has_dashes(trained: Path) -> None:
    row = cells(experiments_table([trained]), 2)
    assert row[:4] == ["exp_9", "not evaluated", "–", "–"]
    assert row[6] == "35 min"


def test_what_is_no_experiment_is_passed_over(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "sweeps").mkdir()
    table = experiments_table([tmp_path / "README.md", tmp_path / "sweeps", trained])
    assert table.count("\n| ") == 2


def test_no_experiment_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no experiment there"):
        experiments_table([tmp_path])


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


def test_a_readme_without_markers_gets_the_table_at_its_end(trained: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "README.md", [trained])
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith(f"# Experiments\n\n{BEGIN}\n| experiment |")
    assert text.endswith(f"{END}\n")


def test_a_table_without_an_end_is_an_error_and_the_file_stays(trained: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\nold\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"README\.md"):
        write_table(readme, [trained])
    assert readme.read_text(encoding="utf-8") == f"{BEGIN}\nold\n"
