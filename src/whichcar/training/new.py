"""A new experiment for a dataset: facts about the images, the speed of this machine, and a commented `config.yml`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from whichcar import files
from whichcar.config.backbones import DEFAULT, KERAS, backbone_name
from whichcar.config.load import CONFIGS
from whichcar.data.split.tree import Tree, check_outside, locate, read_tree
from whichcar.data.split_record import read_record
from whichcar.environment import expanded
from whichcar.errors import ConfigError, DataError, ImageError, TrainingError, WhichcarError
from whichcar.images.read import read_size
from whichcar.parallel import ordered_map
from whichcar.text import one_line, plural, shell_command
from whichcar.training.budget import Facts, Speed
from whichcar.training.hardware import Hardware, is_out_of_memory, prepare
from whichcar.training.network.backbones import has_classifier
from whichcar.training.recipe import Choice, choose
from whichcar.training.throughput import measure
from whichcar.training.weights import check_weights

# Sections that are written over several lines.
_SECTIONS = {"data", "model", "model.data_aug_layer", "compile", "fit", "fit.callbacks", "recipe"}
_SECTIONS |= {"fit.callbacks.model_checkpoint"}
VALIDATION, SEED = 0.2, 123
_LOOKS = 200  # images whose size is read


@dataclass(frozen=True)
class New:
    """A new experiment: its settings file, the minutes its training is expected to take, and a remark or ""."""

    config: Path
    minutes: float
    remark: str


def new(
    experiment: str | Path,
    data: str | Path,
    minutes: float = 60,
    weights: str | None = "imagenet",
    overwrite: bool = False,
    backbone: str = DEFAULT,
) -> New:
    """Write a commented `config.yml` for a dataset, based on its images, this machine and the time available.

    Args:
        experiment: the experiment's folder, created if missing.
        data: a folder with one folder per class, or with train/ (and validation/, test/).
        minutes: duration of training, with decoding, validation and checkpoints; less if more would not help.
        weights: `imagenet`, None for random weights, or a path, as `model.weights`.
        overwrite: replace an existing config.
        backbone: a network of `keras.applications`, as `model.backbone`.

    Raises:
        ConfigError: a config exists, the minutes do not suffice, there is no such backbone, or the weights cannot be
            downloaded.
        CheckpointError: the weights file does not exist or belongs to another network.
        DataError: the data folder is not usable, or the experiment would lie among its classes.
        MissingExtraError: Keras or a backend is not installed.
        TrainingError: memory ran out.
        OSError: a checkpoint does not fit into the folder for temporary files.
    """
    folder = expanded(experiment)
    if not 0 < minutes < float("inf"):
        raise ConfigError(f"minutes must be more than 0; got {minutes:g}")
    backbone = _known(backbone, folder)
    _check_free(folder, overwrite)
    check_outside(folder, expanded(data))
    tree, share = _tree(expanded(data))
    facts = _facts(tree, backbone)
    start = time.perf_counter()
    hardware = prepare(devices="auto", batch_size=facts.batch_size)
    imports = time.perf_counter() - start
    try:
        check_weights(weights)
        speed = measure(facts, weights, tree, hardware, imports)
        facts = replace(facts, has_classifier=has_classifier(backbone, weights))
    except ConfigError as error:
        ways = (
            "(`new --weights PATH`, `train --set model.weights=PATH`), or train from random weights, which takes far "
            "more images (`--weights none`)"
        )
        raise ConfigError(f"{error} {ways}") from error
    except Exception as error:
        if isinstance(error, WhichcarError) or not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"{folder}: out of memory in steps of {plural(facts.batch_size, 'image')} on {hardware.all_devices}; close "
            "other programs, or use a smaller network (`new --backbone NAME`, `train --set model.backbone=NAME`)"
        ) from error
    choice = choose(facts, speed, minutes, str(data), weights, share)
    config = folder / files.CONFIG
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(config, _text(choice, _heading(config, tree, facts, hardware, speed, choice, minutes)))
    return New(config, choice.minutes, choice.remark)


def _known(backbone: str, folder: Path) -> str:
    """Return the canonical name of a network of `keras.applications`."""
    try:
        name = backbone_name(backbone)
    except ValueError as error:
        raise ConfigError(f"model.backbone: {error}") from error
    if name not in KERAS:
        raise ConfigError(
            "model.backbone: settings are chosen for networks of keras.applications only; for the preset "
            f"{name}, write {folder / files.CONFIG} by hand"
        )
    return name


def _check_free(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; give a folder for the experiment")
    there = next((folder / name for name in CONFIGS if (folder / name).exists()), None)
    if there and not overwrite:
        raise ConfigError(f"{there}: is there already; give another folder, or replace it with --overwrite")
    files.check_writable(folder / files.CONFIG)


def _tree(data: Path) -> tuple[Tree, float]:
    """Return the dataset and the validation share of train: as recorded, else a fifth."""
    record = read_record(locate(data).root)
    share = (record or {}).get("validation_share")
    share = VALIDATION if share is None else share
    return read_tree(data, share, SEED), share


def _facts(tree: Tree, backbone: str) -> Facts:
    """Count the images, and read the size of some of them.

    Raises:
        DataError: none of those can be read.
    """
    paths = [sample.path for sample in tree.train]
    chosen = paths[:: max(1, -(-len(paths) // _LOOKS))]
    found = list(ordered_map(_side, chosen))
    sides = [side for side in found if isinstance(side, int)]
    if not sides:
        raise DataError(f"{tree.root}: none of {plural(len(chosen), 'image')} can be read; the first: {found[0]}")
    side = round(statistics.median(sides))
    return Facts(len(tree.class_folders), len(tree.train), len(tree.validation), side, backbone=backbone)


def _side(path: Path) -> int | str:
    try:
        return min(read_size(path))
    except ImageError as error:
        return one_line(error)


def _heading(
    config: Path, tree: Tree, facts: Facts, hardware: Hardware, speed: Speed, choice: Choice, minutes: float
) -> Iterator[str]:
    """Yield the lines of the heading: question, command, and what was counted and measured."""
    settings = choice.settings
    size = settings["data"]["image_size"][0]
    rate = 1 / (speed.train(size, facts.batch_size))
    yield f"Question: how accurate is {facts.backbone} on {one_line(tree.root)} after {minutes:g} minutes of training?"
    yield f"Command:  {shell_command(['whichcar', 'train', config.parent])}"
    epochs = plural(settings["fit"]["epochs"], "epoch")
    yield f"Expected: about {plural(max(1, round(choice.minutes)), 'minute')} for {epochs}."
    yield (
        f"Data:     {plural(facts.classes, 'class')}, {facts.train:,} training and {facts.validation:,} validation "
        f"images; the shorter side of the median image is {facts.side} pixels."
    )
    yield (
        f"Machine:  {hardware.all_devices}, {hardware.cores} cores, {hardware.backend}, {hardware.precision}: "
        f"{rate:.1f} images/s in training and {1 / speed.predict(size):.1f} in prediction at "
        f"{size}x{size}, from measured steps."
    )
    if choice.remark:
        yield f"Remark:   {choice.remark}."


def _text(choice: Choice, heading: Iterator[str]) -> str:
    """Return the file's text: the heading and each section, with the reason for a setting in the line above it."""
    lines = [f"# {line}" for line in heading]
    for section, content in choice.settings.items():
        lines += ["", *_lines(section, content, choice.reasons, section, "")]
    return "\n".join(lines) + "\n"


def _lines(key: str, value: Any, reasons: dict[str, str], name: str, indent: str) -> Iterator[str]:  # noqa: ANN401
    if name in reasons:
        yield f"{indent}# {reasons[name]}"
    if isinstance(value, dict) and name in _SECTIONS:
        yield f"{indent}{key}:"
        for inner, content in value.items():
            yield from _lines(inner, content, reasons, f"{name}.{inner}", f"{indent}  ")
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield f"{indent}{key}:"
        yield from (f"{indent}  - {_flow(item)}" for item in value)
    else:
        yield f"{indent}{key}: {_flow(value)}"


def _flow(value: Any) -> str:  # noqa: ANN401
    """Return a value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9)
    return text.removesuffix("\n").removesuffix("\n...")
