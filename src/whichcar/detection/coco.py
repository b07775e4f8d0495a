"""The classes of COCO, in the three numberings that detectors use."""

from __future__ import annotations

# The 80 annotated classes in order (Lin et al. 2014).
NAMES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard"),
    *("cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors"),
    *("teddy bear", "hair drier", "toothbrush"),
)
# COCO's own category numbers run to 90; these eleven, and 0, are unused.
UNUSED = frozenset({0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83})


def names_of(count: int) -> tuple[str, ...] | None:
    """Return the class names of a detector with `count` classes; None if COCO has no numbering of that size.

    80: the annotated classes in order. 91: COCO's category numbers, with `""` for the unused ones. 90: the same
    without 0.
    """
    in_order = iter(NAMES)
    numbered = tuple("" if number in UNUSED else next(in_order) for number in range(91))
    return {80: NAMES, 90: numbered[1:], 91: numbered}.get(count)
