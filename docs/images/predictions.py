"""Draw predictions.png: test images with the detected vehicle, the predicted class and its probability.

Usage: python docs/images/predictions.py SPLIT CROPPED EXPERIMENT, where CROPPED was made from SPLIT by `whichcar crop`,
and EXPERIMENT was trained on CROPPED and evaluated. Made from 480 drawn images (320 x 240) with a head on the frozen
ImageNet backbone (160 pixels, 30 epochs, 0.80 accuracy on 120 test images). The images are evenly spaced in
predictions.csv.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

TILE, CAPTION, ACROSS, COUNT = (320, 240), 58, 4, 8
GREEN, RED, INK = (22, 130, 62), (190, 30, 45), (60, 60, 60)


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main(split: Path, cropped: Path, experiment: Path) -> None:
    """Write predictions.png next to this file."""
    boxes = {row["path"]: row for row in read(cropped / "boxes.csv")}
    rows = [row for row in read(experiment / "predictions.csv") if boxes[row["path"]]["label"]]
    rows = rows[:: len(rows) // COUNT][:COUNT]
    height = TILE[1] + CAPTION
    sheet = Image.new("RGB", (ACROSS * (TILE[0] + 8) - 8, COUNT // ACROSS * height), "white")
    draw = ImageDraw.Draw(sheet)
    names, small = ImageFont.load_default(17), ImageFont.load_default(14)
    for number, row in enumerate(rows):
        left, top = number % ACROSS * (TILE[0] + 8), number // ACROSS * height
        box = boxes[row["path"]]
        sheet.paste(Image.open(split / row["path"]).convert("RGB"), (left, top))
        corners = [left + int(box["left"]), top + int(box["top"]), left + int(box["right"]), top + int(box["bottom"])]
        correct = row["label"] == row["predicted"]
        colour = GREEN if correct else RED
        draw.rectangle(corners, outline=colour, width=3)
        draw.text((left + 4, top + TILE[1] + 4), row["predicted"], fill=colour, font=names)
        note = f"{float(row['probability']):.0%}" + ("" if correct else f", actual: {row['label']}")
        draw.text((left + 4, top + TILE[1] + 28), note, fill=INK, font=small)
    sheet.quantize(128).save(Path(__file__).with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
