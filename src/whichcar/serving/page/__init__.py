"""The page at /: four files that load nothing from elsewhere; its style extends the style of all pages."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import Response

from whichcar.pages.render import style_sheet

_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "map.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
}


def page_file(name: str) -> Response:
    """Return one of the files.

    Raises:
        HTTPException: there is no such file.
    """
    if name not in _TYPES:
        raise HTTPException(404)
    return Response(_content(name), media_type=_TYPES[name], headers={"cache-control": "no-cache"})


@cache
def _content(name: str) -> str:
    content = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return style_sheet() + content if name == "page.css" else content
