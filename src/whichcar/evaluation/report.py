"""The evaluation as one page: report.html needs no other file and no network, and fits a telephone."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from whichcar import files
from whichcar.errors import ImageError
from whichcar.evaluation.result import TOP, Misclassified, Result
from whichcar.images.read import read_image
from whichcar.metrics import ClassScore, Confusion, Proportion
from whichcar.text import one_line, plural

THUMBNAIL = 320  # the longer side in pixels: twice what a column is wide, for sharp screens

STYLE = Path(__file__).with_name("report.css")


def write_report(result: Result) -> Path:
    """Write report.html into the result's folder, its plots from `plots/` inside it, and return its path."""
    name = _text(result.origin.experiment)
    style = STYLE.read_text(encoding="utf-8")
    sections = [
        _head(result),
        _mistakes(result.misclassified, len(result.misclassified) < result.top_1.total - result.top_1.correct),
        _confused(result.confused),
        _matrix(result.folder / files.PLOTS / "confusion.png"),
        _classes(result.classes),
        _reliability(result.folder / files.PLOTS / "reliability.png"),
        _curves(result.folder / files.CURVES),
        _unreadable(result),
        _origin(result),
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{name} {_percent(result.top_1.value)} – whichcar</title><style>\n{style}</style></head>\n"
        f"<body><main>\n{chr(10).join(filter(None, sections))}\n</main></body></html>\n"
    )
    path = result.folder / files.REPORT
    files.write_text(path, page)
    return path


def _text(text: object) -> str:
    """Return a text for the page: on one line, and nothing in it is taken for markup."""
    return escape(one_line(text))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"


def _interval(share: Proportion) -> str:
    low, high = share.interval
    return f"{100 * low:.1f}–{100 * high:.1f}\u00a0%"


def _head(result: Result) -> str:
    origin, top = result.origin, result.top_1
    present = len(result.classes) - len(result.absent)
    facts = [
        ("95 % interval", _interval(top)),
        *([("top-5", _percent(result.top_5.value))] if len(result.classes) > TOP else []),
        ("mean over classes", _percent(result.mean_recall)),
        ("log loss", f"{result.log_loss:.3f}"),
        ("classes", f"{present} of {len(result.classes)}" if result.absent else str(present)),
        ("images a second", f"{top.total / result.seconds:.1f}"),
    ]
    shown = "".join(f"<div><b>{_text(value)}</b><span class=soft>{_text(name)}</span></div>" for name, value in facts)
    times = "once" if origin.evaluations == 1 else f"{origin.evaluations} times"
    skipped = f" {len(result.unreadable)} more could not be read and are not counted." if result.unreadable else ""
    absent = f" {plural(len(result.absent), 'class')} without an image here." if result.absent else ""
    warnings = "".join(f"<p class=warning>Warning: {_text(text)}</p>" for text in result.warnings)
    return (
        f"<h1>{_text(origin.experiment)}</h1><div class=head>{_percent(top.value)}</div>"
        f"<p>correct on {top.correct} of {_text(plural(top.total, _what(origin.split)))}.{skipped}{absent} "
        f"This experiment has been evaluated on them {times}.</p>{warnings}<div class=facts>{shown}</div>"
    )


def _what(part: str) -> str:
    return "image" if part == "pictures" else f"{part} image"


def _mistakes(mistakes: Sequence[Misclassified], more: bool) -> str:
    if not mistakes:
        return ""
    shown = "".join(f for f in map(_mistake, mistakes) if f)
    note = " Every mistake is in predictions.csv." if more else ""
    text = f"<p class=soft>Wrong with the highest probability.{note}</p>"
    return f"<h2>Most confident mistakes</h2>{text}<div class=grid>{shown}</div>"


def _mistake(mistake: Misclassified) -> str:
    try:
        source = _thumbnail(mistake.path)
    except ImageError:  # gone since it was classified
        return ""
    return (
        f'<figure><img alt="{_text(mistake.label)}" loading=lazy src="{source}"><figcaption>'
        f"<small>said</small> <span class=said>{_text(mistake.predicted)}</span> {_percent(mistake.probability)}<br>"
        f"<small>is</small> <span class=truth>{_text(mistake.label)}</span> {_percent(mistake.label_probability)}<br>"
        f"<small>{_text(mistake.path.name)}</small></figcaption></figure>"
    )


def _thumbnail(path: Path) -> str:
    image = Image.fromarray(read_image(path, at_least=(THUMBNAIL, THUMBNAIL)))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return _data_uri(buffer.getvalue(), "image/jpeg")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a heading that begins with `#` is of a column of numbers, with `-` of one for wide screens."""
    kinds = [{"#": "n", "-": "n wide", "=": "bar wide"}.get(name[:1], "") for name in head]
    titles = "".join(
        f'<th class="{kind}">{_text(name.lstrip("#-="))}</th>' for name, kind in zip(head, kinds, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f'<td class="{kind}">{cell}</td>' for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<div class=scroll><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"


def _confused(pairs: Sequence[Confusion]) -> str:
    if not pairs:
        return ""
    rows = [
        (_text(pair.label), _text(pair.predicted), str(pair.count), _percent(pair.count / pair.total)) for pair in pairs
    ]
    head = ("true class", "taken for", "#images", "-of the class")
    return f"<h2>Most confused</h2>{_table(head, rows)}"


def _matrix(path: Path) -> str:
    text = "<p class=soft>Rows are true classes, columns answers. Press it for full size.</p>"
    return f"<h2>Confusion matrix</h2>{text}{_plot(path, 'confusion matrix', zoom=True)}"


def _reliability(path: Path) -> str:
    return (
        "<h2>How far to trust the probability</h2>"
        "<p class=soft>On the dashed line, answers given with 80\u00a0% are right 8 times in 10; above it the "
        "classifier is better than it says, below it worse. Numbers count images.</p>"
        f"{_plot(path, 'share right by probability')}"
    )


def _curves(path: Path) -> str:
    return f"<h2>Training</h2>{_plot(path, 'loss and accuracy by epoch')}" if path.is_file() else ""


def _plot(path: Path, text: str, zoom: bool = False) -> str:
    image = f'<img alt="{text}" src="{_data_uri(path.read_bytes(), "image/png")}">'
    if not zoom:
        return f"<div class=plot>{image}</div>"
    return f'<div class=plot><input type=checkbox id=z aria-label="full size"><label for=z>{image}</label></div>'


def _classes(scores: Sequence[ClassScore]) -> str:
    ordered = sorted((s for s in scores if s.total), key=lambda s: (s.recall, s.f1, s.name))
    rows = [
        (
            _text(s.name),
            f'<i style="--share:{s.recall:.1%}"></i>',
            _percent(s.recall),
            f"{s.correct} of {s.total}",
            _percent(s.precision),
            f"{s.f1:.2f}",
        )
        for s in ordered
    ]
    head = ("class", "=", "#recall", "#right", "-precision", "-F1")
    return f"<h2>By class, worst first</h2>{_table(head, rows)}"


def _unreadable(result: Result) -> str:
    if not result.unreadable:
        return ""
    rows = [(_text(row.path), _text(row.reason)) for row in result.unreadable[:50]]
    more = "<p class=soft>All are in predictions.csv.</p>" if len(result.unreadable) > 50 else ""
    return f"<h2>Not readable, not counted: {len(result.unreadable)}</h2>{_table(('image', 'reason'), rows)}{more}"


def _origin(result: Result) -> str:
    origin = result.origin
    rows = {
        "command": f"<code>{_text(origin.command)}</code>",
        "made": _text(origin.time),
        "checkpoint": f"{_text(origin.checkpoint)} <span class=soft>BLAKE2b {origin.checkpoint_checksum}</span>",
        "image size": f"{origin.image_size[0]} x {origin.image_size[1]}, resized, not cropped",
        "pictures": f"{_text(plural(result.top_1.total, _what(origin.split)))} of {_text(origin.data_root)}",
        "their digest": f"<span class=soft>{origin.fingerprint}</span>",
        "hardware": _text(", ".join(f"{name} {value}" for name, value in origin.hardware.items())),
        "versions": _text(", ".join(f"{name} {value}" for name, value in origin.versions.items())),
    }
    shown = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows.items())
    return f"<h2>Where these numbers come from</h2><dl>{shown}</dl>"
