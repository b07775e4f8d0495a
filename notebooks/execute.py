"""Run the notebooks on drawn cars and store their outputs: `python notebooks/execute.py [NAME.ipynb ...]`.

GitHub does not run scripts, so each chart is also stored as an image, drawn by Chromium.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import plotly.io
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image, ImageChops

CHART = "application/vnd.plotly.v1+json"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZE = (900, 450)
MARGIN = 150  # pixels; the browser's own frame takes some


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells in `folder`, with the outputs in place of earlier ones."""
    NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    ).execute()


def add_images(notebook: NotebookNode, folder: Path) -> None:
    """Add a PNG to each chart."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"no browser here to draw the charts; install one of {', '.join(BROWSERS)}")
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if CHART in output.get("data", {}):
                figure = plotly.io.from_json(plotly.io.json.to_json_plotly(output.data[CHART]), skip_invalid=True)
                figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")
                page, image = folder / "chart.html", folder / "chart.png"
                height = figure.layout.height or SIZE[1]
                figure.write_html(page, config={"displayModeBar": False}, default_width=SIZE[0], default_height=height)
                options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--screenshot={image}"]
                options += [f"--window-size={SIZE[0] + MARGIN},{height + MARGIN}", "--virtual-time-budget=5000"]
                subprocess.run([browser, *options, page.as_uri()], check=True, capture_output=True, timeout=120)
                output.data["image/png"] = base64.b64encode(trimmed(image)).decode()


def trimmed(path: Path) -> bytes:
    """Return a PNG without its white border."""
    image = Image.open(path).convert("RGB")
    encoded = io.BytesIO()
    image.crop(ImageChops.invert(image).getbbox()).save(encoded, "PNG", optimize=True)
    return encoded.getvalue()


def main() -> None:
    """Execute the notebooks that are named, or every one in this folder."""
    os.environ |= {"WHICHCAR_QUIET": "1", "WHICHCAR_EDA": "", "WHICHCAR_DETECTOR": "", "WHICHCAR_EXPERIMENT": ""}
    for path in map(Path, sys.argv[1:] or sorted(Path(__file__).parent.glob("*.ipynb"))):
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["WHICHCAR_CACHE"] = f"{scratch}/cache"
            execute(notebook, Path(scratch))
            add_images(notebook, Path(scratch))
        notebook.metadata.language_info = {"name": "python"}
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
