"""What the README shows is what the program does."""

import re
import tomllib
from pathlib import Path

from click.testing import CliRunner

from whichcar.cli.main import whichcar

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_settings_is_the_programs_own() -> None:
    shown = README.split("<!-- settings -->\n")[1].split("<!-- /settings -->")[0]
    assert shown == CliRunner().invoke(whichcar, ["config"]).output


def test_every_command_is_in_the_table_of_commands() -> None:
    listed = set(re.findall(r"^\| `whichcar (\w+)", README, re.MULTILINE))
    assert listed == set(whichcar.commands)


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {re.split(r"[\s\[<>=;]", line)[0].lower() for line in wanted}
    table = README.split("## Dependencies, and why")[1].split("\n## ")[0].lower()
    assert {name for name in names if name not in table} == set()


def test_every_module_is_in_the_layout() -> None:
    layout = README.split("## Layout")[1].split("\n## ")[0]
    missing = []
    for path in sorted((ROOT / "src" / "whichcar").rglob("*.py")):
        known = re.search(rf"\b{path.stem}\b", layout) or any(
            path.stem.startswith(start) for start in re.findall(r"\b(\w+)\*", layout)
        )
        if not path.stem.startswith("__") and not known:
            missing.append(path.name)
    assert missing == []
