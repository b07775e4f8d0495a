"""The environment variables that whichcar reads, in one table, and the folders that depend on them."""

from __future__ import annotations

import logging
import os
import stat
from functools import cache
from pathlib import Path

from whichcar.errors import DataError

log = logging.getLogger(__name__)

# A test compares the README and `whichcar --help` with this table.
VARIABLES = {
    "WHICHCAR_CACHE": "Folder for decoded images, scan results and detectors (default: ~/.cache/whichcar).",
    "WHICHCAR_SOURCE": "What `fetch` gets if no SOURCE is given; several are separated by spaces.",
    "WHICHCAR_DETECTOR": "Detector for cropping, if neither --detector nor the model names one: a name or FILE.onnx.",
    "WHICHCAR_ANONYMOUS": "Set to 1 to read public S3 buckets without credentials.",
    "WHICHCAR_QUIET": "Set to 1 to hide progress bars.",
    "XDG_CACHE_HOME": "Folder of all caches, instead of ~/.cache.",
    "KERAS_BACKEND": "Framework for training: tensorflow or jax (default: jax with a GPU, else tensorflow).",
    "MLFLOW_TRACKING_URI": "Address of the server for --track mlflow.",
    "MLFLOW_EXPERIMENT_NAME": "MLflow experiment to log runs in.",
    "AWS_ENDPOINT_URL": "Address of the S3 server if it is not AWS. Variables such as AWS_ACCESS_KEY_ID work as usual.",
    "WHICHCAR_TOKENS": "Bearer tokens that `serve` accepts, separated by spaces, in addition to those of --tokens.",
    "RAY_ADDRESS": "Cluster that `--ray auto` uses.",
}


def is_set(name: str) -> bool:
    """Return whether a switch such as `WHICHCAR_QUIET=1` is on; empty and 0 are off."""
    return os.environ.get(name, "") not in ("", "0")


def keep_compiled() -> None:
    """Enable JAX's compilation cache before JAX is imported: compiling a ResNet-50 takes a minute per image size."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_root() / "jax"))


def cache_root() -> Path:
    """Return the folder of all caches: `WHICHCAR_CACHE`, else `whichcar` in the user's cache folder.

    If there is no home folder, as for a user ID that the system does not know, it is a folder inside the temporary
    folder, and a warning says so once.

    Raises:
        DataError: no folder can be used.
    """
    if named := os.environ.get("WHICHCAR_CACHE"):
        return expanded(named)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "whichcar"
    try:
        return Path.home() / ".cache" / "whichcar"
    except RuntimeError:
        return _temporary()


def expanded(path: str | Path) -> Path:
    """Return a path with `~` replaced by the home folder.

    Raises:
        DataError: there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(
            f"{path}: there is no home folder for ~ to stand for; set HOME, or write the whole path"
        ) from error


@cache
def _temporary() -> Path:
    import tempfile

    user = os.getuid()
    folder = Path(tempfile.gettempdir()) / f"whichcar-{user}"
    advice = "set WHICHCAR_CACHE or XDG_CACHE_HOME to a folder for the cache"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}, and there is no home folder; {advice}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user:
        raise DataError(f"{folder}: is another user's, and there is no home folder; {advice}")
    log.warning("no home folder: the cache is %s; %s that stays", folder, advice)
    return folder
