"""Markdown tables, and replacing one between two markers in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from whichcar.errors import DataError
from whichcar.files import write_text
from whichcar.text import one_line, reason_of

BEGIN, END = "<!-- results -->", "<!-- /results -->"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Return the lines of a Markdown table whose first `left` columns are left-aligned."""
    return [_line(head), _line(["---"] * left + ["---:"] * (len(head) - left)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in cells) + " |"


def replace_table(path: Path, content: str, block: str = "") -> None:
    """Write `content` between the markers of a Markdown file, with its line endings, leaving the rest unchanged.

    A file with several tables has named markers: `<!-- results NAME -->` for the `block` of that name.

    Raises:
        DataError: the file or its markers are missing, or the file is not UTF-8.
    """
    begin, end = (mark.replace("results", f"results {block}".rstrip()) for mark in (BEGIN, END))
    if not path.is_file():
        raise DataError(f"{path}: no such file; name one that has the lines {begin} and {end}")
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {reason_of(error)}; save it as UTF-8") from error
    before, begun, rest = text.partition(begin)
    if not begun:
        raise DataError(f"{path}: has no line {begin}; write it and {end} where the table belongs")
    _, ended, after = rest.partition(end if end in rest else begin)
    if not ended:
        raise DataError(f"{path}: {begin} is there but not {end} below it; add that line where the table ends")
    written = f"{begin}\n{content}\n".replace("\n", "\r\n" if "\r\n" in text else "\n")
    write_text(path, f"{before}{written}{ended}{after}")
