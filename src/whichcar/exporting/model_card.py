"""The model card of a bundle, as Markdown and as HTML: its intended use, how good the model is, and where it fails.

Its sections follow Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from whichcar.evaluation.levels import TOP
from whichcar.exporting.images import NOISE
from whichcar.exporting.verify import Verification
from whichcar.inference.bundle import Bundle
from whichcar.pages.render import percent, render_page
from whichcar.text import one_line, plural

SHOWN = 5  # hardest classes and confused pairs


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the card: sentences, then a table whose first row has the column names."""

    title: str
    sentences: tuple[str, ...]
    table: tuple[tuple[str, ...], ...] = ()


def with_card(
    bundle: Bundle, verification: Verification, result: Mapping[str, Any] | None, notes: Sequence[str] = ()
) -> Bundle:
    """Return a bundle with its model card and the measurements of its network.

    Args:
        bundle: the bundle that the card describes.
        verification: the measurements of its network.
        result: the content of the experiment's result.json; None if it was not evaluated.
        notes: further sentences.
    """
    bundle = replace(bundle, metrics=verification.as_json())
    sections = list(_sections(bundle, verification, result))
    if notes:
        sections.insert(2, Section("Notes", tuple(map(one_line, notes))))
    page = render_page("model_card", bundle.name, sections=sections, time=bundle.created)
    return replace(bundle, card=_markdown(bundle.name, sections), page=page)


def form_rows(verification: Verification) -> list[tuple[str, ...]]:
    """Return the table of a verification: the column names, then one row per form of the network."""
    rows: list[tuple[str, ...]] = [
        ("network", "MB", "images/s", "same answer", "largest difference", "accuracy", "log loss")
    ]
    for form in verification.forms:
        rows.append(
            (
                form.name,
                f"{form.size / 1e6:.1f}",
                f"{form.images_per_second:.1f}",
                f"{form.agreeing.correct} of {form.agreeing.total}",
                f"{form.difference:.1g}",
                percent(form.top_1.value) if form.top_1 else "-",
                f"{form.log_loss:.4f}" if form.log_loss is not None else "-",
            )
        )
    return rows


def verified_on(verification: Verification) -> str:
    """Return one sentence about the images of a verification."""
    count = verification.forms[0].agreeing.total
    if verification.split == NOISE:
        return "The dataset is not on this machine: compared on noise; accuracy is not verified."
    sentence = f"Compared on {plural(count, f'{verification.split} image')}"
    if verification.trained_on:
        return f"{sentence}, which the network was trained on: the accuracy on them says nothing about other images."
    return f"{sentence}."


def _sections(bundle: Bundle, verification: Verification, result: Mapping[str, Any] | None) -> Iterator[Section]:
    height, width = bundle.image_size
    whole = "whole images" if bundle.crop is None else "images cropped to the detected object"
    classes = plural(len(bundle.class_names), "class")
    subject = "the make, model and year of the vehicle" if bundle.taxonomy else "the class of the object"
    yield Section(
        "Model",
        (
            f"An image classifier with {classes}, such as {one_line(bundle.class_names[0])}.",
            f"Backbone {bundle.backbone}, {bundle.precision}, trained with Keras on {whole}.",
            f"Input: RGB, uint8, resized to {height} x {width} (height x width). Output: one probability a class.",
            f"Licence: {one_line(bundle.licence)}.",
        ),
    )
    yield Section(
        "Intended use",
        (
            f"Predicting {subject} that an image shows, if it fills most of the image.",
            "Not for decisions about persons, as evidence, or for identifying an individual object or its owner.",
        ),
    )
    yield from _metrics(result)
    yield Section(
        "The exported network",
        (
            verified_on(verification),
            "Same answer and largest difference (of a probability) compare with the first row. "
            f"Speed: {verification.processor}, {plural(verification.cores, 'core')}, images in memory.",
        ),
        tuple(form_rows(verification)),
    )
    yield _limits(bundle, result)
    versions = ", ".join(f"{name} {version}" for name, version in bundle.versions.items())
    yield Section("Made with", (f"{versions}.", f"Data: {_fingerprints(bundle)}."))


def _metrics(result: Mapping[str, Any] | None) -> Iterator[Section]:
    if result is None:
        none = "The bundle holds no result of `whichcar evaluate`, which uses images that it was not trained on."
        yield Section("Metrics", (none,))
        return
    data = result["data"]
    rows = [("metric", "value", "95 % interval")]
    shown = {"top_1": "top-1 accuracy"} | ({"top_5": "top-5 accuracy"} if len(result["classes"]) > TOP else {})
    for key, name in shown.items():
        low, high = result[key]["interval_95"]
        rows.append((name, percent(result[key]["value"]), f"{100 * low:.1f}–{percent(high)}"))
    rows += [("mean recall of the classes", percent(result["mean_recall"]), "")]
    rows += [("log loss", f"{result['log_loss']:.3f}", "")]
    noun = "image" if data["split"] == "images" else f"{data['split']} image"
    yield Section(
        "Metrics",
        (
            f"The checkpoint on {plural(data['images'], noun)}, fingerprint {data['fingerprint']}; "
            f"evaluated on them {plural(data['evaluations'], 'time')}.",
            *(f"Warning: {one_line(warning)}." for warning in result.get("warnings") or ()),
        ),
        tuple(rows),
    )


def _limits(bundle: Bundle, result: Mapping[str, Any] | None) -> Section:
    sentences = [
        "It knows only its classes: an image of anything else gets one of them too.",
        "Its data have one label an image; other countries, years and conditions than theirs are not covered.",
    ]
    if bundle.crop is not None:
        sentences.append(
            "It expects images cropped to the detected object; `whichcar predict` crops them first, other programs "
            "must do so themselves."
        )
    if result is None:
        return Section("Limits", tuple(sentences))
    present = [row for row in result["classes"] if row["images"]]
    hardest = sorted(present, key=lambda row: (row["recall"], row["f1"]))[:SHOWN]
    if hardest:
        listed = ", ".join(f"{one_line(row['name'])} ({row['recall']:.0%})" for row in hardest)
        sentences.append(f"Lowest recall: {listed}.")
    rows = [
        (one_line(pair["label"]), one_line(pair["predicted"]), f"{pair['count']} of {pair['total']}")
        for pair in result["most_confused"][:SHOWN]
    ]
    return Section("Limits", tuple(sentences), (("label", "predicted", "images"), *rows) if rows else ())


def _fingerprints(bundle: Bundle) -> str:
    return ", ".join(f"{split} {digest}" for split, digest in bundle.fingerprints.items()) or "not recorded"


def _markdown(name: str, sections: Sequence[Section]) -> str:
    lines = [f"# {_escaped(name)}", ""]
    for section in sections:
        lines += [f"## {section.title}", "", *(f"- {_escaped(sentence)}" for sentence in section.sentences), ""]
        for number, row in enumerate(section.table):
            lines.append(f"| {' | '.join(map(_escaped, row))} |")
            lines += [f"|{'---|' * len(row)}"] if number == 0 else []
        lines += [""] if section.table else []
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Escape a text, so that Markdown shows it unchanged."""
    for mark in "\\*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return text
