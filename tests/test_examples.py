"""Every example that is printed can be pasted: its options exist, and its settings go with the file it names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from whichcar.cli.main import whichcar
from whichcar.config.load import read_experiment
from whichcar.search.space import read_plan
from whichcar.training.run.folder import config_in

ROOT = Path(__file__).parents[1]


def commands(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, group
    for inner in group.commands.values():
        if isinstance(inner, click.Group):
            yield from commands(inner, f"{name} {inner.name}")
        else:
            yield f"{name} {inner.name}", inner


def of_help() -> Iterator[str]:
    for name, command in commands(whichcar, "whichcar"):
        with click.Context(command, info_name=name) as context:
            yield from re.findall(r"^ +(?:[^:\n]*\| )?(whichcar .+)$", command.get_help(context), re.MULTILINE)


def of_experiments() -> Iterator[str]:
    for path in sorted((ROOT / "experiments").rglob("*.yml")):
        yield from re.findall(r"^# +(?:Command: +)?(whichcar .+)$", path.read_text(encoding="utf-8"), re.MULTILINE)


def of_readme() -> Iterator[str]:
    for block in re.findall(r"^```\w*\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S):
        yield from re.findall(r"^(whichcar .+)$", block, re.MULTILINE)


HELP, EXPERIMENTS, README = (sorted({*found}) for found in (of_help(), of_experiments(), of_readme()))


def parsed(line: str) -> click.Context:
    """Parse an example as the command would."""
    words = shlex.split(re.split(r" [|>]", line)[0], comments=True)[1:]
    command: click.Command = whichcar
    name = "whichcar"
    while words and isinstance(command, click.Group) and words[0] in command.commands:
        name = words.pop(0)
        command = command.commands[name]
    assert not isinstance(command, click.Group) or not words, f"{line}: no command {words}"
    return command.make_context(name, words)


def file_of(path: Path, folder: Path) -> Path:
    """The file an example names; for the best settings of a search, those of its base."""
    if path.parent.name != "best":
        return config_in(path)
    plan = read_plan(path.parents[1].with_suffix(".yml"))
    (folder / "config.yml").write_text(yaml.safe_dump(plan.settings_of({})))
    return folder / "config.yml"


def runs(line: str, folder: Path) -> bool:
    """True when the example's command and options exist, and the file it names takes its settings."""
    context = parsed(line)
    given = context.params
    if context.info_name in ("config", "train"):
        file = given.get("file") or given.get("config")
        if file:
            read_experiment(file_of(file, folder), given["overrides"])
    elif context.info_name == "sweep":
        limits = {"budget.trials": given["trials"], "budget.minutes": given["minutes"], "parallel": given["parallel"]}
        read_plan(given["file"], given["overrides"], {key: value for key, value in limits.items() if value is not None})
    return True


@pytest.mark.parametrize("line", [*HELP, *EXPERIMENTS])
def test_an_example_runs_as_printed(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert runs(line, tmp_path)


@pytest.mark.parametrize("line", README)
def test_a_command_of_the_readme_is_one(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert parsed(line).info_name in whichcar.commands


def test_examples_of_all_commands_were_found() -> None:
    named = {line.split()[1] for line in HELP}
    assert named == set(whichcar.commands)
    assert len(EXPERIMENTS) >= 8
    assert len(README) > 8
    assert "whichcar train experiments/exp_003/config.yml --set fit.epochs=3" in HELP


def test_a_wrong_example_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for line in (
        "whichcar train experiments/exp_003/config.yml --set fit.epoch=3",
        "whichcar train experiments/exp_004/config.yml",
        "whichcar train experiments/exp_003/config.yml --no-such",
        "whichcar sweep experiments/sweeps/fast.yml --set fit.epochs=0",
        "whichcar nothing",
    ):
        with pytest.raises((ValueError, click.UsageError, AssertionError)):
            runs(line, tmp_path)
