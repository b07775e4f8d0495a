"""The evaluation as a self-contained page: report.html needs no other files and no network access."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup

from whichcar import files
from whichcar.evaluation.levels import TOP
from whichcar.evaluation.result import Origin, Result
from whichcar.evaluation.result_folder import is_bundle
from whichcar.metrics import ClassScore
from whichcar.pages.lines import Line, line_chart
from whichcar.pages.render import percent, render_page, scoped, write_page


def write_report(result: Result) -> Path:
    """Write report.html, with the plots from `plots/`, to the result's folder and return its path."""
    return write_page(result.folder / files.REPORT, "report", result.origin.experiment, **_context(result))


def report_parts(result: Result) -> dict[str, str]:
    """Return the parts of the page by heading, as HTML for a notebook; "" is the part above the first heading."""
    page = render_page("report", result.origin.experiment, **_context(result))
    head, *parts = page.partition("<main class=narrow>")[2].partition("<footer>")[0].split("<h2>")
    pairs = [part.split("</h2>", 1) for part in parts]
    return {"": scoped(head)} | {heading: scoped(content) for heading, content in pairs}


def _context(result: Result) -> dict[str, Any]:
    return dict(
        result=result,
        plots=result.folder / files.PLOTS,
        curves=result.folder / files.CURVES,
        command=result.origin.command,
        time=result.origin.time,
        facts=list(_facts(result)),
        counted="model" if is_bundle(Path(result.origin.checkpoint)) else "experiment",
        framing=_framing(result.origin),
        lowest_first=_lowest_first,
        coverage=_coverage(result),
        reliability=_reliability(result),
        more_errors=len(result.misclassified) < result.top_1.total - result.top_1.correct,
    )


def _lowest_first(scores: Iterable[ClassScore]) -> list[ClassScore]:
    """Return the scores of the classes that have images, lowest recall first."""
    return sorted((score for score in scores if score.total), key=lambda score: (score.recall, score.f1, score.name))


def _coverage(result: Result) -> Markup:
    levels = [score for score in result.levels if score.name in ("class", "model", "make")]
    lines = [
        Line(score.name, [(row.accuracy.total / result.top_1.total, row.accuracy.value) for row in score.coverage])
        for score in levels
    ]
    return line_chart(lines, "share of images answered", "accuracy")


def _reliability(result: Result) -> Markup:
    lines = []
    for score in result.levels[:1]:
        for name, certainty in (("calibrated", score.after), ("as the network gives it", score.before)):
            if certainty is not None:
                most = max(count for _, _, count in certainty.reliability)
                points = [(probability, accuracy) for probability, accuracy, _ in certainty.reliability]
                lines.append(Line(name, points, [count / most for _, _, count in certainty.reliability]))
    return line_chart(lines, "probability of the predicted class", "accuracy", diagonal=True)


def _framing(origin: Origin) -> str:
    """Return in words how much of each photo the images show."""
    given = "cropped to the vehicle by whichcar crop" if origin.crops else "as they are in it"
    return (
        given if origin.crop is None else f"{given}, cropped for this evaluation by {origin.crop['detector']['name']}"
    )


def _facts(result: Result) -> Iterator[tuple[str, str]]:
    low, high = result.top_1.interval
    present = len(result.classes) - len(result.absent)
    yield "95 % interval", f"{100 * low:.1f}–{percent(high)}"
    if result.before_refit:
        yield "before refit", percent(result.before_refit.value)
    if len(result.classes) > TOP:
        yield "top-5", percent(result.top_5.value)
    yield "mean over classes", percent(result.mean_recall)
    yield "log loss", f"{result.log_loss:.3f}"
    yield "classes", f"{present} of {len(result.classes)}" if result.absent else str(present)
    yield "images per second", f"{result.top_1.total / result.seconds:.1f}"
