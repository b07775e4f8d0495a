"""The charts hold what the overview counted."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.data.dataset import Collection, Entry, collect
from whichcar.data.explore import charts
from whichcar.data.explore.overview import Overview, overview_of
from whichcar.errors import MissingExtraError
from whichcar.pages.charts import chart, plotly_script


def overview(classes: dict[str, dict[str, int]], sizes: list[tuple[int, int]] = []) -> Overview:  # noqa: B006
    found = Overview(
        Collection(Path("x"), "test", [Entry("a.jpg", "", "")] * len(sizes)),
        {name: Counter(parts) for name, parts in classes.items()},
    )
    for width, height in sizes:
        found.width.append(width)
        found.height.append(height)
        found.brightness.append(0.51 if width else float("nan"))
    return found


TWO = {"Audi A5 2012": {"train": 3, "test": 1}, "Audi A6 2012": {"train": 1}, "Land Rover LR2 2010": {"train": 5}}


def test_the_largest_class_is_on_top_and_bars_are_stacked_by_split() -> None:
    figure = charts.class_chart(overview(TWO))
    assert figure.layout.yaxis.ticktext == ("Land Rover LR2 2010", "Audi A5 2012", "Audi A6 2012")
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # the first on top
    train, test = figure.data
    assert (train.name, train.x, test.name, test.x) == ("train", (5, 3, 1), "test", (0, 1, 0))
    assert train.hovertext[1] == "Audi A5 2012<br>3 train of 4"
    assert figure.layout.barmode == "stack"


def test_makes_and_years_are_sums_over_classes() -> None:
    makes = charts.make_chart(overview(TWO))
    assert makes.layout.yaxis.ticktext == ("Audi", "Land Rover")
    assert [bar.x for bar in makes.data] == [(4, 5), (1, 0)]
    assert makes.data[0].hovertext[0] == "Audi<br>4 train of 5, 2 classes"
    years = charts.year_chart(overview({**TWO, "no year": {"": 7}}))
    assert (years.data[0].x, years.data[0].y) == ((2010, 2012), (5, 5))
    assert years.data[0].width < 1 and years.layout.xaxis.dtick == 1
    assert charts.year_chart(overview({"Audi 100 1990": {"": 1}, "Audi A5 2012": {"": 1}})).layout.xaxis.dtick is None


def test_names_are_no_markup_and_equal_looking_ones_stay_apart() -> None:
    figure = charts.class_chart(overview({"<b>A</b>": {"": 1}, "2012": {"": 1}, "\udcff": {"": 1}}))
    assert set(figure.layout.yaxis.ticktext) == {"&lt;b&gt;A&lt;/b&gt;", "2012", "\\udcff"}
    hostile = charts.class_chart(overview({"</script>": {"": 1}}))
    assert chart(hostile, "x").count("</script>") == chart(figure, "x").count("</script>")
    figure.to_json().encode("utf-8")


def test_images_of_one_size_are_one_point_and_unreadable_ones_none() -> None:
    points = charts.size_chart(overview({}, [(640, 480)] * 3 + [(320, 240), (0, 0)])).data[0]
    assert dict(zip(zip(points.x, points.y, strict=True), points.hovertext, strict=True)) == {
        (640, 480): "640 x 480: 3 images",
        (320, 240): "320 x 240: 1 image",
    }
    assert points.marker.size[0] > points.marker.size[1]


def test_many_sizes_become_few_points_and_no_image_is_lost() -> None:
    rng = np.random.default_rng(0)
    sizes = [tuple(size) for size in rng.integers(100, 2000, (20_000, 2)).tolist()]
    points = charts.size_chart(overview({}, sizes)).data[0]
    assert len(points.x) <= charts.MOST_POINTS
    assert sum(int(text.split(": ")[1].split()[0].replace(",", "")) for text in points.hovertext) == 20_000


def test_every_image_is_in_a_bar_of_aspect_and_of_brightness() -> None:
    found = overview({}, [(100, 100), (4000, 100), (100, 4000), (133, 100), (0, 0)])
    aspect = charts.aspect_chart(found).data[0]
    assert sum(aspect.y) == 4
    assert aspect.y[0] == aspect.y[-1] == 1
    assert aspect.hovertext[0].startswith("below") and "and more" in aspect.hovertext[-1]
    assert dict(zip(aspect.x, aspect.y, strict=True))[1.0] == 1
    light = charts.brightness_chart(found).data[0]
    assert sum(light.y) == 4 and light.x[int(np.argmax(light.y))] == pytest.approx(0.51)


def test_channels_are_counted_by_value() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 0] = 255, 7, 0
    red, green, blue = charts.channel_chart(image).data
    assert (red.y[0], red.y[255], green.y[7], blue.y[0]) == (5, 1, 1, 6)


def test_charts_of_nothing_are_empty_not_errors() -> None:
    for draw in (charts.class_chart, charts.make_chart, charts.year_chart, charts.size_chart, charts.aspect_chart):
        assert chart(draw(overview({})), "x")
    assert chart(charts.brightness_chart(overview({}, [(0, 0)])), "x")


def test_without_plotly_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    for wanted in (plotly_script, lambda: charts.class_chart(overview({}))):
        with pytest.raises(MissingExtraError, match=r"\[check\]"):
            wanted()


def test_importing_them_does_not_load_plotly() -> None:
    code = "import sys, whichcar.data.explore.charts, whichcar.data.explore.explore; print('plotly' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "False\n"


def test_the_bars_of_few_classes_have_their_room_whatever_the_legend_needs() -> None:
    few = {
        f"A rather long name of a class {number} 2012": {"train": 3, "validation": 1, "test": 1} for number in range(4)
    }
    layout = charts.class_chart(overview(few)).layout
    assert not layout.showlegend  # it would wrap on a telephone and push the bars together
    assert all(name in layout.title.text for name in ("train", "validation", "test"))
    assert layout.height - layout.margin.t - layout.margin.b >= 4 * 18


def test_a_name_between_dollars_is_no_formula() -> None:
    figure = charts.class_chart(overview({"Ba$$in $x$": {"": 1}}))
    assert figure.layout.yaxis.ticktext == ("Ba&#36;&#36;in &#36;x&#36;",)


def test_bars_without_splits_have_the_colour_of_the_other_charts_and_no_halves(tmp_path: Path) -> None:
    for name in ("Audi A4 2012", "BMW X3 2012"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (90, 80), "red").save(tmp_path / name / "1.png")
    overview = overview_of(collect(tmp_path))
    bars, years = charts.class_chart(overview), charts.year_chart(overview)
    assert bars.data[0].marker.color == years.data[0].marker.color
    assert years.layout.yaxis.dtick == 1
