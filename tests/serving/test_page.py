"""The page in a real browser: answers, a keyboard, a telephone, and no request to anywhere else."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import BLUE, GREEN, RED, Running, image, running, street

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; install the package chromium")
FILES = [
    {"name": "red.png", "mimeType": "image/png", "buffer": image(RED)},
    {"name": "blue.png", "mimeType": "image/png", "buffer": image(BLUE)},
    {"name": "no.png", "mimeType": "image/png", "buffer": b"no image"},
]


def scene(*vehicles: tuple[tuple[int, int], Any]) -> dict[str, Any]:
    return {"name": "street.png", "mimeType": "image/png", "buffer": street(*vehicles)}


DROP = """(zone) => {
  const data = new DataTransfer();
  const bytes = Uint8Array.from(atob(CONTENT), (letter) => letter.charCodeAt(0));
  data.items.add(new File([bytes], "given.png", { type: "image/png" }));
  KIND
}"""

PRESSED = """() => document.getElementById("files").addEventListener("click", (event) => {
  event.preventDefault();
  window.pressed = event.isTrusted;
})"""


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
    refused = opened.page.locator("article", has_text="no.png")
    assert refused.locator(".sure").inner_text().startswith("This photo: not an image")
    assert refused.inner_text().count("no.png") == 1
    opened.page.locator("article", has_text="no.png").locator("img").wait_for(state="hidden")
    elsewhere = [url for url in opened.requests if not url.startswith((server.address, "blob:", "data:"))]
    assert elsewhere == []
    assert [line for line in opened.console if "422" not in line] == []
    summary = "3 photos: 2 identified, 1 without an answer"
    assert opened.page.get_by_role("status").first.inner_text() == summary


def test_classes_below_a_tenth_of_a_percent_are_not_shown(browser: Any, server: Running) -> None:  # noqa: ANN401
    opened = Opened(browser, server.address)
    shares = {"Red Sedan 2011": 0.9981, "Blue C/V Van 2012": 0.001, "Green Coupe 2010": 0.0009}
    classes = [{"name": name, "probability": share} for name, share in shares.items()]
    row = {"name": "red.png", "problem": None, "answer": None, "classes": classes, "crop": None, "explanation": None}
    opened.page.route("**/predict?*", lambda route: route.fulfill(json={"images": [row]}))
    opened.page.set_input_files("#files", FILES[0])
    opened.answers(1)
    assert opened.page.locator("td.n").all_inner_texts() == ["99.8\u00a0%", "0.1\u00a0%"]


def test_the_page_speaks_of_vehicles_only_if_the_classes_have_makes(browser: Any, server: Running) -> None:  # noqa: ANN401
    opened = Opened(browser, server.address)
    opened.page.get_by_text("The class of a photo, one of 3 classes. Photos are classified").wait_for()
    answer = {"level": None, "name": "unknown", "probability": 0.4}
    classes = [{"name": "Red Sedan 2011", "probability": 0.4}]
    row = {"name": "red.png", "problem": None, "answer": answer, "classes": classes, "crop": None, "explanation": None}
    opened.page.route("**/predict?*", lambda route: route.fulfill(json={"images": [row]}))
    opened.page.set_input_files("#files", FILES[0])
    opened.answers(1)
    assert opened.page.get_by_role("heading", level=1).inner_text() == "What is it?"
    assert "The best guess of the class has" in opened.page.locator(".sure").inner_text()
    model = server.ask("GET", "/model").json | {"levels": ["class", "model", "make"]}
    opened.page.route("**/model", lambda route: route.fulfill(json=model))
    opened.page.reload()
    opened.page.get_by_text("Make, model and year of the vehicle in a photo, one of 3 classes.").wait_for()
    assert opened.page.get_by_role("heading", level=1).inner_text() == "Which car is it?"
    assert opened.page.title() == "Which car is it? – whichcar"
    opened.page.set_input_files("#files", FILES[0])
    opened.answers(1)
    assert "The best guess of the make has" in opened.page.locator(".sure").inner_text()


@pytest.mark.parametrize(
    ("listed", "chosen"), [([0.8, 0.9], "0.9"), ([0.8, 0.9, 0.95, 0.99], "0.95"), ([0.99], "0.99"), ([], "")]
)
def test_the_accuracy_is_the_highest_up_to_95_percent_that_the_model_lists(
    browser: Any,  # noqa: ANN401
    server: Running,
    listed: list[float],
    chosen: str,
) -> None:
    opened = Opened(browser, server.address)
    model = server.ask("GET", "/model").json | {"confidences": listed}
    opened.page.route("**/model", lambda route: route.fulfill(json=model))
    opened.page.reload()
    opened.page.get_by_text("one of 3 classes.").wait_for()
    choice = opened.page.locator("#confidence")
    values = choice.locator("option").evaluate_all("options => options.map((one) => one.value)")
    assert values == ([*map(str, listed), ""] if listed else [])
    assert (choice.input_value(), choice.is_visible()) == (chosen, bool(listed))


def test_a_photo_can_be_dropped_and_pasted(browser: Any, server: Running) -> None:  # noqa: ANN401
    opened = Opened(browser, server.address)
    opened.give("zone.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));")
    assert opened.answers(1) == {"given.png": "Blue C/V Van 2012"}
    opened.give("document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }));")
    assert len(opened.page.locator("article").all()) == 2
    opened.answers(2)


def test_the_keyboard_reaches_everything_and_a_screen_reader_reads_it(browser: Any, server: Running) -> None:  # noqa: ANN401
    opened = Opened(browser, server.address)
    opened.page.locator("#accuracy").wait_for()
    reached = []
    for _ in range(4):
        opened.page.keyboard.press("Tab")
        reached.append(opened.page.locator(":focus").evaluate("one => one.id || one.textContent"))
    assert reached == ["files", "confidence", "Model card", "API"]
    opened.page.evaluate(PRESSED)  # the browser's window for choosing a file comes when it wants to, or not at all
    opened.page.locator("#files").focus()
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_function("window.pressed")
    opened.page.set_input_files("#files", FILES[0])
    opened.answers(1)
    assert opened.page.get_by_role("status").first.inner_text().startswith("red.png: Red Sedan 2011")
    assert opened.page.get_by_role("img", name="Your photo red.png").count() == 1
    assert opened.page.get_by_role("table", name="Most probable classes").count() == 1
    assert opened.page.get_by_label("Choose photos").count() == 1


def test_the_model_card_is_linked_if_there_is_one(browser: Any, server: Running) -> None:  # noqa: ANN401
    opened = Opened(browser, server.address)
    card = opened.page.get_by_role("link", name="Model card")
    card.wait_for()
    model = server.ask("GET", "/model").json | {"card": ""}
    opened.page.route("**/model", lambda route: route.fulfill(json=model))
    opened.page.reload()
    opened.page.locator("#accuracy").wait_for()
    assert not card.is_visible()


def test_a_file_that_cannot_be_read_is_not_blamed_on_the_server(
    browser: Any,  # noqa: ANN401
    server: Running,
    tmp_path: Path,
) -> None:
    opened = Opened(browser, server.address)
    held: list[Any] = []
    opened.page.route("**/model", lambda route: held.append(route))  # photos wait for it
    with opened.page.expect_request("**/model"):
        opened.page.reload()
    (tmp_path / "red.png").write_bytes(image())
    opened.page.set_input_files("#files", tmp_path / "red.png")
    (tmp_path / "red.png").unlink()
    held.pop().continue_()
    assert opened.answers(1) == {"red.png": "No answer"}
    assert opened.page.locator(".sure").inner_text().startswith("This cannot be read; it is a folder, or a file that")
    opened.page.route("**/predict?*", lambda route: route.abort())
    opened.page.set_input_files("#files", FILES[1])
    assert opened.answers(2)["blue.png"] == "No answer"
    assert opened.page.locator(".sure").first.inner_text() == "The server cannot be reached."


def test_the_page_fits_a_telephone_which_can_take_a_photo(browser: Any, server: Running) -> None:  # noqa: ANN401
    options = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    opened = Opened(browser, server.address, **options)
    assert opened.page.locator("#camera").get_attribute("capture") == "environment"
    assert opened.page.get_by_text("Take a photo").is_visible()
    opened.page.set_input_files("#camera", FILES[0])
    opened.answers(1)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390


def shown_at(opened: Opened, element: str) -> list[float]:
    """Left, top, width and height of an element as shares of the photo's sides."""
    box, photo = (opened.page.locator(f"article {name}").bounding_box() for name in (element, "img"))
    left, top = ((box[side] - photo[side]) / photo[length] for side, length in (("x", "width"), ("y", "height")))
    return [left, top, box["width"] / photo["width"], box["height"] / photo["height"]]


def test_every_vehicle_has_a_frame_and_the_chosen_one_is_answered(browser: Any, cropping: Running) -> None:  # noqa: ANN401
    opened = Opened(browser, cropping.address)
    opened.page.set_input_files("#files", scene(((0, 0), RED), ((2, 1), GREEN)))
    opened.answers(1)
    names = opened.page.locator(".vehicles button")
    red = next(one for one in names.all() if "Red" in one.inner_text())
    green = next(one for one in names.all() if "Green" in one.inner_text())
    red.focus()
    opened.page.keyboard.press("Enter")
    assert opened.answers(1) == {"street.png": "Red Sedan 2011"}
    assert (red.get_attribute("aria-pressed"), green.get_attribute("aria-pressed")) == ("true", "false")
    assert shown_at(opened, ".frame.chosen") == pytest.approx([0, 0, 0.25, 0.25], abs=0.02)
    opened.page.locator(".frame:not(.chosen)").click()
    assert opened.answers(1) == {"street.png": "Green Coupe 2010"}
    assert shown_at(opened, ".frame.chosen") == pytest.approx([0.5, 0.25, 0.25, 0.25], abs=0.02)
    assert opened.console == []


def test_the_button_of_a_vehicle_without_a_certain_answer_says_what_it_is(browser: Any, cropping: Running) -> None:  # noqa: ANN401
    opened = Opened(browser, cropping.address)
    answer = {"level": None, "name": "unknown", "probability": 0.4}
    vehicle = {"answer": answer, "classes": [{"name": "Red Sedan 2011", "probability": 0.3}], "explanation": None}
    box = {"left": 0, "top": 0, "right": 40, "bottom": 40}
    crops = [
        {"outcome": "cropped", "box": box, "vehicle": kind, "score": 0.9, "candidates": 2} for kind in ("car", "bus")
    ]
    row = {"vehicles": [{**vehicle, "crop": {**crop, "number": place}} for place, crop in enumerate(crops, 1)]}
    opened.page.route("**/predict?*", lambda route: route.fulfill(json={"images": [row]}))
    opened.page.set_input_files("#files", scene())
    opened.answers(1)
    assert opened.page.locator(".vehicles button").all_inner_texts() == ["1 car, not sure", "2 bus, not sure"]


def test_why_is_shown_on_the_photo_and_said_in_words(browser: Any, cropping: Running) -> None:  # noqa: ANN401
    opened = Opened(browser, cropping.address)
    opened.page.set_input_files("#files", scene(((1, 2), RED)))
    opened.answers(1)
    assert opened.page.locator(".vehicles").is_hidden()  # there is nothing to choose
    opened.page.get_by_role("button", name="Show why").click()
    why = opened.page.get_by_role("button", name="Why Red Sedan 2011")
    why.wait_for()
    assert shown_at(opened, "canvas") == pytest.approx([0.225, 0.475, 0.3, 0.3], abs=0.02)  # with the margin
    reason = opened.page.locator(".reason")
    assert "speaks for Red Sedan 2011" in reason.inner_text()
    corner, spot = "canvas.width / 8", "canvas.width / 2"
    alpha = "(canvas) => canvas.getContext('2d').getImageData(PLACE, PLACE, 1, 1).data[3]"
    shown = [opened.page.locator("canvas").evaluate(alpha.replace("PLACE", place)) for place in (corner, spot)]
    assert shown[0] > 150 > shown[1] == 0  # the blue spot speaks against red
    opened.page.keyboard.press("Tab")  # from the first of the two, which has the focus
    opened.page.keyboard.press("Enter")
    assert "against" in reason.inner_text()
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("canvas").count() == 0
    assert opened.console == []


def test_a_photo_without_a_vehicle_says_so(browser: Any, cropping: Running) -> None:  # noqa: ANN401
    opened = Opened(browser, cropping.address)
    far = {**scene(), "name": "far.png", "buffer": street(((0, 0), RED), cell=40)}
    opened.page.set_input_files("#files", [scene(), far])
    headings = {"street.png": "No vehicle found", "far.png": "Only 1 vehicle smaller than 60 pixels"}
    assert opened.answers(2) == headings
    assert opened.page.get_by_role("status").first.inner_text() == "2 photos: 2 without a vehicle"
    assert opened.page.locator(".frame").count() == 0
    assert opened.page.locator(".sure").last.inner_text() == "Without a vehicle, nothing is certain enough."
    assert not opened.page.locator("table").last.is_visible()
    opened.page.locator("summary").last.click()
    assert opened.page.locator("table").last.is_visible()


def test_an_answer_stays_while_its_explanation_waits_for_a_token(browser: Any, cropping: Running) -> None:  # noqa: ANN401
    def answer(route: Any) -> None:  # noqa: ANN401
        valid = "explain" not in route.request.url or route.request.headers.get("authorization") == "Bearer one"
        route.continue_() if valid else route.fulfill(status=401, json={"error": "No.", "reason": "token"})

    opened = Opened(browser, cropping.address)
    opened.page.set_input_files("#files", scene(((0, 0), RED), ((2, 1), GREEN)))
    before = opened.answers(1)
    opened.page.route("**/predict?*", answer)
    why, reason = opened.page.get_by_role("button", name="Show why"), opened.page.locator(".reason")
    for token, text in (("two", "This server needs a token."), ("one", "This token is not valid.")):
        why.click()
        reason.get_by_text(text).wait_for()
        assert opened.page.get_by_role("status").first.inner_text() == text
        assert opened.answers(1) == before
        opened.page.locator("#token").fill(token)
        opened.page.keyboard.press("Enter")
    why.click()
    opened.page.get_by_role("button", name="Why not").wait_for()
    assert opened.page.locator(".frame").count() == 2
    assert opened.answers(1) == before


@pytest.mark.slow
def test_a_token_is_asked_for_and_used(browser: Any, calibrated: Path) -> None:  # noqa: ANN401
    with running(calibrated, WHICHCAR_TOKENS="one") as server:
        assert server.post(image()).status == 401
        assert server.post(image(), Authorization="Bearer one").status == 200
        opened = Opened(browser, server.address)
        opened.page.set_input_files("#files", FILES[0])
        opened.page.locator("#token").fill("one")
        opened.page.keyboard.press("Enter")
        assert opened.answers(1) == {"red.png": "Red Sedan 2011"}
