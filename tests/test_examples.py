"""Every example that is printed can be pasted: its options exist, and its settings go with the file it names."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from whichcar.cli.main import whichcar
from whichcar.config.load import config_in, read_experiment
from whichcar.config.table import describe_settings
from whichcar.search.space import read_spec

from .documented import described

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "experiments" / name for name in ("README.md", "LOG.md")]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


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


def blocks(language: str = "") -> list[str]:
    """Return the fenced blocks of all pages that have this language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [block for name, block in fenced if name == language]


def of_pages() -> Iterator[str]:
    for block in blocks():
        yield from re.findall(r"^(?:\$ )?(whichcar .+)$", block.replace("\\\n", ""), re.MULTILINE)


def options() -> set[str]:
    """Return the options of all commands."""
    contexts = [(command, click.Context(command)) for _, command in commands(whichcar, "")]
    return {
        option
        for command, context in contexts
        for one in command.get_params(context)
        for option in (*one.opts, *one.secondary_opts)
    }


def inline() -> set[str]:
    """Return what stands between backticks in the text of all pages."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)))


HELP, EXPERIMENTS, SHOWN = (sorted({*found}) for found in (of_help(), of_experiments(), of_pages()))
NEW = Path("experiments/mine")
OTHERS = {"--user", "--gpus", "--logdir", "--xla_gpu_deterministic_ops"}  # Docker's, TensorBoard's and XLA's


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
    spec = read_spec(path.parents[1].with_suffix(".yml"))
    (folder / "config.yml").write_text(yaml.safe_dump(spec.settings_of({})))
    return folder / "config.yml"


def runs(line: str, folder: Path) -> bool:
    """True when the example's command and options exist, and the file it names takes its settings."""
    context = parsed(line)
    given = context.params
    if context.info_name in ("config", "train"):
        file = given.get("file") or given.get("config")
        if file and file.parts[0] != "data" and file != NEW:  # a dataset, and the experiment of `whichcar new`
            read_experiment(file_of(file, folder), given["overrides"])
    elif context.info_name == "sweep":
        limits = {"budget.trials": given["trials"], "budget.minutes": given["minutes"], "parallel": given["parallel"]}
        read_spec(given["file"], given["overrides"], {key: value for key, value in limits.items() if value is not None})
    return True


@pytest.mark.parametrize("line", [*HELP, *EXPERIMENTS])
def test_an_example_runs_as_printed(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert runs(line, tmp_path)


@pytest.mark.parametrize("line", SHOWN)
def test_a_command_of_the_pages_runs_as_printed(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert runs(line, tmp_path)


def test_commands_and_options_in_the_text_exist() -> None:
    named = inline()
    lines = [shlex.split(text)[1:] for text in named if text.startswith("whichcar ")]
    known = {name for name, _ in commands(whichcar, "whichcar")} | {"whichcar COMMAND", "whichcar look"}
    wrong = [words for words in lines if " ".join(["whichcar", *words[:1]]) not in known and words[0][:2] != "--"]
    shown = {word for text in named if "pip " not in text for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)}
    assert len(lines) > 20 and len(shown) > 20
    assert (wrong, shown - options() - OTHERS) == ([], set())


def test_make_targets_and_extras_that_are_shown_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    shown = {name for text in [*inline(), *blocks()] for name in re.findall(r"^make ([a-z]+)", text, re.MULTILINE)}
    assert {"demo", "test", "docs"} <= shown <= targets
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    listed = re.findall(r"(?:whichcar|'\.)\[([\w,]+)\]", TEXT)
    assert len(listed) > 3 and {name for names in listed for name in names.split(",")} <= extras.keys()


@pytest.mark.parametrize("code", blocks("python"))
def test_python_that_is_shown_calls_what_exists(code: str) -> None:
    tree = ast.parse(code)
    package = importlib.import_module("whichcar")
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    known = {alias.name: importlib.import_module(node.module or "") for node in imports for alias in node.names}
    called = [(node, ast.unparse(node.func)) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    public = [(node, package, name.removeprefix("whichcar.")) for node, name in called if name.startswith("whichcar.")]
    public += [(node, known[name], name) for node, name in called if name in known]
    assert public or "import keras" in code  # shows that Keras alone can load a checkpoint
    for node, module, name in public:
        assert module is not package or name in package.__all__
        parameters = inspect.signature(getattr(module, name)).parameters
        taken = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        assert taken or {keyword.arg for keyword in node.keywords} <= parameters.keys()


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_sweep_file_that_is_shown_is_valid(text: str, tmp_path: Path) -> None:
    base = ROOT / "experiments" / "exp_003" / "config.yml"
    (tmp_path / "sweep.yml").write_text(text.replace("../exp_003/config.yml", str(base)))
    assert len(read_spec(tmp_path / "sweep.yml").space) == 5


def test_a_setting_that_is_named_exists() -> None:
    settings = {setting.name for setting in describe_settings()}
    sections = {name.split(".")[0] for name in settings} - {"seed"}
    named = {text for text in inline() if re.fullmatch(rf"({'|'.join(sections)})\.[\w.]+", text)}
    fields = {f"data.{name}" for name in described()["result.json"]}
    assert len(named) > 20 and named - fields - settings == {"model.fit", "model.tflite"}  # of Keras; a file


def test_examples_of_all_commands_were_found() -> None:
    named = {line.split()[1] for line in HELP}
    assert named == set(whichcar.commands)
    assert len(EXPERIMENTS) >= 8
    assert {line.split()[1] for line in SHOWN} >= set(whichcar.commands) - {"demo", "detectors", "cache"}
    assert len(blocks("python")) >= 4 and len(blocks("yaml")) == 1
    assert "whichcar train experiments/exp_003/config.yml --set fit.epochs=3" in HELP


def test_a_wrong_example_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for line in (
        "whichcar train experiments/exp_003/config.yml --set fit.epoch=3",
        "whichcar train experiments/exp_999/config.yml",
        "whichcar train experiments/exp_003/config.yml --no-such",
        "whichcar sweep experiments/sweeps/fast.yml --set fit.epochs=0",
        "whichcar nothing",
    ):
        with pytest.raises((ValueError, click.UsageError, AssertionError)):
            runs(line, tmp_path)
