"""Rendering templates to pages that need no other file and no network."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from whichcar.files import write_text
from whichcar.pages.charts import chart
from whichcar.pages.thumbnails import embedded, image_tag
from whichcar.text import command_line, one_line, plural
from whichcar.version import VERSION

# Where a name may wrap: after a separator and, in a long file name, before the suffix instead of inside it.
_BREAKS = re.compile(r"(?<=[/_-])(?=[^/_-])|(?<=[^/_-]{16})(?=\.\w{1,5}$)")


def write_page(path: Path, template: str, title: str, **context: object) -> Path:
    """Write the page `templates/<template>.html` atomically and return its path.

    Args:
        path: the page.
        template: name of the template; every value in it is escaped unless it is Markup.
        title: the page's heading.
        context: the other variables of the template. A generator is consumed while the page is rendered.
    """
    write_text(path, render_page(template, title, **context))
    return path


def render_page(template: str, title: str, **context: object) -> str:
    """Return the page that `write_page` writes."""
    page = _environment().get_template(f"{template}.html")
    return page.render({"title": title, "command": command_line()} | context)


def fragment(macro: str, *values: object) -> str:
    """Return what a macro of `macros.html` renders, for a notebook."""
    return scoped(getattr(_environment().get_template("macros.html").module, macro)(*values))


def scoped(content: str) -> str:
    """Return a part of a page together with the style sheet, scoped to that part, for a notebook."""
    style = style_sheet().replace(":root", ":scope").replace("body {", ":scope {")
    return f"<div><style>@scope {{\n{style}}}</style>{content}</div>"


def percent(proportion: float, digits: int = 1) -> str:
    """Return `83.1 %` for 0.831, with a no-break space."""
    return f"{100 * proportion:.{digits}f}\u00a0%"


def prose(sentence: str) -> Markup:
    """Return a sentence whose parts between backticks are shown as code."""
    parts = one_line(sentence).split("`")
    if len(parts) % 2 == 0:
        return escape(sentence)
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def breakable(name: object) -> Markup:
    """Return a path or a long name that wraps after `/`, `_` and `-`, and not inside a suffix such as `.jpg`."""
    return Markup("<wbr>").join(_BREAKS.split(one_line(name)))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("whichcar.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.globals |= {"style": Markup(style_sheet()), "version": VERSION, "plural": plural}
    environment.globals |= {"image_tag": image_tag, "embedded": embedded, "chart": chart}
    environment.filters |= {"percent": percent, "breakable": breakable, "prose": prose}
    return environment


@cache
def style_sheet() -> str:
    """Return the style of all pages."""
    return Path(__file__).with_name("style.css").read_text(encoding="utf-8")


def _finalize(value: object) -> object:
    """Escape line breaks and bytes that are not text, which may be in file names."""
    return one_line(value) if isinstance(value, str | Path) and not isinstance(value, Markup) else value
