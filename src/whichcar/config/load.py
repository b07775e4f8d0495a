"""Reads an experiment's YAML file, with the overrides of `--set`, and reports where each setting comes from."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from whichcar import files
from whichcar.config.augmentations import AUGMENTATIONS
from whichcar.config.experiment import Callbacks, Experiment, Optimizer
from whichcar.config.section import Section
from whichcar.config.validate import Problem, config_error, validate, validate_each
from whichcar.errors import ConfigError

Origin = Literal["default", "file", "--set"]
# Settings that null removes, by section.
_REMOVED_BY_NULL: dict[tuple[str, ...], Collection[str]] = {
    ("fit", "callbacks"): Callbacks.model_fields,
    ("model", "data_aug_layer"): AUGMENTATIONS,
    ("recipe",): ("random_resized_crop", "rand_augment"),
}


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, refusing a duplicate key where YAML would silently keep the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401
        node = super().compose_mapping_node(anchor)
        first: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in first:
                    problem = f"`{key.value}` is written twice, first in line {first[key.value]}; keep one"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                first[key.value] = line
        return node


CONFIGS = (files.CONFIG, "config.yaml")


def config_in(path: Path) -> Path:
    """Return the config of an experiment's folder; any other path is returned unchanged."""
    if not path.is_dir():
        return path
    configs = [path / name for name in CONFIGS if (path / name).is_file()]
    if not configs:
        raise ConfigError(f"{path}: holds no config.yml; name an experiment's folder or a YAML file")
    return configs[0]


def folder_of(config_path: Path) -> Path:
    """Return the folder a config belongs to: its own if it is called config.yml, else one of its name next to it."""
    if not config_path.is_file():
        raise ConfigError(f"{config_path}: no such file; give an experiment's config.yml")
    return config_path.parent if config_path.stem == "config" else config_path.with_suffix("")


def load_config(path: str | Path) -> dict[str, Any]:
    """Return a YAML file as a dict, as written, after checking that `seed`, `data` and `data.directory` exist.

    Raises:
        ConfigError: (a ValueError) the file cannot be read, holds no settings, or lacks one of the three.
    """
    path = config_in(Path(path))
    raw = read_yaml(path)
    missing = [key for key in ("seed", "data") if raw.get(key) is None]
    data = raw.get("data")
    if data is not None and (not isinstance(data, dict) or data.get("directory") in (None, "")):
        missing.append("data.directory")
    if missing:
        raise config_error(path, [Problem(key, "is missing; every experiment needs it") for key in missing])
    return raw


def read_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Return the checked settings of a YAML file.

    Args:
        path: the YAML file, or the experiment's folder with its `config.yml`.
        overrides: settings that override the file in turn, such as `fit.epochs=3`; the values are read as YAML.

    Raises:
        ConfigError: (a ValueError) naming every mistake in the file and in the overrides.
    """
    return _resolve(path, overrides)[0]


def read_settings(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the settings of a YAML file and the overrides as written, after checking them.

    Raises:
        ConfigError: as `read_experiment`.
    """
    return _resolve(path, overrides)[1]


def settings_with_origin(path: str | Path, overrides: Sequence[str] = ()) -> list[tuple[str, Any, Origin]]:
    """Return (dotted name, value, origin) of every setting that is in force, in the order of the README's table.

    A value that follows another (`model.input_shape` follows `data.image_size`) counts as a default.

    Raises:
        ConfigError: as `read_experiment`.
    """
    experiment, _, origins = _resolve(path, overrides)
    return [(name, value, origins.get(name, "default")) for name, value in leaves(experiment)]


def leaves(section: Section | dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and value of everything that holds no further settings."""
    for key, value in section if isinstance(section, Section) else section.items():
        if isinstance(value, Section) or (isinstance(value, dict) and value):
            yield from leaves(value, f"{before}{key}.")
        elif value is not None or not isinstance(section, Optimizer):
            yield f"{before}{key}", value


def as_texts(settings: dict[str, Any]) -> dict[str, str]:
    """Return settings by dotted name: text as it is, everything else as JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in leaves(settings)
    }


def _resolve(path: str | Path, overrides: Sequence[str]) -> tuple[Experiment, dict[str, Any], dict[str, Origin]]:
    """Read the file, apply the overrides, validate."""
    path = config_in(Path(path))
    raw, origins, problems = _with_overrides(read_yaml(path), overrides)
    experiment, more = validate(raw)
    problems += [_with_origin(problem, origins) for problem in more]
    if experiment is None or problems:
        raise config_error(path, problems)
    return experiment, raw, origins


def checked_overrides(path: str | Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the settings from overrides, each checked by itself, since the file they are for is yet to be written.

    Raises:
        ConfigError: naming `path`, and every override that would be wrong with any file.
    """
    raw, origins, problems = _with_overrides({}, overrides)
    pairs = [(problem, _with_origin(problem, origins)) for problem in validate_each(raw)[1]]
    problems += [marked for problem, marked in pairs if marked != problem]  # the others concern what the file will set
    if problems:
        raise config_error(path, problems)
    return raw


def _with_overrides(
    raw: dict[str, Any], overrides: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Origin], list[Problem]]:
    """Return the settings of a file with the overrides, the origin of each, and the problems of overrides."""
    origins: dict[str, Origin] = dict.fromkeys((name for name, _ in leaves(raw)), "file")
    raw, applied, problems = apply_overrides(raw, overrides)
    for name, value in applied:
        kept = {key: origin for key, origin in origins.items() if not f"{key}.".startswith(f"{name}.")}
        added = {name: value} if not isinstance(value, dict) or not value else dict(leaves(value, f"{name}."))
        origins = kept | dict.fromkeys(added, "--set")
    return raw, origins, problems


def _with_origin(problem: Problem, origins: dict[str, Origin]) -> Problem:
    """Mark a problem that comes from the command line, so that nobody looks for it in the file."""
    inside = [key for key, origin in origins.items() if origin == "--set" and f"{key}.".startswith(f"{problem.name}.")]
    if not inside:
        return problem
    how = ""
    if problem.name == "compile.optimizer" and problem.name not in inside:
        how = "; to change the optimizer, give all of it: --set 'compile.optimizer={sgd: {learning_rate: 0.1}}'"
    return Problem(problem.name, f"{problem.message} (from --set){how}")


def apply_overrides(
    settings: dict[str, Any], overrides: Sequence[str]
) -> tuple[dict[str, Any], list[tuple[str, Any]], list[Problem]]:
    """Return the settings with overrides applied, the name and value of each, and the problems of invalid ones."""
    applied, problems = [], []
    for override in overrides:
        try:
            name, value = _parse_override(override)
            settings = lay_over(settings, name.split("."), value)
        except ValueError as error:
            problems.append(Problem(f"--set {override}", str(error)))
        else:
            applied.append((name, value))
    return settings, applied, problems


def _parse_override(override: str) -> tuple[str, Any]:
    """Split `fit.epochs=3` into the name and the value, which is read as YAML.

    Raises:
        ValueError: it is not written this way, or the value is not YAML.
    """
    name, equals, text = override.partition("=")
    name = name.strip()
    if not equals or not all(part.strip() for part in name.split(".")):
        raise ValueError("must be written as section.setting=value, for example fit.epochs=3")
    try:
        return name, yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"the value is not YAML: {_reason(error)}") from None


def lay_over(raw: dict[str, Any], keys: Sequence[str], value: Any, before: tuple[str, ...] = ()) -> dict[str, Any]:  # noqa: ANN401
    """Return the settings with one changed; sections on the way are copied, so other uses of an alias do not change.

    Null removes a callback or an augmentation layer, since an override cannot delete a line.

    Raises:
        ValueError: a name on the way is not a section.
    """
    key, *rest = keys
    if not rest:
        if value is None and key in _REMOVED_BY_NULL.get(before, ()):
            return {other: kept for other, kept in raw.items() if other != key}
        return raw | {key: value}
    inner = {} if raw.get(key) is None else raw[key]
    here = (*before, key)
    if not isinstance(inner, dict):
        raise ValueError(f"{'.'.join(here)} has no settings inside; set it whole")
    return raw | {key: lay_over(inner, rest, value, here)}


def read_yaml(
    path: Path, example: str = "experiments/exp_001/config.yml", least: Sequence[str] = ("seed", "data.directory")
) -> dict[str, Any]:
    """Return the content of a file that holds settings.

    Args:
        path: the file.
        example: an example of the kind of file that is expected, for messages.
        least: the settings that such a file must have, for messages.

    Raises:
        ConfigError: it cannot be read, is not YAML, or holds something else.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; name a YAML file such as {example}") from None
    except IsADirectoryError:
        near = (path / Path(example).name, path.with_suffix(".yml"))
        meant = next((file for file in near if file.is_file()), example)
        raise ConfigError(f"{path}: is a folder; name a YAML file such as {meant}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not text in UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {_reason(error)}") from None
    if _holds_itself(raw, ()):
        raise ConfigError(f"{path}: holds itself through an alias (*name); write the settings out")
    if raw is None:
        raise ConfigError(f"{path}: is empty; write at least {' and '.join(least)}")
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path}: must contain settings, one per line, at least {' and '.join(least)}; got {_in_words(raw)} instead"
        )
    return raw


def _in_words(raw: Any) -> str:  # noqa: ANN401
    return {list: "a list", str: "a text", bool: "true or false"}.get(type(raw), "a single value")


def _holds_itself(value: Any, around: tuple[int, ...]) -> bool:  # noqa: ANN401
    """Return True if an alias is inside the node that it names, so that the settings would have no end."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return id(value) in around or any(_holds_itself(one, (*around, id(value))) for one in inner)


def _reason(error: Exception) -> str:
    """Return the place and the reason of a YAML error in one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark, problem = error.problem_mark, error.problem or error.context
        advice = "; indent with spaces" if "\\t" in str(problem) else ""
        return f"line {mark.line + 1}, column {mark.column + 1}: {problem}{advice}"
    return str(error).splitlines()[0] if str(error) else "not YAML"
