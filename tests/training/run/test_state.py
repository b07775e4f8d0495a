from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from whichcar.errors import TrainingError
from whichcar.files import is_disk_full
from whichcar.training.hardware import prepare
from whichcar.training.run import state
from whichcar.training.run.state import load_state, save_state

from .limits import no_file_larger_than

prepare("float32")
import keras  # noqa: E402

PROGRESS = {"epoch": 3, "step": 7, "best": None, "loss": math.nan, "name": "Škoda", "sums": [0.1, 1e-300]}


def variables(seed: int, units: int = 4) -> list[keras.Variable]:
    """What a run keeps: weights, an optimizer's variables and random states."""
    keras.utils.set_random_seed(seed)
    layer = keras.layers.Dense(units, kernel_initializer="random_normal")
    layer.build((None, 3))
    optimizer = keras.optimizers.Adam()
    optimizer.build(layer.trainable_variables)
    return [*layer.weights, *optimizer.variables, keras.random.SeedGenerator(seed).state]


def test_everything_comes_back_bit_by_bit(tmp_path: Path) -> None:
    saved, other = variables(1), variables(2)
    assert any((v.numpy() != o.numpy()).any() for v, o in zip(saved, other, strict=True))
    save_state(tmp_path / "state" / "state.npz", saved, PROGRESS)
    progress = load_state(tmp_path / "state" / "state.npz", other)
    for variable, truth in zip(other, saved, strict=True):
        assert variable.dtype == truth.dtype
        np.testing.assert_array_equal(variable.numpy(), truth.numpy())
    assert math.isnan(progress.pop("loss"))
    assert progress == {key: value for key, value in PROGRESS.items() if key != "loss"}


def test_random_states_are_restored(tmp_path: Path) -> None:
    generator = keras.random.SeedGenerator(5)
    keras.random.uniform((3,), seed=generator)
    save_state(tmp_path / "state.npz", [generator.state], {})
    expected = np.asarray(keras.random.uniform((3,), seed=generator))
    other = keras.random.SeedGenerator(6)
    load_state(tmp_path / "state.npz", [other.state])
    np.testing.assert_array_equal(np.asarray(keras.random.uniform((3,), seed=other)), expected)


@pytest.mark.parametrize("units", [5, 3])
def test_the_state_of_another_network_is_refused_and_nothing_is_changed(tmp_path: Path, units: int) -> None:
    save_state(tmp_path / "state.npz", variables(1), PROGRESS)
    other = variables(2, units)
    before = [variable.numpy() for variable in other]
    with pytest.raises(TrainingError, match="belongs to another network or optimizer; start over with --overwrite"):
        load_state(tmp_path / "state.npz", other)
    for variable, kept in zip(other, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), kept)


def test_fewer_or_more_variables_are_refused(tmp_path: Path) -> None:
    save_state(tmp_path / "state.npz", variables(1), PROGRESS)
    for other in (variables(1)[:-1], [*variables(1), keras.random.SeedGenerator(1).state]):
        with pytest.raises(TrainingError, match="belongs to another network"):
            load_state(tmp_path / "state.npz", other)


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "garbage", "flipped"])
def test_a_broken_state_is_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.npz"
    save_state(path, variables(1), PROGRESS)
    whole = path.read_bytes()
    middle = whole.index(b"NUMPY") + 200
    broken = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "garbage": b"x" * 500,
        "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
    }
    path.unlink()
    if damage in broken:
        path.write_bytes(broken[damage])
    with pytest.raises(TrainingError) as caught:
        load_state(path, variables(1))
    assert str(caught.value).startswith(f"{path}: cannot be read")
    assert str(caught.value).endswith("start over with --overwrite")


def test_a_state_of_another_format_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.npz"
    monkeypatch.setattr(state, "FORMAT", 4)
    save_state(path, variables(1), PROGRESS)
    monkeypatch.undo()
    newer = "format 4, and this version of whichcar reads format 3; resume with the version that environment.json names"
    with pytest.raises(TrainingError, match=newer):
        load_state(path, variables(1))


def test_wrong_bytes_anywhere_are_one_line(tmp_path: Path) -> None:
    path, rng = tmp_path / "state.npz", np.random.default_rng(0)
    save_state(path, variables(1), PROGRESS)
    whole, other, refused = path.read_bytes(), variables(1), 0
    for place in rng.integers(0, len(whole), 300):
        path.write_bytes(whole[:place] + rng.bytes(1) + whole[place + 1 :])
        try:
            load_state(path, other)
        except TrainingError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 200


def test_a_full_disk_leaves_the_state_before(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    save_state(path, variables(1), {"epoch": 1})
    with no_file_larger_than(1000), pytest.raises(OSError) as caught:
        save_state(path, variables(2), {"epoch": 2})
    assert is_disk_full(caught.value)
    assert list(tmp_path.iterdir()) == [path]
    assert load_state(path, variables(3)) == {"epoch": 1}
