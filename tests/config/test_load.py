"""Reading the file itself, `--set`, and where each setting came from."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from whichcar.config.load import load_config, read_experiment, read_settings, settings_with_origin
from whichcar.errors import ConfigError

TEXT = """seed: 123
data:
  directory: cars
  batch_size: 16
model:
  weights: null
  data_aug_layer:
    random_rotation: {factor: "1e-1"}
compile:
  optimizer:
    adam: {learning_rate: 1e-4}
fit:
  epochs: 5
  callbacks:
    early_stopping: {patience: 3}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "config.yml"
    file.write_text(TEXT, encoding="utf-8")
    return file


def test_load_config_returns_the_file_unchanged(path: Path) -> None:
    assert load_config(path) == yaml.safe_load(TEXT)
    assert load_config(str(path))["compile"]["optimizer"]["adam"]["learning_rate"] == "1e-4"


def test_load_config_accepts_unknown_settings(path: Path) -> None:
    path.write_text("seed: 1\ndata: {directory: x}\nmine: [1, 2]\n", encoding="utf-8")
    assert load_config(path) == {"seed": 1, "data": {"directory": "x"}, "mine": [1, 2]}


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("data: {directory: x}", ["seed"]),
        ("seed: 1", ["data"]),
        ("seed: 1\ndata: {batch_size: 3}", ["data.directory"]),
        ("seed: 1\ndata: {directory: }", ["data.directory"]),
        ("seed: 1\ndata: x", ["data.directory"]),
        ("model: {}", ["seed", "data"]),
        ("data: {}", ["seed", "data.directory"]),
    ],
)
def test_missing_required_settings_are_named(path: Path, text: str, missing: list[str]) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as raised:
        load_config(path)
    assert isinstance(raised.value, ConfigError)
    first, *lines = str(raised.value).splitlines()
    assert first.startswith(f"{path}: {len(missing)} problem")
    assert lines == [f"  {key}: is missing; every experiment needs it" for key in missing]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty; write at least seed and data.directory"),
        (b"# only a comment\n", "is empty; write at least seed and data.directory"),
        (b"- 1\n- 2\n", "must contain settings, one per line, at least seed and data.directory; got a list instead"),
        (b"seed 123", "must contain settings, one per line, at least seed and data.directory; got a text instead"),
        (b"seed: \xff\xfe\n", "is not text in UTF-8 (byte 6); save it as UTF-8"),
        (b"seed: 1\nseed: 2\n", "line 2, column 1: `seed` is written twice, first in line 1; keep one"),
        (b"data:\n  a: 1\n  b: 2\n  a: 3\n", "line 4, column 3: `a` is written twice, first in line 2; keep one"),
        (b"data:\n\tdirectory: x\n", "line 2, column 1: found character '\\t' that cannot start any token"),
        (b"data: {directory: x\nseed: 1\n", "line 2, column 5: expected ',' or '}', but got ':'"),
        (b"seed: 1\n---\nseed: 2\n", "line 2, column 1: but found another document"),
        (b"seed: !!python/name:os.system\n", "line 1, column 7: could not determine a constructor for the tag"),
        (b"a: &a\n  b: *a\n", "holds itself"),
    ],
)
def test_a_file_that_is_not_valid_yaml_is_refused_with_the_position(path: Path, content: bytes, reason: str) -> None:
    path.write_bytes(content)
    for function in (load_config, read_experiment):
        with pytest.raises(ConfigError) as raised:
            function(path)
        assert str(raised.value).startswith(f"{path}: {reason}")
        assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yml: no such file; name a YAML file"):
        load_config(tmp_path / "none.yml")


@pytest.mark.parametrize("function", [load_config, read_experiment, read_settings, settings_with_origin])
def test_a_folder_stands_for_the_config_in_it(function: Callable[[Path], object], path: Path) -> None:
    for name in ("config.yml", "config.yaml"):
        config = path.rename(path.with_name(name))
        assert function(config.parent) == function(config)
        path = config
    path.unlink()
    with pytest.raises(ConfigError, match=r"holds no config\.yml; name an experiment's folder or a YAML file"):
        function(path.parent)


def test_a_byte_order_mark_and_anchors_are_read(path: Path) -> None:
    text = "base: &base {directory: x, batch_size: 8}\nseed: 1\ndata:\n  <<: *base\n  batch_size: 4\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_config(path)["data"] == {"directory": "x", "batch_size": 4}


def test_an_override_replaces_the_files_setting(path: Path) -> None:
    experiment = read_experiment(path, ["fit.epochs=3", "data.image_size=[64, 96]", "recipe.schedule=cosine"])
    assert (experiment.fit.epochs, experiment.data.image_size, experiment.recipe.schedule) == (3, (64, 96), "cosine")
    assert load_config(path)["fit"]["epochs"] == 5


def test_the_last_of_two_wins(path: Path) -> None:
    assert read_experiment(path, ["fit.epochs=3", "fit.epochs=4"]).fit.epochs == 4


@pytest.mark.parametrize("value", ["null", "~", ""])
def test_null_can_be_set(path: Path, value: str) -> None:
    path.write_text("seed: 1\ndata: {directory: x}\nmodel: {data_aug_layer: {random_flip: {}}}", encoding="utf-8")
    assert read_experiment(path, [f"model.weights={value}"]).model.weights is None
    assert read_experiment(path, [f"model.data_aug_layer={value}"]).model.data_aug_layer is None


def test_a_seed_missing_from_the_file_may_be_set(path: Path) -> None:
    path.write_text("data:\n", encoding="utf-8")
    assert read_experiment(path, ["seed=7", "data.directory=cars"]).seed == 7


def test_a_value_may_hold_an_equals_sign(path: Path) -> None:
    assert read_experiment(path, ["data.directory=a=b"]).data.directory == "a=b"


def test_a_missing_data_section_is_named(path: Path) -> None:
    path.write_text("seed: 1", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"  data: is missing: where the images are"):
        read_experiment(path)


def test_an_override_changes_only_one_use_of_a_yaml_alias(path: Path) -> None:
    text = "early_stopping: &patient {patience: 3}\n    reduce_on_plateau: *patient"
    path.write_text(f"seed: 1\ndata: {{directory: x}}\nfit:\n  callbacks:\n    {text}\n", encoding="utf-8")
    callbacks = read_experiment(path, ["fit.callbacks.early_stopping.patience=5"]).fit.callbacks
    assert callbacks.early_stopping is not None
    assert callbacks.reduce_on_plateau is not None
    assert (callbacks.early_stopping.patience, callbacks.reduce_on_plateau.patience) == (5, 3)


def test_null_removes_a_callback(path: Path) -> None:
    assert read_experiment(path).fit.callbacks.early_stopping is not None
    assert read_experiment(path, ["fit.callbacks.early_stopping=null"]).fit.callbacks.early_stopping is None


def test_an_override_adds_a_layer(path: Path) -> None:
    path.write_text("seed: 1\ndata: {directory: x}\nmodel: {data_aug_layer: }", encoding="utf-8")
    experiment = read_experiment(path, ["model.data_aug_layer.random_flip.mode=vertical"])
    assert experiment.model.data_aug_layer == {"random_flip": {"mode": "vertical"}}


def test_the_whole_optimizer_can_be_replaced(path: Path) -> None:
    chosen = read_experiment(path, ["compile.optimizer={sgd: {learning_rate: 0.1}}"]).compile.optimizer
    assert chosen.adam is None
    assert chosen.sgd is not None
    assert chosen.sgd.learning_rate == 0.1


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("fit.epocs=3", "fit.epocs: no such setting; did you mean `epochs`? (from --set)"),
        ("fit.epochs=0", "fit.epochs: must be at least 1; got 0 (from --set)"),
        ("fit.epochs=two", 'fit.epochs: must be a whole number; got "two" (from --set)'),
        ("epochs=3", "epochs: no such setting; did you mean `fit.epochs`? (from --set)"),
        (
            "compile.optimizer.sgd.learning_rate=0.1",
            "compile.optimizer: name exactly one of adam, adamw, sgd; got adam and sgd (from --set);"
            " to change the optimizer, give all of it: --set 'compile.optimizer={sgd: {learning_rate: 0.1}}'",
        ),
        ("fit.epochs", "--set fit.epochs: must be written as section.setting=value, for example fit.epochs=3"),
        ("=3", "--set =3: must be written as section.setting=value, for example fit.epochs=3"),
        ("fit..epochs=3", "--set fit..epochs=3: must be written as section.setting=value, for example fit.epochs=3"),
        ("seed.x=3", "--set seed.x=3: seed has no settings inside; set it whole"),
        ("data.image_size.0=3", "data.image_size: must be a list (height and width of the network's input); got {"),
        ("fit.epochs=[1", "--set fit.epochs=[1: the value is not YAML: line 1, column 3:"),
        (
            "fit={epochs: 1, epochs: 2}",
            "--set fit={epochs: 1, epochs: 2}: the value is not YAML: line 1, column 13: `epochs`",
        ),
    ],
)
def test_a_mistake_in_set_is_marked_as_such(path: Path, override: str, line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_experiment(path, [override])
    first, second = str(raised.value).splitlines()
    assert first == f"{path}: 1 problem"
    assert second.startswith(f"  {line}")


def test_mistakes_in_the_file_and_in_set_are_reported_together(path: Path) -> None:
    path.write_text(TEXT + "recipe: {mixup: -1}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        read_experiment(path, ["bad", "fit.epochs=0", "hardware.precision=bfloat16"])
    assert str(raised.value).splitlines() == [
        f"{path}: 3 problems",
        "  --set bad: must be written as section.setting=value, for example fit.epochs=3",
        "  fit.epochs: must be at least 1; got 0 (from --set)",
        "  recipe.mixup: must be at least 0; got -1",
    ]


def test_every_setting_has_its_origin(path: Path) -> None:
    found = {
        name: (value, origin)
        for name, value, origin in settings_with_origin(path, ["fit.epochs=7", "data.image_size=[64, 96]"])
    }
    assert found["seed"] == (123, "file")
    assert found["fit.epochs"] == (7, "--set")
    assert found["data.image_size"] == ((64, 96), "--set")
    assert found["model.input_shape"] == ((64, 96, 3), "default")
    assert found["model.weights"] == (None, "file")
    assert found["model.dropout_rate"] == (0.0, "default")
    assert found["model.data_aug_layer.random_rotation.factor"] == (0.1, "file")
    assert found["compile.optimizer.adam.learning_rate"] == (1e-4, "file")
    assert found["compile.optimizer.adam.epsilon"] == (1e-7, "default")
    assert found["fit.callbacks.early_stopping.patience"] == (3, "file")
    assert found["fit.callbacks.early_stopping.monitor"] == ("val_loss", "default")
    assert found["fit.callbacks.reduce_on_plateau"] == (None, "default")
    assert not any(name.startswith(("compile.optimizer.sgd", "compile.optimizer.adamw")) for name in found)


def test_a_section_replaced_by_set_no_longer_comes_from_the_file(path: Path) -> None:
    found = settings_with_origin(path, ["compile.optimizer={adam: {epsilon: 0.1}}", "model.data_aug_layer=null"])
    origins = {name: origin for name, _, origin in found}
    assert origins["compile.optimizer.adam.learning_rate"] == "default"
    assert origins["compile.optimizer.adam.epsilon"] == "--set"
    assert origins["model.data_aug_layer"] == "--set"


def test_the_settings_with_origin_are_all_of_an_experiment(path: Path) -> None:
    origins = {name: origin for name, _, origin in settings_with_origin(path)}
    assert sorted(name for name, origin in origins.items() if origin == "file") == [
        "compile.optimizer.adam.learning_rate",
        "data.batch_size",
        "data.directory",
        "fit.callbacks.early_stopping.patience",
        "fit.epochs",
        "model.data_aug_layer.random_rotation.factor",
        "model.weights",
        "seed",
    ]
    assert "--set" not in origins.values()
