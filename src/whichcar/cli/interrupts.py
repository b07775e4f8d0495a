"""What a command says when Ctrl-C ends it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from whichcar.errors import Interrupted


@contextlib.contextmanager
def resumable(message: str, again: str = "to resume") -> Iterator[None]:
    """Say, when Ctrl-C ends the block, what is kept and that the same command can be run again.

    Args:
        message: what is kept, unless the stage says so itself.
        again: what running the command again is for.
    """
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as error:
        raise Interrupted(f"{str(error) or message}\nrun the same command again {again}") from None
