"""The theme of all plotly charts, readable on white and on black, and charts in pages without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from whichcar.errors import extra

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BLUE, GREEN, ORANGE, GREY = "#4c8bd6", "#3fa796", "#e08a3c", "#8c8c8c"  # distinguishable with colour blindness
HEIGHT = 320  # pixels
_LINE = "rgba(128,128,128,.25)"
_AXIS = {
    "gridcolor": _LINE,
    "linecolor": _LINE,
    "zeroline": False,
    "automargin": True,
    "tickfont": {"size": 12},
    "exponentformat": "none",
}
# Text is grey for notebooks; on a page, the style sheet gives it the page's colour.
THEME: dict[str, Any] = {
    "layout": {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "#808080", "family": "system-ui, sans-serif"},
        "margin": {"l": 10, "r": 10, "t": 20, "b": 10},
        "bargap": 0.08,
        "dragmode": False,
        "colorway": [BLUE, GREEN, ORANGE, GREY],
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
}


def plotly_script() -> Markup:
    """Return plotly.js itself, 5 MB, for a page with charts.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    with extra("plotly, which draws the charts,", "check"):
        from plotly.offline import get_plotlyjs
    return Markup(get_plotlyjs())


def chart(figure: Figure, name: str) -> Markup:
    """Return a figure as an HTML element of the full width, for a page that has `plotly_script`.

    Args:
        figure: the figure; its height is 320 pixels by default.
        name: the element's id is `chart-<name>`.
    """
    html = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"chart-{name}",
        default_height=f"{figure.layout.height or HEIGHT}px",
        config={"responsive": True, "displayModeBar": False},
    )
    return Markup("<div class=chart>{}</div>").format(Markup(html))
