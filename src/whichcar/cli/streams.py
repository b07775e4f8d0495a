"""Standard input, output and error as a command finds them: closed, full, or in an encoding without some characters."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterable

from whichcar.errors import DataError
from whichcar.text import one_line


def prepare_streams() -> None:
    r"""Make every text printable, and see that output goes somewhere.

    A character that the encoding of a stream lacks becomes `\u00e9`, as in JSON. A closed standard error is silent.

    Raises:
        DataError: standard output is closed.
    """
    codecs.register_error("escaped", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="escaped")
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _occupy()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  (stays open)
    if sys.stdout is None:
        raise DataError("standard output is closed; send it to a file, or to /dev/null")


def say(line: str) -> None:
    """Print a line on standard output at once, so that it stays whatever comes after.

    Raises:
        OSError: it cannot be written; its file name is `standard output`.
    """
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except BrokenPipeError:  # a reader such as `head` that has enough
        raise
    except OSError as error:
        _drop_output()
        raise OSError(error.errno, error.strerror, "standard output") from error


def say_lines(lines: Iterable[str]) -> None:
    """Print lines as they come."""
    for line in lines:
        say(line)


def described(error: OSError) -> str:
    """Return what the system refused, and where, in one line."""
    try:
        sys.stdout.flush()  # click, which prints help, leaves there what could not be written
    except OSError:
        _drop_output()
    where = f"{one_line(error.filename)}: " if error.filename else ""
    advice = {
        errno.EACCES: "; change its permissions",
        errno.EPERM: "; change its permissions",
        errno.EROFS: "; choose a folder on another disk",
    }.get(error.errno or 0, "")
    return f"{where}{error.strerror}{advice}"


def _drop_output() -> None:
    """Let what could not be written go nowhere, or Python would fail with it once more at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _occupy() -> None:
    """Let no file get the number of a closed stream: what libraries print would be written into it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in zip(units[::2], units[1::2], strict=True)), error.end
