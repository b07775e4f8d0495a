"""A results table of searches, made from their trials.csv and sweep.json."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whichcar.errors import DataError
from whichcar.evaluation.compare.markdown import table
from whichcar.files import SWEEP, TRIALS, read_json
from whichcar.text import reason_of


@dataclass(frozen=True, slots=True)
class Search:
    """One search, read from its files. `minutes` is the total of all trials, `best` the best complete trial's value."""

    name: str
    settings: dict[str, Any]
    outcomes: Counter[str]
    epochs: int
    minutes: float
    best: float | None


def is_search(folder: Path) -> bool:
    """Return True if the folder was written by `whichcar sweep`."""
    return (folder / SWEEP).is_file() and (folder / TRIALS).is_file()


def searches_table(folders: Sequence[Path]) -> str:
    """Return a Markdown table of searches in the order given, followed by their commands.

    Raises:
        DataError: the files of a search are damaged.
    """
    searches = [_read(folder) for folder in folders]
    metrics = {search.settings["metric"] for search in searches}
    best_of = f"best {' or '.join(sorted(metrics))}"
    counted = ("trials", "complete", "pruned", "failed", best_of, "epochs", "minutes of trials", "share of the longest")
    head = ("search", "sampler", "pruner", *counted)
    longest = max(search.minutes for search in searches) or 1.0
    cells = []
    for search in searches:
        counts = (search.outcomes.total(), *(search.outcomes[name] for name in ("complete", "pruned", "failed")))
        best = "–" if search.best is None else f"**{search.best:.3f}**"
        cost = (str(search.epochs), f"{search.minutes:.1f}", f"{search.minutes / longest:.2f}")
        who = (search.name, search.settings["sampler"], search.settings["pruner"])
        cells.append([*who, *map(str, counts), best, *cost])
    commands = [f"- {search.name}: `{search.settings['command']}`" for search in searches]
    return "\n".join([*table(head, cells, left=3), "", *commands])


def _read(folder: Path) -> Search:
    texts = dict.fromkeys(("metric", "sampler", "pruner", "command"), str)
    fix = "run the same `whichcar sweep` again, which writes it again"
    settings = read_json(folder / SWEEP, {**texts, "maximize": bool}, fix)
    try:
        with (folder / TRIALS).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        values = [float(row["value"]) for row in rows if row["outcome"] == "complete"]
        return Search(
            name=folder.resolve().name,
            settings=settings,
            outcomes=Counter(row["outcome"] for row in rows),
            epochs=sum(int(row["epochs"] or 0) for row in rows),
            minutes=sum(float(row["seconds"]) for row in rows) / 60,
            best=(max if settings["maximize"] else min)(values) if values else None,
        )
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder / TRIALS}: damaged, not the rows that a search writes ({reason_of(error)}); {fix}"
        ) from error
