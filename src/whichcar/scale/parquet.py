"""Parquet files of rows, which the workers write for each part."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from whichcar.errors import extra


def schema_of(columns: Mapping[str, str]) -> Any:  # noqa: ANN401  (PyArrow has no types)
    """Return a schema from the names of columns and of their PyArrow types, such as `int64`.

    Raises:
        MissingExtraError: PyArrow is not installed.
    """
    arrow = _pyarrow()
    return arrow.schema([(name, arrow.type_for_alias(kind)) for name, kind in columns.items()])


def content_of(rows: Sequence[Mapping[str, Any]], schema: object) -> bytes:
    """Return the content of a file with these rows; missing values are null."""
    content = io.BytesIO()
    _pyarrow().parquet.write_table(_pyarrow().Table.from_pylist(rows, schema), content)
    return content.getvalue()


def rows_in(content: bytes) -> list[dict[str, Any]]:
    """Return the rows of a file that `content_of` made."""
    rows: list[dict[str, Any]] = _pyarrow().parquet.read_table(io.BytesIO(content)).to_pylist()
    return rows


def _pyarrow() -> Any:  # noqa: ANN401
    with extra("PyArrow", "ray"):
        import pyarrow.parquet
    return pyarrow
