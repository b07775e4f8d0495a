"""The options of a prediction request, from its address or its form."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from whichcar.inference.input_crop import Vehicles
from whichcar.serving.problems import Refused
from whichcar.text import one_line

OPTIONS: dict[str, dict[str, Any]] = {
    "top": {"type": "integer", "minimum": 1, "default": 5, "description": "Number of classes listed per image."},
    "confidence": {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "description": "The accuracy wanted: each image then has an `answer` as specific as it can be with it.",
    },
    "vehicles": {
        "type": "string",
        "enum": list(get_args(Vehicles)),
        "description": "Classify each vehicle in an image, or the largest one alone.",
    },
    "explain": {
        "type": "boolean",
        "default": False,
        "description": "Return where in the image the network sees the answer.",
    },
}
_TRUE, _FALSE = ("true", "1"), ("false", "0")


@dataclass(frozen=True, slots=True)
class Options:
    """Those of one request."""

    top: int = 5
    confidence: float | None = None
    vehicles: Vehicles | None = None
    explain: bool = False


def options_of(given: Sequence[tuple[str, str]], description: Mapping[str, Any]) -> Options:
    """Return the options.

    Args:
        given: names and values, as text.
        description: of the model, which limits them.

    Raises:
        Refused: one is not known, given twice, or out of its limits.
    """
    values: dict[str, str] = {}
    for name, value in given:
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, 1)
            *others, last = (f"`{known}`" for known in OPTIONS)
            advice = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(others)} and {last}."
            raise _wrong(f"There is no option `{one_line(name)[:60]}`; {advice}")
        if name in values:
            raise _wrong(f"The option `{name}` is given twice.")
        values[name] = value
    top = _whole(values.get("top", "5"))
    confidence = _accuracy(values["confidence"], description) if "confidence" in values else None
    vehicles = _vehicles(values["vehicles"], description) if "vehicles" in values else None
    return Options(
        min(top, len(description["class_names"])), confidence, vehicles, _boolean(values.get("explain", "0"))
    )


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise _wrong(f"`top` is a whole number from 1 on; got `{one_line(text)[:60]}`.")
    return int(text)


def _accuracy(text: str, description: Mapping[str, Any]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise _wrong(f"`confidence` is a number between 0 and 1; got `{one_line(text)[:60]}`.")
    known = description["confidences"]
    if not known:
        raise _wrong("This model is not calibrated, so no accuracy can be promised; leave `confidence` out.")
    if value > max(known):
        raise _wrong(f"`confidence` may be up to {max(known):g} with this model; got {value:g}.")
    return value


def _vehicles(text: str, description: Mapping[str, Any]) -> Vehicles:
    for known in get_args(Vehicles):
        if text == known:
            if not description["vehicles"]:
                raise _wrong("This server takes images as they are (--no-crop); leave `vehicles` out.")
            wanted: Vehicles = known
            return wanted
    raise _wrong(f"`vehicles` is all or largest; got `{one_line(text)[:60]}`.")


def _boolean(text: str) -> bool:
    if text not in _TRUE + _FALSE:
        raise _wrong(f"`explain` is true or false; got `{one_line(text)[:60]}`.")
    return text in _TRUE


def _wrong(sentence: str) -> Refused:
    return Refused(422, sentence, "option")
