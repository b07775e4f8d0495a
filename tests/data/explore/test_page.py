"""The page in a real browser: its charts are drawn, and it asks for nothing from outside."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from whichcar.data.explore.explore import look

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; install the package chromium")
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --enable-logging=stderr --v=0 --virtual-time-budget=5000"
)


def opened(page: Path, folder: Path, *options: str) -> tuple[str, str]:
    """Return the page's document after its scripts ran, and what the browser logged meanwhile."""
    command = [
        str(CHROMIUM),
        *QUIET.split(),
        f"--user-data-dir={folder / 'profile'}",
        *options,
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return re.sub(r"<script.*?</script>", "", done.stdout, flags=re.DOTALL), done.stderr


@pytest.fixture(scope="module")
def opened_page(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("page")
    return opened(look(drawn, output=folder / "look #1.html"), folder)


def test_every_chart_is_drawn(opened_page: tuple[str, str]) -> None:
    document, _ = opened_page
    charts = re.split(r'id="chart-(\w+)"', document)
    drawn = dict(zip(charts[1::2], charts[2::2], strict=True))
    assert {"class", "make", "width", "aspect", "brightness", "channel"} <= drawn.keys()
    for name, content in drawn.items():
        marks = 'class="lines"' if name == "channel" else "points"
        assert '<svg class="main-svg"' in content and marks in content, name
        assert re.search(r'<path[^>]* d="M', content), name
    assert document.count("</svg>") > 10


def test_names_of_classes_are_next_to_their_bars(opened_page: tuple[str, str], drawn: Path) -> None:
    names = {line.split(",")[1] for line in (drawn / "car_dataset_labels.csv").read_text().splitlines()[1:]}
    ticks = re.findall(r'class="ytick">.*?<text[^>]*>([^<]+)<', opened_page[0], re.DOTALL)
    assert names <= set(ticks)


def test_no_script_fails_and_nothing_is_refused(opened_page: tuple[str, str]) -> None:
    assert not [line for line in opened_page[1].splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def framed(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The page in a frame as wide as a telephone, with an image put into it that lies elsewhere."""
    folder = tmp_path_factory.mktemp("frame")
    page, frame = look(drawn, output=folder / "look.html"), folder / "frame.html"
    outside = '<img src="http://127.0.0.1:9/a.png"></body>'
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", outside), encoding="utf-8")
    measure = "document.title = this.contentWindow.document.documentElement.scrollWidth"
    frame.write_text(f'<iframe src="{page.name}" width=420 height=900 onload="{measure}"></iframe>')
    return opened(frame, folder, "--allow-file-access-from-files")


def test_the_browser_refuses_what_comes_from_outside(framed: tuple[str, str]) -> None:
    assert "violates the following Content Security Policy" in framed[1]


def test_the_page_is_no_wider_than_a_telephone(framed: tuple[str, str]) -> None:
    width = re.search(r"<title>(\d+)</title>", framed[0])
    assert width and 300 < int(width[1]) <= 420
