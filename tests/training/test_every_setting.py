"""No setting is accepted and then passed over: each is read by a run, has one legal value, or decides another."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml

from whichcar.config.experiment import Adam, AdamW, Experiment, Model, Sgd
from whichcar.config.load import read_experiment
from whichcar.config.section import Section, section_of
from whichcar.data.split.split import split
from whichcar.search.study import make_pruner, make_sampler
from whichcar.search.sweep_file import Pruner, Sampler, Sweep
from whichcar.training.train import train

from ..search.conftest import Sweeps, sweeps  # noqa: F401  (a fixture)

Reads = set[tuple[type[Section], str]]
# Handed over as keyword arguments to what refuses a name that it does not know.
HANDED_OVER: dict[type[Section], Collection[str]] = {
    Adam: Adam.model_fields,
    AdamW: AdamW.model_fields,
    Sgd: Sgd.model_fields,
    Model: ("weights", "dropout_rate", "l1_factor", "l2_factor", "cosine_scale"),
}

EVERYTHING: dict[str, Any] = {
    "seed": 5,
    "data": {"image_size": [32, 32], "batch_size": 4, "cache_size": [32, 32], "balanced": True},
    "model": {"weights": None, "dropout_rate": 0.1, "data_aug_layer": {"random_flip": {"mode": "horizontal"}}},
    "compile": {"optimizer": {"sgd": {"learning_rate": 0.01}}},
    "fit": {"epochs": 2, "callbacks": {"early_stopping": {}, "reduce_on_plateau": {"patience": 0, "min_delta": 99}}},
    "recipe": {
        "freeze": 5,
        "random_resized_crop": {},
        "mixup": 0.2,
        "cutmix": 1.0,
        "rand_augment": {},
        "stages": [{"epochs": 2, "image_size": [32, 32]}],
        "test_sizes": [[32, 32]],
    },
}
# What stands for itself alone, or has decided another setting when the file was read.
ONE_VALUE = {"data.labels", "data.label_mode", "compile.loss"}
DECIDES = {
    "model.input_shape": ({"model": {"input_shape": [64, 96, 3]}}, "data.image_size", (64, 96)),
    "fit.callbacks.early_stopping.restore_best_weights": (
        {"fit": {"callbacks": {"early_stopping": {"restore_best_weights": False}}}},
        "fit.callbacks.model_checkpoint.monitor",
        "epoch",
    ),
}


@contextmanager
def recorded(patch: pytest.MonkeyPatch) -> Iterator[Reads]:
    """Collect which settings are read, of which kind of section."""
    reads: Reads = set()
    get, dump = Section.__getattribute__, Section.model_dump

    def noted(section: Section, name: str) -> Any:  # noqa: ANN401
        if name in type(section).model_fields:
            reads.add((type(section), name))
        return get(section, name)

    def handed_over(section: Section, **options: Any) -> dict[str, Any]:  # noqa: ANN401
        reads.update((type(section), name) for name in HANDED_OVER.get(type(section), ()))
        return dump(section, **options)

    with patch.context() as context:
        context.setattr(Section, "__getattribute__", noted)
        context.setattr(Section, "model_dump", handed_over)
        yield reads


def settings_of(section: type[Section], before: str = "") -> Iterator[tuple[str, type[Section], str]]:
    """Yield the dotted name of each setting, its section, and its name in it."""
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        yield f"{before}{name}", section, name
        if inner:
            yield from settings_of(inner, f"{before}{name}.")


def unread(section: type[Section], reads: Reads) -> set[str]:
    return {dotted for dotted, kind, name in settings_of(section) if (kind, name) not in reads}


@pytest.mark.slow
def test_every_setting_is_read_by_training(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split(drawn, drawn / "car_dataset_labels.csv", tmp_path / "v1")
    path = tmp_path / "exp" / "config.yml"
    path.parent.mkdir()
    content = {**EVERYTHING, "data": {**EVERYTHING["data"], "directory": str(tmp_path / "v1")}}
    path.write_text(yaml.safe_dump(content))
    experiment = read_experiment(path)
    # What reading the file itself looks at, to find contradictions, counts for nothing.
    monkeypatch.setattr("whichcar.training.train.read_experiment", lambda *_: experiment)
    with recorded(monkeypatch) as reads:
        train(path)
    handed_over = {(kind, name) for kind in (Adam, AdamW) for name in kind.model_fields}  # as Sgd is
    missed = unread(Experiment, reads | handed_over) - {"compile.optimizer.adam", "compile.optimizer.adamw"}
    assert missed == ONE_VALUE | DECIDES.keys() | {"refit_of"}  # for those who use the checkpoint


@pytest.mark.parametrize("name", sorted(ONE_VALUE))
def test_a_setting_that_nothing_reads_has_one_value_only(name: str) -> None:
    kinds = {dotted: kind.model_fields[key].annotation for dotted, kind, key in settings_of(Experiment)}
    assert get_origin(kinds[name]) is Literal
    assert len(get_args(kinds[name])) == 1


@pytest.mark.parametrize("name", sorted(DECIDES))
def test_a_setting_that_is_not_read_later_decides_another(name: str) -> None:
    written, decided, expected = DECIDES[name]
    found: Any = Experiment.model_validate({"seed": 1, "data": {"directory": "d"}, **written})
    for key in decided.split("."):
        found = getattr(found, key)
    assert found == expected


@pytest.mark.slow
def test_every_setting_of_a_search_is_read_by_it(
    sweeps: Sweeps,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = {
        "model.dropout_rate": {"low": 0.0, "high": 0.5, "step": 0.1},
        "data.batch_size": {"choices": [16, 32]},
        "recipe.ema": {"low": 0.1, "high": 0.9, "log": True, "when": {"data.batch_size": 16}},
    }
    sweeps.write(space=space, keep=1, budget={"trials": 1, "minutes": 9})
    with recorded(monkeypatch) as reads:
        sweeps.run()
        for pruner in ("none", "median", "successive_halving", "hyperband"):
            make_pruner(Pruner(name=pruner), 3)
        for sampler in ("tpe", "random", "grid"):
            make_sampler(Sampler(name=sampler), 0)
    # How often a killed trial is restarted is read when one is killed (test_driver.py).
    assert unread(Sweep, reads) == {"restarts"}
