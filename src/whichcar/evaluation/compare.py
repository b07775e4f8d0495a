"""Experiments side by side: the results table of experiments/README.md, made from the files they left."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whichcar import files
from whichcar.errors import DataError
from whichcar.evaluation.compare_sweeps import is_search, searches_table
from whichcar.evaluation.result import FILE, read_json

BEGIN, END = "<!-- results -->", "<!-- /results -->"
HEAD = ("experiment", "top-1", "95 % interval", "top-5", "pictures", "epochs", "training", "images/s", "size", "seed")


@dataclass(frozen=True, slots=True)
class Row:
    """One experiment as its files tell it; what a missing file would hold is empty."""

    name: str
    result: dict[str, Any]
    history: list[dict[str, str]]
    settings: dict[str, Any]
    environment: dict[str, Any]
    best: dict[str, Any]


def comparison(folders: Sequence[Path]) -> str:
    """Return a Markdown table of experiments, or of searches where the folders are those of `whichcar sweep`.

    Raises:
        DataError: there is neither, or both.
    """
    return searches_table(folders) if any(map(is_search, folders)) else experiments_table(folders)


def experiments_table(folders: Sequence[Path]) -> str:
    """Return a Markdown table of the experiments among `folders`, in their order, and below it the commands.

    An experiment is a folder with a config.yml or a result.json; anything else is passed over, so that
    `experiments/*` can be given. What an experiment has not got yet is a dash. Where some differ in nothing but their
    seed, a second table has the mean and the spread of each such group.

    Raises:
        DataError: there is no experiment among them.
    """
    rows = [_read(folder) for folder in folders if any((folder / name).is_file() for name in ("config.yml", FILE))]
    if not rows:
        raise DataError(
            f"{', '.join(map(str, folders)) or 'compare'}: no experiment there; give folders of `whichcar train`"
        )
    lines = [_line(HEAD), _line(["---"] * 2 + ["---:"] * (len(HEAD) - 2))]
    lines += [_line(_cells(row)) for row in rows]
    lines += _means(rows)
    lines += ["", *(line for row in rows for line in _evidence(row))]
    return "\n".join(lines)


def write_table(readme: Path, folders: Sequence[Path], block: str = "") -> str:
    """Put the table between the markers of a Markdown file, leaving the rest as it is, and return it.

    A file without markers gets them at its end; a missing one is made. A file with several tables has markers with a
    name: `<!-- results NAME -->` for the `block` of that name.

    Raises:
        DataError: no experiment, or a table without an end.
    """
    table = comparison(folders)
    text = readme.read_text(encoding="utf-8") if readme.exists() else "# Experiments\n"
    begin, end = (mark.replace("results", f"results {block}".rstrip()) for mark in (BEGIN, END))
    if begin not in text:
        text = f"{text.rstrip()}\n\n{begin}\n{end}\n"
    before, _, rest = text.partition(begin)
    _, ended, after = rest.partition(end if end in rest else begin)
    if not ended:
        raise DataError(f"{readme}: {begin} is there but not {end} below it; add that line where the table ends")
    files.write_text(readme, f"{before}{begin}\n{table}\n{ended}{after}")
    return table


def _read(folder: Path) -> Row:
    def content(name: str) -> dict[str, Any]:
        return read_json(folder / name) if (folder / name).is_file() else {}

    history: list[dict[str, str]] = []
    if (folder / "history.csv").is_file():
        with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
            history = list(csv.DictReader(file))
    resolved = content("resolved.json")
    return Row(
        name=folder.resolve().name,
        result=content(FILE),
        history=history,
        settings=resolved.get("settings", resolved),
        environment=content("environment.json"),
        best=content("best.json"),
    )


def _cells(row: Row) -> list[str]:
    top_1, top_5 = row.result.get("top_1", {}), row.result.get("top_5", {})
    low_high = top_1.get("interval_95")
    size = row.result.get("image_size") or row.best.get("image_size")
    seconds, rate = _training(row.history)
    return [
        row.name,
        f"**{top_1['value']:.3f}**" if top_1 else "not evaluated",
        f"{low_high[0]:.3f}–{low_high[1]:.3f}" if low_high else "–",
        f"{top_5['value']:.3f}" if top_5 else "–",
        f"{top_1['of']} {row.result['data']['part']}" if top_1 else "–",
        _epochs(row),
        _duration(seconds) if seconds else "–",
        f"{rate:.1f}" if rate else "–",
        f"{size[0]} x {size[1]}" if size else "–",
        str(row.settings.get("seed", "–")),
    ]


def _means(rows: Sequence[Row]) -> list[str]:
    """Return a table of the groups of experiments that differ in nothing but their seed, if there are any."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.result and row.settings:
            same = {"settings": row.settings | {"seed": None}, "part": row.result["data"]["part"]}
            groups.setdefault(json.dumps(same, sort_keys=True), []).append(row)
    lines = []
    for group in groups.values():
        if len({row.settings.get("seed") for row in group}) > 1:
            shares = [row.result["top_1"]["value"] for row in group]
            mean, spread = f"**{statistics.mean(shares):.3f}**", f"{statistics.stdev(shares):.3f}"
            span = f"{min(shares):.3f}–{max(shares):.3f}"
            seeds = ", ".join(str(row.settings["seed"]) for row in group)
            lines.append(_line([", ".join(row.name for row in group), mean, spread, span, seeds]))
    head = ("same settings", "mean top-1", "standard deviation", "range", "seeds")
    return ["", _line(head), _line(["---"] + ["---:"] * (len(head) - 1)), *lines] if lines else []


def _epochs(row: Row) -> str:
    if not row.history:
        return "–"
    total = int(row.history[-1]["epoch"])
    best = row.best.get("epoch")
    return f"{best} of {total}" if best and best != total else str(total)


def _training(history: Sequence[dict[str, str]]) -> tuple[float, float]:
    """Return the seconds of the whole training, and pictures a second over all its steps.

    history.csv counts seconds from the beginning, so the last epoch has them all. Every epoch has the same number of
    pictures, so the rate over all is the harmonic mean of the epochs' rates.
    """
    rates = [float(epoch["images_per_second"]) for epoch in history]
    slowness = [1 / rate for rate in rates if rate > 0]  # it is NaN where nothing was timed
    return float(history[-1]["seconds"]) if history else 0.0, len(slowness) / sum(slowness) if slowness else 0.0


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _evidence(row: Row) -> list[str]:
    """Return one list item: the commands, the hardware, and how often the pictures have been used."""
    parts = []
    if command := row.environment.get("command"):
        device = ", ".join(str(row.environment[k]) for k in ("backend", "precision", "device") if k in row.environment)
        parts.append(f"`{command}`" + (f" on {device}, {row.environment.get('cores', '?')} cores" if device else ""))
    if row.result:
        times = row.result["data"]["evaluations"]
        often = "once" if times == 1 else f"{times} times"
        day = str(row.result["time"])[:10]
        part = row.result["data"]["part"]
        parts.append(
            f"`{row.result['command']}` ({day}, checkpoint `{row.result['checkpoint']['file']}`; "
            f"the {part} pictures were used {often})"
        )
    return [f"- {row.name}: {'; '.join(parts)}"] if parts else []


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
