"""A run is trained again on its training and validation images, for as long as these have shown, and used instead."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from whichcar.cli import main
from whichcar.data.split.split import split
from whichcar.data.split.tree import read_tree
from whichcar.errors import TrainingError
from whichcar.files import checksum
from whichcar.images.read import read_resized
from whichcar.training import loop
from whichcar.training import train as start
from whichcar.training.loop import Run
from whichcar.training.network.resnet50 import load_saved_model
from whichcar.training.refit import refit
from whichcar.training.run.checkpoint import find_checkpoint, read_metadata
from whichcar.training.train import Trained, train

from .test_train import settings, tiny_network, write


@pytest.fixture(scope="module")
def tree(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn cars, split."""
    output = tmp_path_factory.mktemp("tree") / "v1"
    split(drawn, drawn / "car_dataset_labels.csv", output)
    return output


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    """Build the tiny network in every training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "build_models", lambda experiment, _, names: tiny_network(Path(), len(names), experiment))
        yield


@pytest.fixture(scope="module")
def refitted_once(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The refit of a run with a cosine schedule and sizes that are tried; not to be written to.

    The name of its folder has a line break, which must not end the comment in the refit's config.
    """
    recipe = {"schedule": "cosine", "test_sizes": [[40, 40]]}
    return refit(write(tmp_path_factory.mktemp("shared") / "exp\nodd: name", settings(tree, recipe=recipe)))


@pytest.fixture
def refitted(refitted_once: Trained, tmp_path: Path) -> Path:
    """The folder of such an experiment, for one test."""
    shutil.copytree(refitted_once.folder.parent, tmp_path / "exp")
    return tmp_path / "exp"


def content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_refit_is_the_same_training_on_all_images_but_those_for_test(refitted_once: Trained, tree: Path) -> None:
    first, folder = refitted_once.folder.parent, refitted_once.folder
    before, after = content(first / "resolved.json"), content(folder / "resolved.json")
    images = read_tree(tree, 0.2, 5)
    assert after["train_images"] == before["train_images"] + before["validation_images"]
    assert (after["train_images"], after["validation_images"]) == (len(images.train) + len(images.validation), 0)
    assert refitted_once.best["epoch"] == len(refitted_once.history) == 2, "the whole length of a cosine schedule"
    assert refitted_once.best["image_size"] == content(first / "best.json")["image_size"]
    metadata = read_metadata(refitted_once.checkpoint)
    assert metadata.settings["refit_of"] == content(first / "best.json")["blake2b"]
    assert metadata.settings["data"]["train_on_validation"]
    assert metadata.fingerprints == read_metadata(first / content(first / "best.json")["checkpoint"]).fingerprints


def test_the_config_of_a_refit_is_that_of_the_run_with_what_validation_decided(refitted_once: Trained) -> None:
    first, now = (
        yaml.safe_load((folder / "config.yml").read_text())
        for folder in (refitted_once.folder.parent, refitted_once.folder)
    )
    best = content(refitted_once.folder.parent / "best.json")
    assert now == first | {
        "refit_of": best["blake2b"],
        "data": first["data"] | {"train_on_validation": True, "cache_size": [40, 40]},
        "fit": {
            "epochs": 2,
            "callbacks": {
                "model_checkpoint": {"filepath": "model.{epoch:02d}-{loss:.4f}.keras", "monitor": "epoch", "keep": 1},
                "tensor_board": {"log_dir": "logs"},
            },
        },
        "recipe": first["recipe"] | {"test_sizes": [best["image_size"]]},
    }


def test_a_refit_of_a_cosine_schedule_that_was_cut_short_ends_at_the_epoch_that_was_chosen(
    tree: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "exp", settings(tree, fit={"epochs": 9, "stop_after": 2}, recipe={"schedule": "cosine"}))
    first = train(path)
    (path.parent / "best.json").write_text(json.dumps(first.best | {"epoch": 1}))
    assert len(refit(path).history) == 1


def test_ctrl_c_in_the_last_validation_stops_before_the_refit_which_resume_goes_on_with(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    validate = loop.validate

    def interrupted(*arguments: Any) -> Any:  # noqa: ANN401  (as they are given)
        os.kill(os.getpid(), signal.SIGINT)
        return validate(*arguments)

    folder = write(tmp_path / "exp", settings(tree, fit={"epochs": 1})).parent
    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", interrupted)
        assert main.run(["train", str(folder), "--refit"]) == main.INTERRUPTED
    printed = f"{folder}: trained; stopped before its refit\nresume with: whichcar train {folder} --refit --resume\n"
    assert printed in capsys.readouterr().err
    assert content(folder / "resolved.json")["finished"]
    assert not (folder / "refit").exists()
    assert main.run(["train", str(folder), "--refit", "--resume"]) == 0
    assert find_checkpoint(folder).parent == folder / "refit"


@pytest.mark.slow
def test_at_a_constant_rate_a_refit_ends_at_the_epoch_that_was_chosen_and_lowers_the_rate_where_the_run_did(
    tree: Path, tmp_path: Path
) -> None:
    plateau = {"monitor": "val_loss", "patience": 1, "min_delta": 99, "factor": 0.7, "cooldown": 99}
    fit = {"epochs": 6, "callbacks": {"reduce_on_plateau": plateau}}
    path = write(tmp_path / "exp", settings(tree, fit=fit, recipe={"warmup_share": 0.5}))
    first = train(path)
    (path.parent / "best.json").write_text(json.dumps(first.best | {"epoch": 5}))  # whichever it was
    done = refit(path)
    assert len(done.history) == 5
    factors = yaml.safe_load((done.folder / "config.yml").read_text())["recipe"]["rate_factors"]
    assert factors == [[3, 0.7]], "lowered during the warm-up, in which the rate rises all the same"
    assert [row.learning_rate for row in done.history[3:]] == [row.learning_rate for row in first.history[3:5]]


def test_a_refit_much_longer_than_the_epoch_that_was_chosen_says_so(
    refitted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(refitted / "refit")
    best = content(refitted / "best.json") | {"epoch": 1}
    (refitted / "best.json").write_text(json.dumps(best))
    refit(refitted)
    assert "validation chose epoch 1 of 2, but the refit trains all 2, as the cosine schedule ends there" in caplog.text


def test_the_checkpoint_of_a_refit_is_used_until_the_experiment_has_another(
    refitted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert find_checkpoint(refitted).parent == refitted / "refit"
    assert f"{refitted}: its refit is used" in caplog.text
    best = content(refitted / "best.json")
    (refitted / best["checkpoint"]).write_bytes(b"other weights")
    (refitted / "best.json").write_text(json.dumps(best | {"blake2b": checksum(refitted / best["checkpoint"])}))
    assert find_checkpoint(refitted) == refitted / best["checkpoint"]
    assert f"refit with: whichcar train {refitted} --refit" in caplog.text


def test_a_finished_refit_is_left_as_it_is(refitted: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    before = (refitted / "refit" / "best.json").read_bytes()
    assert refit(refitted).folder == refitted / "refit"
    assert f"{refitted / 'refit'}: already trained" in caplog.text
    assert (refitted / "refit" / "best.json").read_bytes() == before


def leave_unfinished(folder: Path) -> None:
    """Let the training in a folder have stopped before its end."""
    (folder / "resolved.json").write_text(json.dumps(content(folder / "resolved.json") | {"finished": False}))


def test_an_unfinished_refit_is_resumed_or_started_over_without_the_first_training(
    refitted: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    leave_unfinished(refitted / "refit")
    first = (refitted / "best.json").read_bytes()
    assert main.run(["train", str(refitted), "--set", "fit.epochs=2", "--refit"]) == main.MISTAKE
    again, over = (
        f"whichcar train {refitted} --set fit.epochs=2 --refit --resume",
        f"whichcar train {refitted / 'refit'} --overwrite",
    )
    error = f"holds an unfinished refit; resume with: {again}, or start it over with: {over}"
    assert f"error: {refitted / 'refit'}: {error}\n" in capsys.readouterr().err
    assert caplog.messages == [f"{refitted}: already trained for 2 epochs"]
    assert main.run(over.split()[1:]) == 0
    assert find_checkpoint(refitted).parent == refitted / "refit"
    assert (refitted / "best.json").read_bytes() == first


def test_a_refit_that_cannot_be_resumed_is_started_over_without_the_first_training(refitted: Path) -> None:
    leave_unfinished(refitted / "refit")
    (refitted / "refit" / "state" / "state.npz").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match=r"; start over with --overwrite: whichcar train .*/refit --overwrite$"):
        refit(refitted, resume=True)


def make_stale(refitted: Path) -> None:
    """Let the refit be of an earlier checkpoint of the experiment."""
    record = content(refitted / "refit" / "resolved.json")
    record["settings"]["refit_of"] = "another"
    (refitted / "refit" / "resolved.json").write_text(json.dumps(record))


def test_a_refit_that_was_killed_while_it_replaced_an_earlier_one_resumes(
    refitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_stale(refitted)

    def killed(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", killed)
        patch.setattr("whichcar.training.run.folder.put_back", lambda _: None)  # a kill leaves the folder as it is
        with pytest.raises(ZeroDivisionError):
            refit(refitted)
    assert (refitted / "refit" / ".previous").is_dir()
    assert refit(refitted, resume=True).folder == refitted / "refit"
    assert find_checkpoint(refitted).parent == refitted / "refit"


@pytest.mark.slow
def test_a_refit_of_an_earlier_checkpoint_is_replaced_and_resumes_by_the_command_that_is_printed(
    refitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_stale(refitted)
    step = Run._step

    def stops(run: Run, *batch: np.ndarray) -> None:
        step(run, *batch)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", stops)
        assert main.run(["train", str(refitted), "--refit"]) == main.INTERRUPTED
    assert f"resume with: whichcar train {refitted} --refit --resume" in capsys.readouterr().err
    assert find_checkpoint(refitted).parent == refitted, "an unfinished refit is not used"
    assert main.run(["train", str(refitted), "--refit", "--resume"]) == 0
    assert f"next: whichcar evaluate {refitted}\n" in capsys.readouterr().out
    assert find_checkpoint(refitted).parent == refitted / "refit"


def add_an_image(refitted: Path, tree: Path) -> Path:
    source = next((tree / "train").rglob("*.jpg"))
    shutil.copy(source, source.with_name("new.jpg"))
    shutil.rmtree(refitted / "refit")
    return refitted


def without_validation(refitted: Path, tree: Path) -> Path:
    return write(refitted.parent / "other", settings(tree, data={"validation_split": 0}))


def unfinished(refitted: Path, tree: Path) -> Path:
    leave_unfinished(refitted)
    return refitted


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without_validation, r"has no validation images to add .*train without --refit"),
        (unfinished, r"holds an unfinished run; resume with --resume"),
        (lambda refitted, _: refitted / "refit", r"is a refit itself; .*: whichcar train \S+/exp --refit"),
        (add_an_image, r"images of .* have changed since this training; put them back, or"),
    ],
)
def test_what_cannot_be_refitted_is_one_line(
    make: Callable[[Path, Path], Path], message: str, refitted: Path, drawn: Path, tmp_path: Path, tree: Path
) -> None:
    shutil.copytree(tree, tmp_path / "v1")
    for name in ("config.yml", "resolved.json"):
        path = refitted / name
        path.write_text(path.read_text().replace(str(tree), str(tmp_path / "v1")))
    with pytest.raises(TrainingError, match=message) as caught:
        refit(make(refitted, tmp_path / "v1"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("held_out", [True, False])
def test_after_a_training_the_command_for_a_refit_is_shown_if_images_were_held_out(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], held_out: bool
) -> None:
    data = {"train_on_validation": not held_out}
    config = write(tmp_path / "exp", settings(tree, data=data, fit={"epochs": 2}))
    assert main.run(["train", str(config), "--set", "fit.epochs=1"]) == 0
    command = f"whichcar train {config} --set fit.epochs=1 --refit"
    line = f"before use, to train again on the validation images too: {command}\n"
    assert (line in capsys.readouterr().out) == held_out


def test_without_validation_images_moments_are_recomputed_at_the_size_of_prediction(tree: Path, tmp_path: Path) -> None:
    import keras

    recipe = {"precise_batch_norm": True, "test_sizes": [[40, 40]], "random_resized_crop": {"side": [0.3, 0.4]}}
    made = train(write(tmp_path / "exp", settings(tree, data={"train_on_validation": True}, recipe=recipe)))
    model = load_saved_model(made.checkpoint)
    images = np.stack([read_resized(path, (40, 40)) for path in sorted((tree / "train").rglob("*.jpg"))])
    seen = keras.Model(model.inputs[0], model.get_layer("conv1_conv").output)(images.astype(np.float32))
    found = model.get_layer("conv1_bn").get_weights()[-2]
    assert found == pytest.approx(np.mean(seen, axis=(0, 1, 2)), rel=1e-3, abs=1e-5)
