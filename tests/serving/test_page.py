"""The page in a real browser: answers, a keyboard, a telephone, and no request to anywhere else."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .conftest import BLUE, RED, Running, image, running

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; install the package chromium")
FILES = [
    {"name": "red.png", "mimeType": "image/png", "buffer": image(RED)},
    {"name": "blue.png", "mimeType": "image/png", "buffer": image(BLUE)},
    {"name": "no.png", "mimeType": "image/png", "buffer": b"no image"},
]
DROP = """(zone) => {
  const data = new DataTransfer();
  const bytes = Uint8Array.from(atob(CONTENT), (letter) => letter.charCodeAt(0));
  data.items.add(new File([bytes], "given.png", { type: "image/png" }));
  KIND
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page, what it asked for and what its console said."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:  # noqa: ANN401
        self.requests: list[str] = []
        self.console: list[str] = []
        self.page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.console.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.console.append(str(error)))
        self.page.goto(address)

    def answers(self, count: int) -> dict[str, str]:
        """The headings by the names of the photos."""
        self.page.locator("article h2:not(.waiting)").nth(count - 1).wait_for()
        articles = self.page.locator("article").all()
        return {one.locator(".seen").inner_text().split(":")[0]: one.locator("h2").inner_text() for one in articles}

    def give(self, kind: str) -> None:
        content = base64.b64encode(image(BLUE)).decode()
        script = DROP.replace("CONTENT", f"'{content}'").replace("KIND", kind)
        self.page.locator("#drop").evaluate(script)


def test_chosen_photos_are_answered_and_nothing_else_is_asked_for(browser: Any, server: Running) -> None:  # noqa: ANN401
    opened = Opened(browser, server.address)
    opened.page.set_input_files("#files", FILES)
    assert opened.answers(3) == {"red.png": "Red Sedan 2011", "blue.png": "Blue C/V Van 2012", "no.png": "No answer"}
    article = opened.page.locator("article", has_text="red.png")
    assert article.locator("tbody tr").count() == 3
    best = article.locator("tbody tr").first
    assert best.locator("th").inner_text() == "Red Sedan 2011"
    share = best.locator("i").evaluate("bar => bar.style.getPropertyValue('--share')")
    assert float(share.rstrip("%")) == pytest.approx(
        float(best.locator("td.n").inner_text().split("\u00a0")[0]), abs=0.6
    )
    assert "not an image" in opened.page.locator("article", has_text="no.png").locator(".sure").inner_text()
    assert not opened.page.locator("article", has_text="no.png").locator("img").is_visible()
    elsewhere = [url for url in opened.requests if not url.startswith((server.address, "blob:", "data:"))]
    assert elsewhere == []
    assert [line for line in opened.console if "422" not in line] == []


def test_a_photo_can_be_dropped_and_pasted(browser: Any, server: Running) -> None:  # noqa: ANN401
    opened = Opened(browser, server.address)
    opened.give("zone.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));")
    assert opened.answers(1) == {"given.png": "Blue C/V Van 2012"}
    opened.give("document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }));")
    assert len(opened.page.locator("article").all()) == 2
    opened.answers(2)


@pytest.mark.slow  # the window for choosing a file is late at times on a loaded machine
def test_the_keyboard_reaches_everything_and_a_screen_reader_reads_it(browser: Any, server: Running) -> None:  # noqa: ANN401
    opened = Opened(browser, server.address)
    opened.page.locator("#accuracy").wait_for()
    reached = []
    for _ in range(4):
        opened.page.keyboard.press("Tab")
        reached.append(opened.page.locator(":focus").evaluate("one => one.id || one.textContent"))
    assert reached == ["files", "confidence", "Model card", "API"]
    opened.page.bring_to_front()
    opened.page.locator("#files").focus()
    with opened.page.expect_file_chooser() as chooser:
        opened.page.keyboard.press("Enter")
    chooser.value.set_files(FILES[0])
    opened.answers(1)
    assert opened.page.get_by_role("status").inner_text().startswith("red.png: Red Sedan 2011")
    assert opened.page.get_by_role("img", name="Your photo red.png").count() == 1
    assert opened.page.get_by_role("table", name="Most probable classes").count() == 1
    assert opened.page.get_by_label("Choose photos").count() == 1


def test_the_page_fits_a_telephone_which_can_take_a_photo(browser: Any, server: Running) -> None:  # noqa: ANN401
    options = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    opened = Opened(browser, server.address, **options)
    assert opened.page.locator("#camera").get_attribute("capture") == "environment"
    assert opened.page.get_by_text("Take a photo").is_visible()
    opened.page.set_input_files("#camera", FILES[0])
    opened.answers(1)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390


def test_the_box_is_where_the_vehicle_is(
    browser: Any,  # noqa: ANN401
    calibrated: Path,
    red_car_file: Path,
) -> None:
    scene = Image.new("RGB", (200, 100), "white")
    scene.paste((255, 0, 0), (50, 20, 150, 80))
    file = io.BytesIO()
    scene.save(file, "PNG")
    with running(calibrated, "--crop", "--detector", str(red_car_file)) as server:
        opened = Opened(browser, server.address)
        opened.page.set_input_files("#files", {"name": "a.png", "mimeType": "image/png", "buffer": file.getvalue()})
        opened.answers(1)
        frame, photo = (opened.page.locator(f"article {name}").bounding_box() for name in (".frame", "img"))
    assert (frame["x"] - photo["x"]) / photo["width"] == pytest.approx(0.25, abs=0.05)
    assert frame["height"] / photo["height"] == pytest.approx(0.6, abs=0.1)


def test_a_token_is_asked_for_and_used(browser: Any, calibrated: Path) -> None:  # noqa: ANN401
    with running(calibrated, WHICHCAR_TOKENS="one") as server:
        assert server.post(image()).status == 401
        assert server.post(image(), Authorization="Bearer one").status == 200
        opened = Opened(browser, server.address)
        opened.page.set_input_files("#files", FILES[0])
        opened.page.locator("#token").fill("one")
        opened.page.keyboard.press("Enter")
        assert opened.answers(1) == {"red.png": "Red Sedan 2011"}
