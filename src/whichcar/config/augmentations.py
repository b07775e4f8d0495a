"""The augmentation layers a YAML file may name, and their parameters, as in Keras 3.15 but in snake case.

The table is written out so that a mistake is found without loading Keras; a test compares it with Keras itself.
It omits layers that are settings of the recipe (mixup, CutMix, RandAugment) and those that also act at prediction
(cropping, resizing, equalization), since training and prediction share one preprocessing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, create_model

from whichcar.config.section import Section, as_number, shown


def _within(low: float, high: float, *, open_low: bool = False, optional: bool = False) -> Any:  # noqa: ANN401
    """Return the type of one number, or of two as [lowest, highest], within the limits."""
    limits = f"above {low:g} and at most {high:g}" if open_low else f"between {low:g} and {high:g}"

    def fits(number: object) -> bool:
        if isinstance(number, bool) or not isinstance(number, int | float):
            return False
        return low <= number <= high and not (open_low and number == low)

    def check(value: object) -> object:
        if value is None and optional:
            return None
        parts = [as_number(part) for part in value] if isinstance(value, list | tuple) else [as_number(value)]
        if not all(map(fits, parts)) or (isinstance(value, list | tuple) and len(parts) != 2):
            raise ValueError(f"must be a number, or two as [lowest, highest], {limits}; got {shown(value)}")
        return parts if isinstance(value, list | tuple) else parts[0]

    return Annotated[Any, BeforeValidator(check)]


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError(f"must be odd; got {number}")
    return number


_Spread = _within(-1, 1)  # one number x means [-x, x]
_Share = _within(0, 1)
_Strength = Annotated[float, Field(ge=0, le=1)]
_Pair = tuple[float, float]

_SEED: dict[str, Any] = {"seed": int | None}
_COLOUR: dict[str, Any] = {"value_range": _Pair, **_SEED}
_WARP: dict[str, Any] = {
    "fill_mode": Literal["constant", "nearest", "reflect", "wrap"],
    "fill_value": float,
    "interpolation": Literal["nearest", "bilinear"],
    **_SEED,
}


def _layer(needed: dict[str, Any] | None = None, **optional: Any) -> type[Section]:  # noqa: ANN401
    """Return the section of one layer; omitted parameters use the defaults of Keras, which are not repeated here."""
    fields: dict[str, Any] = {key: (kind, ...) for key, kind in (needed or {}).items()}
    fields |= {key: (kind, None) for key, kind in {**optional, "name": str}.items()}
    return create_model("Layer", __base__=Section, **fields)


AUGMENTATIONS: dict[str, type[Section]] = {
    "random_flip": _layer(mode=Literal["horizontal", "vertical", "horizontal_and_vertical"], **_SEED),
    "random_rotation": _layer({"factor": _Spread}, **_WARP),
    "random_zoom": _layer(
        {"height_factor": _within(-1, 1, open_low=True)},
        width_factor=_within(-1, 1, open_low=True, optional=True),
        **_WARP,
    ),
    "random_translation": _layer({"height_factor": _Spread, "width_factor": _Spread}, **_WARP),
    "random_shear": _layer(x_factor=_Share, y_factor=_Share, **_WARP),
    "random_erasing": _layer(factor=_Share, scale=_Share, fill_value=float | None, **_COLOUR),
    "random_brightness": _layer({"factor": _Spread}, **_COLOUR),
    "random_contrast": _layer({"factor": _Share}, **_COLOUR),
    "random_hue": _layer({"factor": _Share}, **_COLOUR),
    "random_saturation": _layer({"factor": _Share}, **_COLOUR),
    "random_sharpness": _layer({"factor": _Share}, **_COLOUR),
    "random_color_jitter": _layer(
        brightness_factor=_Spread, contrast_factor=_Share, saturation_factor=_Share, hue_factor=_Share, **_COLOUR
    ),
    "random_gaussian_blur": _layer(
        factor=_Share, kernel_size=Annotated[int, Field(ge=1), AfterValidator(_odd)], sigma=_Share, **_COLOUR
    ),
    "random_grayscale": _layer(factor=_Strength, **_SEED),
}

AllAugmentations: type[Section] = create_model(
    "AllAugmentations",
    __base__=Section,
    **{name: (layer, Field(None)) for name, layer in AUGMENTATIONS.items()},  # type: ignore[call-overload]
)


def checked(layers: Any) -> Any:  # noqa: ANN401
    """Return the layers with their parameters as numbers and lists, in the order they were written.

    Raises:
        ValidationError: a layer or a parameter is unknown, missing or outside the range that Keras accepts.
    """
    if not isinstance(layers, dict):
        return layers
    known = AllAugmentations.model_validate(layers)
    return {name: getattr(known, name).model_dump(exclude_unset=True, mode="json") for name in layers}
