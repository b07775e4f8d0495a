"""The options of a prediction request, from its query string or its form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError

from whichcar.config.messages import messages
from whichcar.config.section import Section
from whichcar.inference.input_crop import Vehicles
from whichcar.serving.problems import Refused
from whichcar.text import one_line, suggestion


class Options(Section):
    """The options of one request."""

    top: int = Field(5, ge=1, description="Number of classes listed per image.")
    confidence: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="The accuracy wanted: each image then has an `answer` as specific as it can be with it.",
    )
    vehicles: Vehicles | None = Field(None, description="Classify each vehicle in an image, or the largest one alone.")
    explain: bool = Field(False, description="Return where in the image the network sees the answer.")


OPTIONS: dict[str, dict[str, Any]] = {  # as JSON Schema, without null: an unused option is left out
    name: {key: value for key, value in {**schema.pop("anyOf", [{}])[0], **schema}.items() if value is not None}
    for name, schema in Options.model_json_schema()["properties"].items()
}


def options_of(given: Sequence[tuple[str, str]], description: Mapping[str, Any]) -> Options:
    """Return the options.

    Args:
        given: names and values, as text.
        description: the model's description, which limits the options.

    Raises:
        Refused: an option is unknown, given twice, out of its limits, or not supported by the model.
    """
    names = [name for name, _ in given]
    for name in names:
        if name not in OPTIONS:
            *others, last = (f"`{known}`" for known in OPTIONS)
            advice = suggestion(name, OPTIONS) or f"there are {', '.join(others)} and {last}."
            raise _wrong(f"There is no option `{one_line(name)[:60]}`; {advice}")
        if names.count(name) > 1:
            raise _wrong(f"The option `{name}` is given twice.")
    try:
        options = Options.model_validate(dict(given))
    except ValidationError as error:
        name, message = next(iter(messages(error, Options).items()))
        raise _wrong(f"`{name}` {one_line(message)}{'' if message.endswith('?') else '.'}") from error
    known, wanted = description["confidences"], options.confidence
    if wanted is not None and not known:
        raise _wrong(
            "No accuracy can be promised with this model: it is not calibrated, or too few of its validation images "
            "were correct; leave `confidence` out."
        )
    if wanted is not None and wanted > max(known):
        raise _wrong(f"`confidence` may be up to {max(known):g} with this model; got {wanted:g}.")
    if options.vehicles is not None and not description["vehicles"]:
        raise _wrong("This server takes images as they are (--no-crop); leave `vehicles` out.")
    return options.model_copy(update={"top": min(options.top, len(description["class_names"]))})


def _wrong(sentence: str) -> Refused:
    return Refused(422, sentence, "option")
