"""A results table of experiments, such as the one in experiments/README.md, built from the files in their folders."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from whichcar import files
from whichcar.config.load import as_texts
from whichcar.errors import DataError
from whichcar.evaluation.compare.markdown import replace_table, table
from whichcar.evaluation.compare.paired import paired_table
from whichcar.evaluation.compare.row import Row, read_row
from whichcar.evaluation.compare.searches import is_search, searches_table
from whichcar.evaluation.levels import TOP
from whichcar.text import shell_command
from whichcar.training.run.refits import current_refit

# Files that identify a folder as an experiment.
MARKS = (files.CONFIG, files.RESOLVED, files.RESULT)
_GIVE = "give folders of `whichcar train`, or of `whichcar sweep`"
# Up to this many settings that differ are shown as columns; more are listed below the table.
COLUMNS = 4
# Further columns of the table of means over seeds: macro F1 over classes, and top-1 accuracy at other levels.
_FIGURES = ("macro F1", "model", "make")


def compare(folders: str | Path | Iterable[str | Path], against: str | Path | None = None) -> str:
    """Return a Markdown table of experiments, or of searches if the folders were written by `whichcar sweep`.

    Args:
        folders: one or several; folders that are neither an experiment nor a search are skipped.
        against: an experiment that every other one is tested against, image by image.

    Raises:
        DataError: the folders contain neither, or both, or `against` is given for searches.
    """
    paths = [Path(folder) for folder in ([folders] if isinstance(folders, str | Path) else folders)]
    if gone := [str(path) for path in paths if not path.exists()]:
        raise DataError(f"{', '.join(gone)}: no such folder; {_GIVE}")
    if against is not None and not Path(against).exists():
        raise DataError(f"--against {against}: no such folder; give that of an experiment")
    searches = [path for path in paths if is_search(path)]
    if not searches:
        return experiments_table(paths, None if against is None else Path(against))
    if against is not None:
        raise DataError(f"--against {against}: searches are not tested against each other; give experiments")
    if other := next((path for path in paths if _is_experiment(path) and path not in searches), None):
        raise DataError(f"{other}: is not a search; give folders of `whichcar sweep` or those of `whichcar train`")
    return searches_table(searches)


def write_table(readme: Path, folders: Sequence[Path], block: str = "", against: Path | None = None) -> str:
    """Write the table into a Markdown file, between its markers (`replace_table`), and return it.

    Raises:
        DataError: there is no experiment, no such file, or no markers in it.
    """
    content = compare(folders, against)
    replace_table(readme, content, block)
    return content


def experiments_table(folders: Sequence[Path], against: Path | None = None) -> str:
    """Return a Markdown table of the experiments among `folders`, in the order given, followed by their commands.

    An experiment is a folder with a config.yml, a resolved.json or a result.json; anything else is skipped, so that
    `experiments/*` can be given. Missing values are shown as a dash. If an experiment has not been evaluated, the table
    also shows validation accuracy. A refit has a row below its experiment's. Differing settings are columns if they are
    few, otherwise lists below the table. If some experiments differ only in their seed, a second table has the mean and
    the spread of each such group.

    Args:
        folders: the folders to look at.
        against: an experiment that every other one is tested against, image by image, in a separate table.

    Raises:
        DataError: there is no experiment among them, or none that can be tested against `against`.
    """
    if against is not None and against.resolve() not in [folder.resolve() for folder in folders]:
        folders = [against, *folders]
    rows = [read_row(folder) for folder in _with_refits(folders) if _is_experiment(folder)]
    if not rows:
        raise DataError(_no_experiment(folders))
    differing = _differing(rows)
    columns = _columns(rows) | (differing if len(differing) <= COLUMNS else {})
    lines = table(list(columns), list(zip(*columns.values(), strict=True)), left=2)
    lines += _means(rows)
    lines += ["", *paired_table([row.folder for row in rows], against)] if against is not None else []
    lines += ["", *(line for row in rows for line in _evidence(row))]
    if len(differing) > COLUMNS:
        lines += ["", "Settings that differ:", "", *_listed(rows, differing)]
    return "\n".join(lines)


def _is_experiment(folder: Path) -> bool:
    return any((folder / name).is_file() for name in MARKS)


def _with_refits(folders: Iterable[Path]) -> list[Path]:
    """Return the folders, each followed by that of its current refit, without duplicates."""
    both = [path for folder in folders for path in (folder, current_refit(folder)) if path is not None]
    return list({path.resolve(): path for path in both}.values())


def _no_experiment(folders: Sequence[Path]) -> str:
    """Return the message for folders that are neither an experiment nor a search; it names those inside them."""
    if not folders:
        return f"no experiment in experiments/ of this folder; {_GIVE}"
    names = (*MARKS, files.SWEEP)
    within = [one for folder in folders if folder.is_dir() for one in sorted(folder.iterdir())]
    inside = [one for one in within if any((one / name).is_file() for name in names)]
    advice = f"compare those in it: {shell_command(['whichcar', 'compare', *inside[:5]])}" if inside else _GIVE
    return f"{', '.join(map(str, folders))}: neither an experiment nor a search ({' or '.join(names)}); {advice}"


def _columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the columns that every table has, each with a cell for every experiment.

    The validation column is dropped if all are evaluated, and top-5 if none has more than five classes.
    """
    cells = [_cells(row) for row in rows]
    dropped = {"validation"} if all(row.result for row in rows) else set()
    if any(row.result for row in rows) and all(one["top-5"] == "–" for one in cells):
        dropped.add("top-5")
    return {name: [one[name] for one in cells] for name in cells[0] if name not in dropped}


def _cells(row: Row) -> dict[str, str]:
    top_1, top_5 = row.result.get("top_1", {}), row.result.get("top_5", {})
    classes = len(row.result.get("classes", ()))
    low_high = top_1.get("interval_95")
    size = row.result.get("image_size") or row.best.get("image_size")
    validation = row.best.get("val_accuracy")  # null if no images were held out
    return {
        "experiment": row.name,
        "top-1": f"**{top_1['value']:.3f}**" if top_1 else "not evaluated",
        "95 % interval": f"{low_high[0]:.3f}–{low_high[1]:.3f}" if low_high else "–",
        "top-5": f"{top_5['value']:.3f}" if top_5 and classes > TOP else "–",
        "images": f"{top_1['total']} {row.result['data']['split']}" if top_1 else "–",
        "validation": "–" if validation is None else f"{validation:.3f}",
        "epochs": _epochs(row),
        "training": _duration(row.seconds) if row.seconds else "–",
        "images/s": f"{row.images_per_second:.1f}" if row.images_per_second else "–",
        "size": f"{size[0]} x {size[1]}" if size else "–",
        "seed": str(row.settings.get("seed", "–")),
    }


def _differing(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the settings, except the seed, in which experiments differ, with the value of each or a dash.

    An experiment without a resolved.json has dashes and is not compared. A section that is off in some experiments is
    represented by the settings inside it. `model.input_shape` is left out, since `data.image_size` says the same.
    """
    known = [as_texts(row.settings) for row in rows]
    trained = [settings for settings in known if settings]
    names = list(dict.fromkeys(name for settings in trained for name in settings))
    found = {}
    for name in names:
        is_section = any(other.startswith(f"{name}.") for other in names)
        if is_section or name in ("seed", "model.input_shape"):
            continue
        if len({settings.get(name) for settings in trained}) > 1:
            found[f"`{name}`"] = [settings.get(name, "–") for settings in known]
    return found


def _listed(rows: Sequence[Row], differing: dict[str, list[str]]) -> Iterator[str]:
    """Yield a list item for each experiment with those of the differing settings that it has."""
    for place, row in enumerate(rows):
        values = [f"{name[:-1]}: {cells[place]}`" for name, cells in differing.items() if cells[place] != "–"]
        if values:
            yield f"- {row.name}: {', '.join(values)}"


def _means(rows: Sequence[Row]) -> list[str]:
    """Return a table of the groups that differ only in their seed and have the same test images, if there are any.

    Validation images are not compared, since the seed may draw them.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.result and row.settings:
            data = row.result["data"]
            images = data["fingerprint"] if data["split"] == "test" else data["split"]
            same = {"settings": row.settings | {"seed": None}, "images": images}
            groups.setdefault(json.dumps(same, sort_keys=True), []).append(row)
    cells = []
    for group in groups.values():
        if len({row.settings.get("seed") for row in group}) > 1:
            shares = [row.result["top_1"]["value"] for row in group]
            mean, spread = f"**{statistics.mean(shares):.3f}**", f"{statistics.stdev(shares):.3f}"
            span = f"{min(shares):.3f}–{max(shares):.3f}"
            seeds = ", ".join(str(row.settings["seed"]) for row in group)
            figures = [_figures(row.result) for row in group]
            spreads = [_spread([one[name] for one in figures if name in one], len(group)) for name in _FIGURES]
            cells.append([", ".join(row.name for row in group), mean, spread, span, *spreads, seeds])
    head = ("same settings", "mean top-1", "standard deviation", "range", *_FIGURES, "seeds")
    columns = [column for column in zip(head, *cells, strict=True) if set(column[1:]) != {"–"}]
    shown = list(zip(*columns, strict=True))
    return ["", *table(shown[0], shown[1:], left=1)] if cells else []


def _figures(result: dict[str, Any]) -> dict[str, float]:
    """Return the top-1 accuracy of each level and the macro F1 over classes, as far as a result has them."""
    levels = {level["name"]: level for level in result.get("levels", ()) if "macro" in level}
    found = {name: level["top_1"]["value"] for name, level in levels.items()}
    return found | ({"macro F1": levels["class"]["macro"]["f1"]["value"]} if "class" in levels else {})


def _spread(values: Sequence[float], count: int) -> str:
    """Return mean and standard deviation; a dash if there are fewer values than experiments."""
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}" if len(values) == count else "–"


def _epochs(row: Row) -> str:
    if not row.history:
        return "–"
    total = row.history[-1].epoch
    best = row.best.get("epoch")
    return f"{best} of {total}" if best and best != total else str(total)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _evidence(row: Row) -> list[str]:
    """Return one list item: the commands, the hardware, and how often the images have been used."""
    parts = []
    if command := row.environment.get("command"):
        device = ", ".join(str(row.environment[k]) for k in ("backend", "precision", "device") if k in row.environment)
        parts.append(f"`{command}`" + (f" on {device}, {row.environment.get('cores', '?')} cores" if device else ""))
    if row.result:
        often = "once" if row.uses == 1 else f"{row.uses} times"
        day = str(row.result["time"])[:10]
        split = row.result["data"]["split"]
        images = split if split == "images" else f"{split} images"
        parts.append(
            f"`{row.result['command']}` ({day}, checkpoint `{row.result['checkpoint']['file']}`; "
            f"the {images} were used {often})"
        )
        best = row.best.get("blake2b")
        if best and row.result["checkpoint"].get("blake2b", best) != best:
            again = f"run: `{shell_command(['whichcar', 'evaluate', row.folder])}`"
            advice = f"delete {row.folder / files.RESULT}" if current_refit(row.folder) else again
            parts.append(f"warning: the result is of another checkpoint than best.json names; {advice}")
        parts += [f"warning: {warning}" for warning in row.result.get("warnings", [])]
    return [f"- {row.name}: {'; '.join(parts)}"] if parts else []
