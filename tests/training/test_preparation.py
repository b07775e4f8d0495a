from __future__ import annotations

import numpy as np
import pytest

from whichcar.config import Experiment
from whichcar.training.preparation import scaled, sizes_of


@pytest.mark.parametrize(
    ("written", "total", "expected"),
    [
        ((11, 3, 3), 17, [11, 3, 3]),
        ((11, 3, 3), 34, [22, 6, 6]),
        ((11, 3, 3), 8, [5, 2, 1]),
        ((11, 3, 3), 3, [1, 1, 1]),
        ((11, 3, 3), 2, [0, 1, 1]),
        ((11, 3, 3), 1, [0, 0, 1]),
        ((1, 1, 30), 4, [1, 1, 2]),
        ((5,), 2, [2]),
    ],
)
def test_epochs_of_stages_are_scaled_to_the_run(written: tuple[int, ...], total: int, expected: list[int]) -> None:
    assert scaled(written, total) == expected


def test_scaled_counts_add_up_and_leave_no_stage_out_that_has_room() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        written, total = rng.integers(1, 40, rng.integers(1, 7)).tolist(), int(rng.integers(1, 80))
        found = scaled(written, total)
        assert sum(found) == total
        assert sum(count > 0 for count in found) == min(len(written), total)
        for count, share in zip(found, (one * total / sum(written) for one in written), strict=True):
            assert count <= share + 1 or count == 1


def test_each_epoch_has_the_size_of_its_stage() -> None:
    stages = [{"epochs": 4, "image_size": [64, 64]}, {"epochs": 2, "image_size": [96, 96]}]
    settings = {"seed": 1, "data": {"directory": "cars"}, "recipe": {"stages": stages}}
    assert len(sizes_of(Experiment.model_validate(settings))) == 6
    settings["fit"] = {"epochs": 3}
    assert sizes_of(Experiment.model_validate(settings)) == [(64, 64), (64, 64), (96, 96)]
