"""The page about a folder of images: its content, for any folder."""

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import whichcar
from whichcar.cli import main
from whichcar.data.duplicates.find import Duplicates, Pair
from whichcar.data.duplicates.scan import ScanCache
from whichcar.data.explore.explore import look
from whichcar.detection.crop import crop
from whichcar.errors import DataError

Page = Callable[..., str]


class Tags(HTMLParser):
    """Collects what a page refers to, and that its tags close; what scripts hold is no part of it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("p", "li", "br"):
            while self.open[-1] in ("p", "li"):
                self.open.pop()
        if tag in ("p", "li") and self.open[-1] != tag:
            return
        assert self.open.pop() == tag


def paint(path: Path, seed: int, size: tuple[int, int] = (32, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (3, 4, 3), np.uint8)
    Image.fromarray(noise).resize(size).save(path)
    return path


@pytest.fixture
def page(tmp_path: Path) -> Page:
    """The function that explores a folder and returns the page without its scripts and the marks where names wrap."""

    def write(data: Path, **given: object) -> str:
        path = look(data, output=tmp_path / "page" / "look.html", **given)  # type: ignore[arg-type]
        return re.sub(r"<script.*?</script>|<wbr>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)

    return write


def titles(page: str) -> list[str]:
    return re.findall(r"<h2 id=\"[\w-]+\">([^<]+)<", page)


def test_it_shows_numbers_charts_and_twenty_titled_samples(drawn: Path, page: Page) -> None:
    content = page(drawn)
    assert titles(content)[:6] == [
        "Numbers", "Classes", "Makes and years", "Sizes and brightness", "Samples", "An image as an array",
    ]  # fmt: skip
    assert "<th>images</th><td>32</td>" in content
    assert "<td>train 24, test 8</td>" in content
    assert "<td>4 with 8 images each</td>" in content
    samples = content.split('<h2 id="samples">')[1].split("<h2")[0]
    assert samples.count("<figure>") == samples.count("<figcaption><b>") == 20
    assert "(48, 64, 3) (height, width, channels)" in content
    for chart in ("class", "make", "width", "aspect", "brightness", "channel"):
        assert content.count(f'id="chart-{chart}"') == 1


def test_it_needs_nothing_from_outside_and_images_come_when_seen(drawn: Path, page: Page) -> None:
    content = page(drawn)
    tags = Tags(content)
    assert tags.open == []
    assert len(tags.images) > 30 and all(image["loading"] == "lazy" for image in tags.images)
    assert tags.sources and all(source.startswith(("data:image/jpeg", "#")) for source in tags.sources)
    assert "@import" not in content and "url(" not in content
    assert "default-src 'none'" in content


def test_the_same_images_and_seed_give_the_same_page_and_another_seed_other_samples(
    drawn: Path, tmp_path: Path
) -> None:
    pages = [
        look(drawn, output=tmp_path / f"{number}.html", seed=seed).read_bytes() for number, seed in enumerate((0, 0, 1))
    ]
    assert pages[0] == pages[1] != pages[2]


def test_red_and_blue_change_places_where_rgb_is_taken_for_bgr(tmp_path: Path, page: Page) -> None:
    Image.new("RGB", (40, 30), (200, 10, 50)).save(tmp_path / "red.png")
    content = page(tmp_path)
    assert "[200, 10, 50] as RGB, [50, 10, 200] as BGR" in content
    assert "red 200.0, green 10.0, blue 50.0" in content


def test_copies_are_side_by_side_and_those_of_other_classes_first(tmp_path: Path, page: Page) -> None:
    data = tmp_path / "data"
    for place, seed in (("train/A/1.png", 1), ("train/B/2.png", 2), ("test/A/3.png", 3), ("test/B/4.png", 4)):
        paint(data / place, seed)
    shutil.copy(data / "test/A/3.png", data / "train/A/same.png")
    shutil.copy(data / "train/B/2.png", data / "train/A/other.png")
    content = page(data).split('<h2 id="copies">')[1]
    pairs = content.split("<div class=pair>")[1:]
    assert len(pairs) == 2 and all(pair.count("<figure>") == 2 for pair in pairs)
    assert "their classes differ" in pairs[0] and "train/A/other.png" in pairs[0]
    assert "one is in test" in pairs[1] and "test/A/3.png" in pairs[1]
    assert "the same bytes" in pairs[0]


def test_the_brightest_and_the_largest_come_first(tmp_path: Path, page: Page) -> None:
    for number, (light, side) in enumerate(((10, 60), (250, 40), (90, 20), (170, 80))):
        Image.new("RGB", (side, side), (light, light, light)).save(tmp_path / f"{number}.png")
    content = page(tmp_path).split('<h2 id="extremes">')[1]
    shown = {
        name: re.findall(r"(\d)\.png", part)
        for name, part in re.findall(r"<h3>(\w+)</h3>(.*?)(?=<h3>|$)", content, re.DOTALL)
    }
    assert shown["Brightest"] == ["1", "3"] and shown["Darkest"] == ["0", "2"]
    assert shown["Largest"] == ["3", "0"] and shown["Smallest"][:2] == ["2", "1"]


def test_a_cropped_folder_shows_its_crops(tmp_path: Path, red_car_file: Path, page: Page) -> None:
    for number in range(3):
        image = np.full((96, 128, 3), 128, np.uint8)
        image[24:72, 32:96] = (230, 20, 20) if number else 128
        (tmp_path / "in" / "A").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "in" / "A" / f"{number}.png")
    list(crop(tmp_path / "in", tmp_path / "out", detector=red_car_file))
    assert "Crops" not in titles(page(tmp_path / "in"))
    content = page(tmp_path / "out").split('<h2 id="crops">')[1].split("<h2")[0]
    assert "whole 1, cropped 2" in content
    assert content.count("<b>car 0.90</b> from 32, 24 to 96, 72") == 2


def test_a_boxes_table_of_a_fetched_set_is_no_crop(tmp_path: Path, page: Page) -> None:
    paint(tmp_path / "A" / "1.png", 1)
    (tmp_path / "boxes.csv").write_text("img_name,left,top,right,bottom\n1.png,1,2,3,4\n")
    assert "Crops" not in titles(page(tmp_path))


def test_pixels_alone_make_no_equal_files(tmp_path: Path, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        paint(tmp_path / "data" / f"{number}.png", number)
    near = Duplicates([], [Pair(0, 1, 1.0, False)])  # as of a photo with and without its EXIF data
    monkeypatch.setattr("whichcar.data.explore.overview.find_duplicates", lambda *_: near)
    content = page(tmp_path / "data").split('<h2 id="copies">')[1]
    assert "similarity 1.00" in content and "the same bytes" not in content


def test_names_that_are_not_those_of_vehicles_have_no_makes(tmp_path: Path, page: Page) -> None:
    for number, name in enumerate(("American Crow", "American Redstart", "Black Tern")):
        paint(tmp_path / "birds" / name / "1.png", number)
    content = page(tmp_path / "birds")
    assert titles(content)[:3] == ["Numbers", "Classes", "Sizes and brightness"]
    assert "chart-make" not in content and "without a year" not in content


def test_images_without_classes_have_no_charts_of_them(tmp_path: Path, page: Page) -> None:
    paint(tmp_path / "a.png", 1)
    content = page(tmp_path)
    assert "no label file names them" in content
    assert (
        "chart-class" not in content and "Makes and years" not in titles(content) and "Extremes" not in titles(content)
    )


def test_one_class_only_is_enough(tmp_path: Path, page: Page) -> None:
    paint(tmp_path / "Audi A5 2012" / "a.png", 1)
    assert "<td>1 with 1 image each</td>" in page(tmp_path)


def test_unreadable_ones_are_listed_among_good_ones_and_alone(tmp_path: Path, page: Page) -> None:
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "broken.jpg").write_bytes(b"nothing")
    alone = page(tmp_path)
    assert "<li>A/broken.jpg: not an image of a known format" in alone
    assert "Samples" not in titles(alone) and "Sizes and brightness" not in titles(alone)
    paint(tmp_path / "A" / "good.png", 1)
    both = page(tmp_path)
    assert "A/broken.jpg" in both and "<th>unreadable</th><td>1</td>" in both and "Samples" in titles(both)


def test_names_with_quotes_markup_and_other_scripts_stay_text(tmp_path: Path, page: Page) -> None:
    data = tmp_path / "<data> & co"
    rows = []
    for number, name in enumerate(("</script><img src=x>", "\"quoted\" 'A' 2001", "Škoda Ö ☃ 2002")):
        paint(data / "car_ims" / f"{number} <i>.png", number)
        quoted = name.replace('"', '""')
        rows.append(f'{number} <i>.png,"{quoted}",train')
    (data / "car_dataset_labels.csv").write_text("img_name,class,subset\n" + "\n".join(rows) + "\n", encoding="utf-8")
    content = page(data)
    assert Tags(content).open == [] and "<img src=x>" not in content and "<i>" not in content
    assert "<h1>&lt;data&gt; &amp; co</h1>" in content
    assert "&lt;/script&gt;&lt;img src=x&gt;" in content and "Škoda Ö ☃ 2002" in content


def test_rows_and_files_that_do_not_fit_are_counted(tmp_path: Path, page: Page) -> None:
    paint(tmp_path / "car_ims" / "a.png", 1)
    paint(tmp_path / "car_ims" / "b.png", 2)
    (tmp_path / "car_ims" / "notes.txt").write_text("x")
    (tmp_path / "car_dataset_labels.csv").write_text("img_name,class,subset\na.png,A,train\nnone.png,A,train\n")
    content = page(tmp_path)
    for name in ("rows without an image", "images without a row", "files that are not images"):
        assert f"<th>{name}</th><td>1</td>" in content


def test_a_row_that_cannot_be_used_is_not_counted_as_one_without_an_image(tmp_path: Path, page: Page) -> None:
    paint(tmp_path / "car_ims" / "a.png", 1)
    paint(tmp_path / "car_ims" / "b.png", 2)
    (tmp_path / "car_dataset_labels.csv").write_text("img_name,class,subset\na.png,A,train\nb.png,A,train1\n")
    content = page(tmp_path)
    assert "<th>rows that cannot be used</th><td>1</td>" in content and "rows without an image" not in content


def test_a_copy_without_a_label_contradicts_nothing(tmp_path: Path, page: Page) -> None:
    paint(tmp_path / "car_ims" / "a.png", 1)
    shutil.copy(tmp_path / "car_ims" / "a.png", tmp_path / "car_ims" / "a (1).png")
    (tmp_path / "car_dataset_labels.csv").write_text("img_name,class,subset\na.png,A,validation\n")
    content = page(tmp_path)
    assert "the same bytes" in content
    assert "their classes differ" not in content and "one is in " not in content


def test_a_folder_without_images_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["look", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}: no images in it") and error.count("\n") == 1


def test_where_the_page_cannot_be_written_the_error_names_the_option_before_images_are_scanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScanCache, "scan", lambda *_: pytest.fail("images are scanned"))
    paint(tmp_path / "a.png", 1)
    with pytest.raises(DataError, match=r"look\.html: cannot be written .*; name another place with --output FILE"):
        look(tmp_path, output=tmp_path / "a.png" / "look.html")
    (tmp_path / "explore.html").mkdir()
    with pytest.raises(DataError, match="name another place with --output FILE"):
        look(tmp_path)


def test_the_command_writes_into_the_folder_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint(tmp_path / "A" / "a.png", 1)
    assert main.run(["look", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"page   {tmp_path / 'explore.html'}\n"
    assert main.run(["look", str(tmp_path), "--output", str(tmp_path / "B" / "cars.html"), "--seed", "3"]) == 0
    assert "seed 3" in (tmp_path / "B" / "cars.html").read_text(encoding="utf-8")
    assert whichcar.look is look
