"""Write the tables that the documentation takes from the program: `python docs/generate.py`.

A table lies between `<!-- NAME -->` and `<!-- /NAME -->`; a test compares each with what this module returns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from click.testing import CliRunner

from whichcar.cli.main import whichcar
from whichcar.config.backbones import KERAS
from whichcar.config.section import Section, shown
from whichcar.data.check.issues import ISSUES
from whichcar.detection.families import FAMILIES
from whichcar.detection.zoo import ENTRIES
from whichcar.environment import VARIABLES
from whichcar.search import sweep_file

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def markdown(columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ("---",) * len(columns), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def settings() -> str:
    """Return the output of `whichcar config`."""
    return CliRunner().invoke(whichcar, ["config"]).output


def commands() -> str:
    """Return every command with the first line of its help."""
    rows = ((f"`whichcar {name}`", command.get_short_help_str(200)) for name, command in whichcar.commands.items())
    return markdown(("command", "purpose"), rows)


def variables() -> str:
    """Return the environment variables."""
    return markdown(("variable", "meaning"), ((f"`{name}`", meaning) for name, meaning in VARIABLES.items()))


def issues() -> str:
    """Return what `whichcar check` can find."""
    rows = ((f"`{issue.name}`", issue.severity, issue.meaning) for issue in ISSUES.values())
    return markdown(("issue", "severity", "meaning"), rows)


def detectors() -> str:
    """Return the detectors that have a name."""
    rows = (
        (f"`{entry.name}`", entry.family, f"{entry.side} x {entry.side}", entry.average_precision, entry.licence)
        for entry in ENTRIES
    )
    return markdown(("name", "project", "input", "COCO box AP", "licence"), rows)


def families() -> str:
    """Return the families of detectors that are read, with the input that each expects."""
    rows = ((f"`{family.name}`", family.projects, family.describe(), family.classes) for family in FAMILIES.values())
    return markdown(("family", "projects", "input", "classes"), rows)


def backbones() -> str:
    """Return the networks of `keras.applications` that `model.backbone` names."""
    rows = (
        (f"`{name}`", f"`{backbone.keras_name}`", len(backbone.stages), backbone.accuracy or "")
        for name, backbone in KERAS.items()
    )
    return markdown(("`model.backbone`", "`keras.applications`", "stages", "ImageNet top-1, %"), rows)


def sweep() -> str:
    """Return the settings of a sweep file."""
    sections: tuple[tuple[str, type[Section]], ...] = (
        ("", sweep_file.Sweep),
        ("space.NAME.", sweep_file.Parameter),
        ("objective.", sweep_file.Objective),
        ("budget.", sweep_file.Budget),
        ("sampler.", sweep_file.Sampler),
        ("pruner.", sweep_file.Pruner),
    )
    rows = []
    for prefix, section in sections:
        for name, field in section.model_fields.items():
            default = field.get_default()
            value = "required" if field.is_required() else "" if isinstance(default, Section) else shown(default)
            rows.append((f"`{prefix}{name}`", value, field.description))
    return markdown(("setting", "default", "meaning"), rows)


TABLES: dict[str, Callable[[], str]] = {
    table.__name__: table for table in (settings, commands, variables, issues, backbones, detectors, families, sweep)
}


def filled(text: str) -> str:
    """Return a page with each of its tables as the program has it now."""

    def table(found: re.Match[str]) -> str:
        return f"{found[1]}\n{TABLES[found[2]]()}{found[3]}" if found[2] in TABLES else found[0]

    return re.sub(r"(<!-- (\w+) -->)\n.*?(<!-- /\2 -->)", table, text, flags=re.DOTALL)


if __name__ == "__main__":
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        if (after := filled(before)) != before:
            page.write_text(after, encoding="utf-8")
