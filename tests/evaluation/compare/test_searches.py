from pathlib import Path

import pytest

from whichcar.errors import DataError
from whichcar.evaluation.compare.experiments import compare, write_table
from whichcar.files import write_json

HEAD = "trial,outcome,value,epochs,seconds,kills,started,reason\n"


def search(folder: Path, rows: str, *, maximize: bool = True) -> Path:
    folder.mkdir()
    (folder / "trials.csv").write_text(HEAD + rows)
    about = {
        "metric": "val_accuracy",
        "maximize": maximize,
        "sampler": "tpe",
        "pruner": "none",
        "command": "whichcar sweep x",
    }
    write_json(folder / "sweep.json", about)
    return folder


def test_searches_are_compared_by_their_best_and_their_cost(tmp_path: Path) -> None:
    grid = search(tmp_path / "grid", "0,complete,0.4,3,60,0,,\n1,complete,0.5,3,180,0,,\n")
    fast = search(tmp_path / "fast", "0,complete,0.45,3,30,0,,\n1,pruned,0.9,1,20,0,,\n2,failed,,0,10,0,,oh\n")
    lines = compare([fast, grid]).splitlines()
    assert "best val_accuracy" in lines[0]
    assert lines[2] == "| fast | tpe | none | 3 | 1 | 1 | 1 | **0.450** | 4 | 1.0 | 0.25 |"
    assert lines[3] == "| grid | tpe | none | 2 | 2 | 0 | 0 | **0.500** | 6 | 4.0 | 1.00 |"
    assert lines[5:] == ["- fast: `whichcar sweep x`", "- grid: `whichcar sweep x`"]


def test_less_is_better_for_a_loss(tmp_path: Path) -> None:
    folder = search(tmp_path / "loss", "0,complete,0.4,3,60,0,,\n1,complete,0.5,3,60,0,,\n", maximize=False)
    assert "**0.400**" in compare([folder])


def test_a_search_without_a_complete_trial_has_a_dash(tmp_path: Path) -> None:
    assert "| – |" in compare([search(tmp_path / "none", "0,failed,,0,0,0,,oh\n")])


def test_the_table_goes_between_markers(tmp_path: Path) -> None:
    folder = search(tmp_path / "grid", "0,complete,0.4,3,60,0,,\n")
    readme = tmp_path / "README.md"
    for end in ("\n", "\r\n"):
        text = "before\n<!-- results sweeps -->\n{}\n<!-- /results sweeps -->\nafter\n"
        readme.write_bytes(text.format("old").replace("\n", end).encode())
        table = write_table(readme, [folder, readme], "sweeps")  # what is no search is passed over
        assert readme.read_bytes() == text.format(table).replace("\n", end).encode()
    readme.write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"README\.md: not text in UTF-8 from byte 3 on; save it as UTF-8"):
        write_table(readme, [folder])


def test_searches_and_experiments_are_not_mixed(tmp_path: Path) -> None:
    folder = search(tmp_path / "grid", "0,complete,0.4,3,60,0,,\n")
    other = tmp_path / "experiment"
    other.mkdir()
    (other / "config.yml").write_text("seed: 1\n")
    with pytest.raises(DataError, match="experiment: is not a search"):
        compare([folder, other])
