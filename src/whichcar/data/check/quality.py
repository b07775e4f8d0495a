"""Measure and judge image quality with cleanvision: dark, bright, blurry, blank, or an odd aspect ratio.

The scan decodes an image once; cleanvision's own loop over files would read it again in each of its two passes.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from whichcar.errors import extra
from whichcar.images.pixels import Pixels

MEASURES = ("brightness_perc_5", "brightness_perc_99", "entropy", "blurriness", "blurriness_grayscale_std")
# cleanvision's name for each issue, and the name in issues.csv.
_JUDGED = {
    "dark": "dark",
    "light": "bright",
    "low_information": "blank",
    "blurry": "blurry",
    "odd_aspect_ratio": "odd_aspect",
}


def measure(image: Pixels) -> tuple[float, ...]:
    """Return the values of `MEASURES` for an image, (height, width, 3) uint8.

    Raises:
        MissingExtraError: cleanvision is not installed.
    """
    pil_image = Image.fromarray(image)
    values: dict[str, float] = {}
    for name in ("dark", "low_information", "blurry"):
        values |= _manager().image_properties[name].calculate(pil_image)
    return tuple(float(values[name]) for name in MEASURES)


def judge(
    measures: npt.NDArray[np.float64], aspects: npt.NDArray[np.float64]
) -> Mapping[str, tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]]:
    """Return, for each issue, which images have it, and their scores (0 worst ... 1 best).

    Args:
        measures: (images, 5), as `measure` returns them.
        aspects: (images,), the shorter side divided by the longer.
    """
    import pandas as pd

    table = pd.DataFrame(measures, columns=list(MEASURES)).assign(aspect_ratio=aspects)
    judged = {}
    for name, issue in _JUDGED.items():
        judging, parameters = _manager().image_properties[name], _manager().params[name]
        with np.errstate(over="ignore"), warnings.catch_warnings():
            # cleanvision sets values in a slice of the table, which pandas warns about; this copy is discarded.
            warnings.simplefilter("ignore")
            scores = judging.get_scores(table[judging.score_columns].copy(), name, **parameters)
        marked = judging.mark_issue(scores, name, parameters["threshold"])
        judged[issue] = (marked.iloc[:, 0].to_numpy(bool), scores.iloc[:, 0].to_numpy(float))
    return judged


@functools.cache
def _manager() -> Any:  # noqa: ANN401  (cleanvision's)
    with extra("cleanvision", "check"):
        from cleanvision.issue_managers.image_property_issue_manager import ImagePropertyIssueManager
    return ImagePropertyIssueManager()


def grey(thumbnail: npt.NDArray[np.float64]) -> bool:
    """Return True if a thumbnail, (height, width, 3), has no colours."""
    return bool(np.ptp(thumbnail, axis=2).max() <= 2)
