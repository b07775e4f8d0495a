"""Reading an experiment's YAML file: one read, every mistake reported at once, in plain words."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from whichcar.config import Experiment
from whichcar.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that refuses a key written twice instead of keeping the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if key in seen and key != "<<":
                raise ConfigError(f"line {line}: `{key}` is written twice, first in line {seen[key]}; keep one")
            seen[key] = line
        return super().construct_mapping(node, deep)


def load_config(path: str | Path) -> dict[str, Any]:
    """Return a YAML file as a dict, as it is written, once `seed`, `data` and `data.directory` are known to be there.

    Raises:
        ConfigError: (a ValueError) the file cannot be read, is no mapping, or lacks one of the three.
    """
    raw = _read(Path(path))
    data = raw.get("data")
    missing = [key for key in ("seed", "data") if raw.get(key) is None]
    if data is not None and (not isinstance(data, dict) or data.get("directory") is None):
        missing.append("data.directory")
    if missing:
        raise _problems(Path(path), [f"{key}: missing; add it" for key in missing])
    return raw


def read_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Return the checked settings of a YAML file, with `overrides` such as `fit.epochs=3` laid over it."""
    raw = _read(Path(path))
    for override in overrides:
        name, _, text = override.partition("=")
        *sections, last = name.strip().split(".")
        here = raw
        for section in sections:
            here = here.setdefault(section, {})
        here[last] = yaml.safe_load(text)
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}; got {e['input']}" for e in error.errors()]
        raise _problems(Path(path), lines) from None


def _problems(path: Path, lines: Sequence[str]) -> ConfigError:
    count = f"{len(lines)} problem{'s' if len(lines) > 1 else ''}"
    return ConfigError("\n".join([f"{path}: {count}", *(f"  {line}" for line in lines)]))


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)  # noqa: S506  (a SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must hold settings such as `seed: 123`; got {type(raw).__name__}")
    return raw
