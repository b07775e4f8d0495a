"""Images annotated with the box and the answer of each vehicle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw, ImageFont

from whichcar.images.pixels import Pixels
from whichcar.records import Box, Prediction, Skipped
from whichcar.text import one_line, shortened

# Light colours of Okabe and Ito's palette, which colour-blind people can distinguish, with dark edges and dark text, so
# that they stand out in any image.
_COLOURS = ("#E69F00", "#56B4E9", "#F0E442", "#2BD4A7", "#FF7F50", "#E79AC8")
_DARK, _LIGHT = "#111111", "#FFFFFF"
_SMALLEST_TEXT = 12


def annotate(image: Pixels, rows: Iterable[Prediction | Skipped]) -> Image.Image:
    """Return an image with a box and a label for each row of `Classifier.predict(..., vehicles=...)`.

    A label has the vehicle's number, if there are several, and the answer with its probability; if there is no room,
    only the number or, without one, the probability.

    Args:
        image: (height, width, 3) uint8 RGB, upright.
        rows: the rows of this image; a skipped one is annotated with its reason.
    """
    drawing, rows = _Drawing(Image.fromarray(image)), list(rows)
    shown = [(row, row.crop.box) for row in rows if isinstance(row, Prediction) and row.crop and row.crop.box]
    for number, (_, box) in enumerate(shown):
        drawing.box(box, _COLOURS[number % len(_COLOURS)])
    for number, (row, box) in enumerate(shown):
        drawing.label(box, _captions(row, len(shown)), _COLOURS[number % len(_COLOURS)])
    for note in [row.reason for row in rows if isinstance(row, Skipped)]:
        drawing.label(Box(0, 0, *drawing.image.size), [note], _LIGHT)
    return drawing.image


def captioned(image: Image.Image, caption: str) -> Image.Image:
    """Return an image with a caption in its upper left corner."""
    drawing = _Drawing(image.copy())
    drawing.label(Box(0, 0, *image.size), [caption], _LIGHT)
    return drawing.image


def _captions(row: Prediction, vehicles: int) -> list[str]:
    """Return the caption, and a shorter one to use if there is no room for it."""
    answer = row.answer
    name, probability = (row.best, row.probabilities[0]) if answer is None else (answer.name, answer.probability)
    certainty = "" if answer is not None and not answer.level else f" {probability:.0%}"
    number = f"{row.crop.number} " if vehicles > 1 and row.crop and row.crop.number else ""
    return [f"{number}{one_line(name)}{certainty}", number.strip() or certainty.strip()]


class _Drawing:
    """An image being drawn on, and the places of its boxes and labels."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self._pen = ImageDraw.Draw(image)
        side = min(image.size)
        self._line = max(2, round(side / 250))
        self._text = max(_SMALLEST_TEXT, round(side / 28))
        self._boxes: list[Box] = []
        self._labels: list[Box] = []

    def box(self, box: Box, colour: str) -> None:
        self._boxes.append(box)
        edges = (box.left, box.top, box.right - 1, box.bottom - 1)
        self._pen.rectangle(edges, outline=_DARK, width=self._line + 2)
        inner = (edges[0] + 1, edges[1] + 1, max(edges[0] + 1, edges[2] - 1), max(edges[1] + 1, edges[3] - 1))
        self._pen.rectangle(inner, outline=colour, width=self._line)

    def label(self, box: Box, captions: Sequence[str], colour: str) -> None:
        """Write the first caption with room in or next to the box; else the last one in the box's corner.

        The text shrinks before its label covers another box; labels never cover each other, except in that corner.
        """
        boxes = [other for other in self._boxes if other != box]
        sizes = (self._text, (self._text + _SMALLEST_TEXT) // 2, _SMALLEST_TEXT)
        tries = [*((size, boxes) for size in sizes), (_SMALLEST_TEXT, [])]
        for caption in filter(None, captions):
            for largest, others in tries:
                text, font, width, height = self._fitted(caption, largest)
                for left, top in self._places(box, width, height):
                    place = Box(left, top, left + width, top + height)
                    if top >= 0 and place.bottom <= self.image.height and _is_free(place, self._labels + others):
                        self._write(place, text, font, colour)
                        return
        left, top = min(box.left, self.image.width - width), min(box.top, self.image.height - height)
        self._write(Box(left, top, left + width, top + height), text, font, colour)

    def _fitted(self, caption: str, size: int) -> tuple[str, ImageFont.FreeTypeFont | ImageFont.ImageFont, int, int]:
        """Return the caption, in smaller letters or shortened to fit the image's width, its font and the label size."""
        while True:
            font = ImageFont.load_default(size)
            width, height = self._extent(caption, font)
            if width <= self.image.width or size == _SMALLEST_TEXT:
                break
            size = max(_SMALLEST_TEXT, min(size - 1, size * self.image.width // width))
        text, most = caption, len(caption)
        while width > self.image.width and most > 1:
            most -= 1
            text = shortened(caption, most)
            width = self._extent(text, font)[0]
        return text, font, width, height

    def _extent(self, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> tuple[int, int]:
        _, _, right, _ = self._pen.textbbox((0, 0), text, font=font)
        _, _, _, bottom = self._pen.textbbox((0, 0), "Ág", font=font)  # the same height for every text
        return round(right) + 3 * self._line + 2, round(bottom) + 2 * self._line

    def _places(self, box: Box, width: int, height: int) -> Iterable[tuple[int, int]]:
        left = max(0, min(box.left, self.image.width - width))
        right = max(0, min(box.right - width, self.image.width - width))
        for top in (box.top - height, box.top, box.bottom - height, box.bottom):
            yield left, top
            yield right, top

    def _write(self, place: Box, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, colour: str) -> None:
        self._labels.append(place)
        edges = (place.left, place.top, place.right - 1, place.bottom - 1)
        self._pen.rectangle(edges, fill=colour, outline=_DARK)
        self._pen.text((place.left + 1.5 * self._line + 1, place.top + self._line), text, fill=_DARK, font=font)


def _is_free(place: Box, occupied: Iterable[Box]) -> bool:
    return not any(
        place.left < other.right and other.left < place.right and place.top < other.bottom and other.top < place.bottom
        for other in occupied
    )
