"""Tables and lists for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

SHOWN = 10  # entries of a list; further ones are counted


def columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Align the cells: text to the left, columns of numbers to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))] if rows else []
    numeric = [all(_is_number(row[place]) for row in rows[1:]) for place in range(len(widths))]
    for row in rows:
        cells = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numeric, strict=True)
        )
        yield "  ".join(cells).rstrip()


def _is_number(cell: str) -> bool:
    return cell.rstrip("%").replace(".", "", 1).isdigit()
