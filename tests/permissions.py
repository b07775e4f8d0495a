"""A folder that the user of a command may not write to, or not list."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def only(mode: int, folder: Path) -> Iterator[None]:
    """Give a folder these permissions, such as 0o555; root, who may do everything, is another user meanwhile."""
    folder.chmod(mode)
    is_root = os.geteuid() == 0
    if is_root:
        for above in folder.parents[:-2]:  # of the temporary folder only
            above.chmod(0o755)
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
