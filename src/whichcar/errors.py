"""What whichcar raises when the input, not the program, is at fault.

The command prints such an error as it is, without a traceback, and exits with status 2.
A message is short (one line per problem) and says where, what was found and what would do.
"""


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
    """An image of a format that is not opened, such as HEIC."""


class TruncatedImageError(ImageError):
    """The end of an image is missing, as after a broken copy."""


class DetectorError(WhichcarError, ValueError):
    """A detector is unknown, cannot be fetched, or is not of a family that can be decoded."""


class TrainingError(WhichcarError, RuntimeError):
    """Training cannot start or continue: foreign folder, NaN loss, memory or disk used up."""


class TrackingError(WhichcarError, RuntimeError):
    """A tracking service refuses, or does not know the run that an experiment had there."""


class SweepError(WhichcarError, RuntimeError):
    """A search cannot start or continue: its study cannot be used, or its trials all fail alike."""


class ClusterError(WhichcarError, RuntimeError):
    """A Ray cluster cannot be reached or used, or work on it cannot go on."""


class CheckpointError(WhichcarError, ValueError):
    """A checkpoint is missing, broken, or does not fit what is asked of it."""


class ServerError(WhichcarError, RuntimeError):
    """A server cannot be reached, or refuses: `sentence` is its own, `status` HTTP's (0: none), `reason` its word."""

    def __init__(self, message: str, sentence: str = "", status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.sentence, self.status, self.reason = sentence or message, status, reason


class MissingExtraError(WhichcarError, ImportError):
    """An optional package is not installed; the message holds the line that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        from whichcar.install import install_command

        super().__init__(f"{what} is not installed; install it with: {install_command(extra)}")


class Interrupted(WhichcarError):
    """The user stopped a run; what was reached is `saved`. The command exits with status 130 and says how to resume."""

    def __init__(self, message: str, saved: bool = True) -> None:
        super().__init__(message)
        self.saved = saved
