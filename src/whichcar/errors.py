"""Errors raised when the input, not the program, is at fault.

The command prints such an error without a traceback and exits with status 2.
A message is short (one line per problem) and says where the problem is, what was found and how to fix it.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class WhichcarError(Exception):
    """Base of all errors that a user can fix."""


class ConfigError(WhichcarError, ValueError):
    """A setting is missing, unknown or out of its limits."""


class DataError(WhichcarError, ValueError):
    """A data folder, a label file or a tree is not what the stage needs."""


class ImageError(DataError):
    """One file cannot be read as an image; `reason` is the message without the file's name."""

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason or message


class UnsupportedFormatError(ImageError):
    """An image in an unsupported format, such as HEIC."""


class TruncatedImageError(ImageError):
    """The end of an image is missing, as after an interrupted copy."""


class DetectorError(WhichcarError, ValueError):
    """A detector is unknown, cannot be fetched, or belongs to an unsupported family."""


class TrainingError(WhichcarError, RuntimeError):
    """Training cannot start or continue: unsuitable folder, NaN loss, or out of memory or disk space."""


class TrackingError(WhichcarError, RuntimeError):
    """A tracking service refuses a request, or does not have the run that the experiment logged to."""


class SweepError(WhichcarError, RuntimeError):
    """A search cannot start or continue: unusable study, full disk, or first trials that all fail with one error."""


class ClusterError(WhichcarError, RuntimeError):
    """A Ray cluster cannot be reached or used, or work on it cannot continue."""


class CheckpointError(WhichcarError, ValueError):
    """A checkpoint is missing, damaged, or unsuitable for what is requested, such as too large for the memory."""


class ServerError(WhichcarError, RuntimeError):
    """A server cannot be reached, or refuses a request.

    `sentence` is the server's own message, `status` the HTTP status (0: none), `reason` a word or two for programs.
    """

    def __init__(self, message: str, sentence: str = "", status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.sentence, self.status, self.reason = sentence or message, status, reason


class MissingExtraError(WhichcarError, ImportError):
    """An optional package is not installed; the message contains the command that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        from whichcar.install import install_command

        super().__init__(f"{what} is not installed; install it with: {install_command(extra)}")


@contextmanager
def extra(what: str, name: str) -> Iterator[None]:
    """Raise MissingExtraError if an import in the block fails: `what` is missing, which the extra `name` installs."""
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(what, name) from error


class Interrupted(WhichcarError):
    """The user interrupted a run.

    `saved` is true if the progress was saved. The command says how to resume and ends by SIGINT, which a shell reports
    as status 130.
    """

    def __init__(self, message: str, saved: bool = True) -> None:
        super().__init__(message)
        self.saved = saved
