"""Training on several hosts: a process on each, which all take the same steps on their parts of every batch (JAX only).

The first host writes to the experiment's folder. Each other one trains in a copy of its own that it deletes at the
end, so that nothing else in the training has to ask which host it runs on.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from whichcar.config.load import config_in, folder_of
from whichcar.errors import MissingExtraError, TrainingError
from whichcar.text import one_line

AUTO = "auto"  # Slurm, Open MPI, Kubernetes and Cloud TPU tell each process its place
STEPS = 10  # of an epoch, after which the hosts ask each other whether one of them was told to stop
_PATIENCE = 30  # seconds without a sign of life after which a host is given up, and with it the training
_count = 1


def join(config: Path, hosts: str, number: int | None = None) -> Path:
    """Wait for the other hosts, and return the settings file to train with: a copy on all hosts but the first.

    Args:
        config: the experiment's settings file; on hosts other than the first, with its folder if a run is resumed.
        hosts: addresses separated by commas, that of the first host with a free port; or `auto`.
        number: which of them this one is, from 0; None with `auto`.

    Raises:
        MissingExtraError: JAX is not installed.
        TrainingError: the number is none of theirs, or the hosts do not find each other within five minutes.
    """
    global _count
    names = [] if hosts == AUTO else hosts.split(",")
    if names and number not in range(len(names)):
        wrong = "is missing" if number is None else f"got {number}"
        raise TrainingError(f"--host: is this host's place in --hosts, 0 to {len(names) - 1}; {wrong}")
    os.environ["KERAS_BACKEND"] = "jax"
    try:
        import jax
    except ImportError as error:
        raise MissingExtraError("JAX", "gpu") from error
    place = (names[0], len(names), number) if names else ()
    try:
        jax.distributed.initialize(*place, heartbeat_timeout_seconds=_PATIENCE, shutdown_timeout_seconds=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"--hosts {hosts}: the hosts did not find each other: {one_line(error)}") from error
    _count = jax.process_count()
    own = _copied(config_in(config)) if jax.process_index() else config
    _of_all(0)  # the first one changes nothing before the others have their copies
    return own


def _copied(config: Path) -> Path:
    """Copy an experiment's settings, and what there is of its run, to where this host may write."""
    place = Path(tempfile.mkdtemp(prefix="whichcar_host_"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    source = folder_of(config)
    if source.exists():
        shutil.copytree(source, place / source.name)
    beside = source != config.parent  # NAME.yml, with the folder NAME
    return Path(shutil.copy(config, place / config.name if beside else place / source.name / config.name))


def are_several() -> bool:
    """True in a process that has joined others."""
    return _count > 1


def agree(settings: str) -> None:
    """Check that all hosts are about to do the same.

    Raises:
        TrainingError: another host has other settings, images or another version of whichcar.
    """
    digest = hashlib.blake2b(settings.encode(), digest_size=8).digest()
    digests = _of_all(list(digest))
    other = next((host for host, row in enumerate(digests) if (row != digests[0]).any()), None)
    if other is not None:
        raise TrainingError(
            f"host {other}: has other settings, images, saved state or another version of whichcar than host 0; all "
            "must be the same"
        )


def are_to_stop(asked: bool, step: int) -> bool:
    """True where this host is asked to stop, or, after some steps of an epoch, any of several hosts is.

    All of them ask after the same step, so that none waits in the next one for a host that has stopped.
    """
    if _count == 1:
        return asked
    return step % STEPS == 1 and bool(_of_all(int(asked)).any())


def _of_all(value: int | list[int]) -> np.ndarray:
    """Return the values of all hosts, by number, once all have come here."""
    if _count == 1:
        return np.array([value])
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.array(value, np.int32)))
