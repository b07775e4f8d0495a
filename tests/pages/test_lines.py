from __future__ import annotations

import re

import pytest

from whichcar.pages.lines import Line, line_chart


def labels(chart: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", chart)


@pytest.mark.parametrize(
    ("least", "ticks"),
    [(0.93, ["92%", "94%", "96%", "98%", "100%"]), (0.41, ["40%", "60%", "80%", "100%"]), (1.0, ["99%", "100%"])],
)
def test_an_axis_begins_at_a_round_number_below_all_points(least: float, ticks: list[str]) -> None:
    shown = labels(line_chart([Line("a", [(0.0, 1.0), (1.0, least)])], "share", "accuracy"))
    assert shown == ["0%", "20%", "40%", "60%", "80%", "100%", *ticks, "share", "accuracy"]


def test_points_are_where_the_axes_say() -> None:
    chart = line_chart([Line("a", [(0, 0), (1, 1)], [0.25, 1]), Line("<b>", [(0.5, 0.5)])], "x", "y", diagonal=True)
    assert '<polyline class=line1 points="52,228 338,10"/>' in chart
    assert re.findall(r'<circle class=(\w+) cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"/>', chart) == [
        ("line1", "52.0", "228.0", "5.5"),
        ("line1", "338.0", "10.0", "9.0"),
    ]
    assert '<polyline class=line2 points="195,119"/>' in chart
    assert "<span class=line1>a</span> <span class=line2>&lt;b&gt;</span>" in chart


def test_a_chart_without_points_is_empty() -> None:
    assert line_chart([Line("a", [])], "x", "y").count("<polyline") > 1
