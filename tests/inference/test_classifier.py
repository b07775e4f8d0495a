from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from whichcar import files
from whichcar.errors import CheckpointError, ConfigError, ImageError
from whichcar.images.inputs import each
from whichcar.inference.answer import tempered
from whichcar.inference.bundle import write_bundle
from whichcar.inference.classifier import Classifier
from whichcar.inference.runtimes import KerasRuntime
from whichcar.inference.stream import Scored, decoded, stream
from whichcar.parallel import THREAD_PREFIX
from whichcar.records import Answer, NoVehicle, Prediction, Skipped

from ..bundles import calibrated_for, colour_bundle

Painter = Callable[..., Path]
RED, GREEN, BLUE = (210, 40, 30), (30, 190, 40), (30, 40, 200)


@pytest.fixture
def paths(tmp_path: Path, painter: Painter) -> list[Path]:
    colours = [RED, GREEN, BLUE, GREEN, RED, BLUE, RED]
    return [painter(tmp_path / "p" / f"{n}.jpg", c, size=(40 + n, 30 + 2 * n), seed=n) for n, c in enumerate(colours)]


class Brightness:
    """A network that answers with the share of each colour, and notes the shapes it was called with."""

    batch_size = 32
    hardware: Mapping[str, str] = {}

    def __init__(self, callers: int = 0) -> None:
        self.callers, self.shapes = callers, list[tuple[int, ...]]()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.shapes.append(images.shape)
        mean = images.mean(axis=(1, 2), dtype=np.float32)
        return mean / mean.sum(axis=1, keepdims=True)


def test_answers_come_in_the_order_of_the_paths_with_unreadable_images_between(
    experiment: Path, paths: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff not an image")
    asked = [paths[0], broken, *paths[1:], tmp_path / "missing.jpg"]
    answers = list(Classifier(experiment).predict(asked, top=2, batch_size=3))
    assert [answer.path for answer in answers] == asked
    assert [type(a) for a in answers] == [Prediction, Skipped, *[Prediction] * 6, Skipped]
    predicted = [a.best.split()[0] for a in answers if isinstance(a, Prediction)]
    assert predicted == ["Red", "Green", "Blue", "Green", "Red", "Blue", "Red"]
    assert "no such file" in answers[-1].reason  # type: ignore[union-attr]
    assert not answers[-1].reason.startswith(str(tmp_path))  # type: ignore[union-attr]


def test_probabilities_are_sorted_and_there_are_never_more_than_classes(experiment: Path, paths: list[Path]) -> None:
    classifier = Classifier(experiment)
    (answer,) = classifier.predict(paths[:1], top=10)
    assert isinstance(answer, Prediction)
    assert len(answer.classes) == len(answer.probabilities) == 3
    assert list(answer.probabilities) == sorted(answer.probabilities, reverse=True)
    assert sum(answer.probabilities) == pytest.approx(1, abs=1e-4)
    assert classifier.class_names == ("Blue C/V Van 2012", "Green Coupe 2010", "Red Sedan 2011")
    assert classifier.image_size == (24, 32)


def test_arrays_of_any_size_are_resized(experiment: Path) -> None:
    images = np.zeros((3, 70, 50, 3), np.uint8)
    images[range(3), :, :, [0, 1, 2]] = 255
    assert Classifier(experiment).probabilities(images).argmax(axis=1).tolist() == [2, 1, 0]


def test_a_shorter_last_batch_is_filled_up_so_that_one_shape_is_compiled(paths: list[Path]) -> None:
    network = Brightness()
    assert len(list(stream(network, each(paths), (8, 8), batch_size=3))) == 7
    assert network.shapes == [(3, 8, 8, 3)] * 3


def test_an_unreadable_image_leaves_the_shape_of_its_batch(paths: list[Path], tmp_path: Path) -> None:
    network = Brightness()
    asked = [*paths[:4], tmp_path / "missing.jpg", paths[4], tmp_path / "missing.jpg"]
    answers = list(stream(network, each(asked), (8, 8), batch_size=3))
    assert [type(answer) for answer in answers] == [*[Scored] * 4, Skipped, Scored, Skipped]
    assert network.shapes == [(3, 8, 8, 3)] * 2


def test_what_has_no_answer_says_why_where_it_is_asked_for_one(bundle: Path, tmp_path: Path) -> None:
    (missing,) = Classifier(bundle).predict(tmp_path / "missing.jpg")
    for row, reason in ((missing, "no such file"), (NoVehicle(Path("a.jpg"), "no vehicle"), "no vehicle")):
        for name in ("best", "answer"):
            with pytest.raises(ImageError, match=rf"\.jpg: .*{reason}"):
                getattr(row, name)


def test_one_image_does_not_cost_a_whole_batch(paths: list[Path]) -> None:
    network = Brightness()
    list(stream(network, each(paths[:1]), (8, 8), batch_size=32))
    assert network.shapes == [(1, 8, 8, 3)]


@pytest.mark.parametrize("callers", [0, 3])
def test_an_image_gets_the_same_answer_alone_and_among_others(paths: list[Path], callers: int) -> None:
    network = Brightness(callers)
    alone = [item for path in paths for item in stream(network, each([path]), (8, 8), batch_size=1)]
    together = list(stream(network, each(paths), (8, 8), batch_size=64))
    for one, other in zip(alone, together, strict=True):
        assert isinstance(one, Scored) and isinstance(other, Scored)
        assert one.path == other.path
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


@pytest.mark.parametrize(("callers", "held"), [(0, 3 * 4), (2, 3 * 8 * 4)])
def test_paths_are_taken_as_they_are_needed(paths: list[Path], callers: int, held: int) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield paths[taken % len(paths)]

    answers = stream(Brightness(callers), each(endless()), (8, 8), batch_size=4)
    for given in range(1, 101):
        assert isinstance(next(answers), Scored)
        assert taken <= given + held + 4
    answers.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_PREFIX)]


def test_the_next_batches_are_being_decoded_while_the_network_works(paths: list[Path]) -> None:
    taken: list[Path] = []

    def noted() -> Iterator[Path]:
        for path in paths:
            taken.append(path)
            yield path

    first = next(decoded(each(noted()), (8, 8), ahead=4))
    assert first[0] == paths[0]
    assert len(taken) == 5


def test_a_model_with_another_number_of_classes_is_refused(colour_model: object) -> None:
    network = KerasRuntime(colour_model, 4)
    with pytest.raises(CheckpointError, match="3 values an image, but 4 class names"):
        network(np.zeros((1, 8, 8, 3), np.uint8))


def test_a_model_that_answers_with_nan_is_refused() -> None:
    import keras

    image = keras.Input((None, None, 3))
    spoilt = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant(float("nan")))
    model = keras.Model(image, spoilt(keras.layers.GlobalAveragePooling2D()(image)))
    with pytest.raises(CheckpointError, match="NaN"):
        KerasRuntime(model, 2)(np.ones((3, 8, 8, 3), np.uint8))


def test_batch_norm_gives_the_same_answer_for_one_image_and_for_64(tmp_path: Path, painter: Painter) -> None:
    import keras

    keras.utils.set_random_seed(3)
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3)(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization(momentum=0.5)(x))
    model = keras.Model(image, keras.layers.Dense(5, "softmax")(x))
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (64, 16, 16, 3)).astype(np.uint8)
    in_training = keras.ops.convert_to_numpy(model(batch.astype(np.float32), training=True))
    before = [np.array(weight) for weight in model.get_weights()]
    network = KerasRuntime(model, 5)
    together = network(batch)
    alone = np.concatenate([network(batch[n : n + 1]) for n in range(64)])
    np.testing.assert_allclose(alone, together, atol=1e-6)
    assert np.abs(in_training - together).max() > 1e-3  # the test would see batch-norm left in training mode
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_folder_with_one_checkpoint_and_nothing_else_is_enough(colour_experiment: Path, tmp_path: Path) -> None:
    shutil.copyfile(next(colour_experiment.glob("*.keras")), tmp_path / "m.keras")
    assert Classifier(str(tmp_path)).probabilities(np.zeros((4, 4, 3), np.uint8)).shape == (1, 3)


def test_an_experiment_without_an_epoch_says_how_to_train(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("seed: 1")
    with pytest.raises(CheckpointError, match="whichcar train"):
        Classifier(tmp_path)


def test_where_an_accuracy_is_wanted_rows_have_an_answer_and_calibrated_probabilities(
    experiment: Path, paths: list[Path]
) -> None:
    plain = Classifier(experiment).predict(paths[0])[0]
    checksum = files.checksum(experiment / "model.02-0.1234.keras")
    files.write_json(experiment / "calibration.json", calibrated_for({"class": 0.5}, checksum))
    (row,) = Classifier(experiment).predict(paths[0], confidence=0.9)
    assert isinstance(plain, Prediction) and isinstance(row, Prediction)
    assert row.probabilities == pytest.approx(tempered(np.array(plain.probabilities), 2.0))
    assert row.answer == Answer("class", "Red Sedan 2011", row.probabilities[0])
    assert list(row.as_row())[:4] == ["path", "answer", "answer_level", "answer_probability"]
    assert Classifier(experiment).predict(paths[0])[0] == plain, "without it, rows stay as they were"


def test_a_bundle_answers_with_the_probabilities_that_its_network_gives(tmp_path: Path, paths: list[Path]) -> None:
    bundle = colour_bundle(temperature=2.0, thresholds=calibrated_for({"class": 0.99}))
    write_bundle(bundle, tmp_path / "a.whichcar")
    classifier = Classifier(tmp_path / "a.whichcar")
    (plain,), (row,) = classifier.predict(paths[0]), classifier.predict(paths[0], confidence=0.85)
    assert isinstance(plain, Prediction) and isinstance(row, Prediction) and row.answer is not None
    assert row.probabilities == pytest.approx(plain.probabilities, abs=1e-6)
    assert (row.answer.level, row.answer.name) == ("", "unknown")


def test_a_checkpoint_that_is_not_the_best_is_advised_to_be_exported(experiment: Path, paths: list[Path]) -> None:
    other = shutil.copy(experiment / "model.02-0.1234.keras", experiment / "model.03-0.2000.keras")
    advice = "an experiment's best checkpoint .*, and `whichcar export` writes any checkpoint calibrated"
    with pytest.raises(ConfigError, match=f"is not calibrated, .*`whichcar evaluate` calibrates {advice}"):
        Classifier(other).predict(paths, confidence=0.9)


def test_an_accuracy_that_cannot_be_promised_is_refused_or_said(
    experiment: Path, paths: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=r"is not calibrated, .*`whichcar evaluate` calibrates"):
        Classifier(experiment).predict(paths, confidence=0.9)
    files.write_json(experiment / "calibration.json", calibrated_for({}, "of another checkpoint"))
    with pytest.raises(ConfigError, match="is not calibrated"):
        Classifier(experiment).predict(paths, confidence=0.9)
    checksum = files.checksum(experiment / "model.02-0.1234.keras")
    files.write_json(experiment / "calibration.json", calibrated_for({"class": 0.5}, checksum))
    with pytest.raises(ConfigError, match=r"an accuracy of 0.9, 0.99; got 0.999"):
        Classifier(experiment).predict(paths, confidence=0.999)
    rows = Classifier(experiment).predict(paths, confidence=0.99)
    assert {row.answer.name for row in rows if isinstance(row, Prediction) and row.answer} == {"unknown"}
    assert "accuracy of 0.99, as 40 validation images showed, fewer than the 299 needed: all are unknown" in caplog.text
