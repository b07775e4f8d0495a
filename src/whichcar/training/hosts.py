"""Training on several hosts: one process each, taking the same steps on its part of every batch (JAX only).

Only the first host writes to the experiment's folder. Every other host trains in a copy that it deletes at the end, so
that no other training code depends on which host it runs on.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np

from whichcar.config.load import config_in, folder_of
from whichcar.environment import keep_compiled
from whichcar.errors import TrainingError, extra
from whichcar.text import one_line

AUTO = "auto"  # Slurm, Open MPI, Kubernetes and Cloud TPU tell each process its index
STEPS = 10  # interval, in steps, at which the hosts check whether one of them is to stop
_PATIENCE = 30  # seconds without a heartbeat after which a host, and with it the training, is given up
_count, _index = 1, 0


def join(config: Path, hosts: str, number: int | None = None) -> Path:
    """Wait for the other hosts and return the settings file to train with, which is a copy on all but the first.

    Args:
        config: the experiment's settings file or folder; to resume a run, its files must be on all hosts.
        hosts: comma-separated addresses, the first one with a free port; or `auto`.
        number: index of this host in `hosts`, from 0; None with `auto`.

    Raises:
        ConfigError: there is no such settings file.
        MissingExtraError: JAX is not installed.
        TrainingError: an address or the number is wrong, the hosts do not find each other within five minutes,
            JAX cannot start, or the experiment cannot be copied.
    """
    global _count, _index
    file = config_in(config).absolute()
    source = folder_of(file)
    names = [] if hosts == AUTO else hosts.split(",")
    if names and not re.search(r":\d+$", names[0]):
        raise TrainingError(f"--hosts: the first address needs a free port, such as {names[0]}:8476; got {hosts}")
    if names and number not in range(len(names)):
        wrong = "is missing" if number is None else f"got {number}"
        raise TrainingError(f"--host: is this host's place in --hosts, 0 to {len(names) - 1}; {wrong}")
    os.environ["KERAS_BACKEND"] = "jax"
    keep_compiled()
    with extra("JAX", "gpu"):
        import jax
    place = (names[0], len(names), number) if names else ()
    try:
        jax.distributed.initialize(*place, heartbeat_timeout_seconds=_PATIENCE, shutdown_timeout_seconds=_PATIENCE)
        _count, _index = jax.process_count(), jax.process_index()
    except (RuntimeError, ValueError, AssertionError) as error:  # the last for JAX_PLATFORMS=cuda without a GPU
        raise TrainingError(f"--hosts {hosts}: this host cannot join the others: {one_line(error)}") from error
    own = _copied(file, source) if _index else config
    _of_all(0)  # the first host changes nothing before the others have their copies
    return own


def _copied(config: Path, source: Path) -> Path:
    """Copy an experiment's settings, and the files of its run if there is one, to a temporary folder of this host."""
    place = Path(tempfile.mkdtemp(prefix="whichcar_host_"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    if source.exists():
        try:
            shutil.copytree(source, place / source.name)
        except shutil.Error as error:
            raise TrainingError(
                f"{place}: {source} cannot be copied there ({one_line(error.args[0][0][2])}); make room there, or set "
                "TMPDIR to another folder"
            ) from error
    if source == config.parent:
        return place / source.name / config.name
    return Path(shutil.copy(config, place))  # NAME.yml, with the folder NAME


def are_several() -> bool:
    """Return whether this process has joined others."""
    return _count > 1


def trains_in_copy() -> bool:
    """Return whether this process trains in a copy of the experiment's folder: all do but the first of several."""
    return _index > 0


def agree(content: str, what: str) -> None:
    """Check that `content` is the same on all hosts; `what` names it, or what it depends on, in the error.

    Raises:
        TrainingError: it differs.
    """
    digest = hashlib.blake2b(content.encode(), digest_size=8).digest()
    digests = _of_all(list(digest))
    other = next((host for host, row in enumerate(digests) if (row != digests[0]).any()), None)
    if other is not None:
        raise TrainingError(
            f"host {other}: has other {what}, or another precision or version of whichcar, than host 0; all hosts must "
            "have the same"
        )


def are_to_stop(asked: bool, step: int) -> bool:
    """Return whether this host, or any of several hosts, was asked to stop; several hosts check every `STEPS` steps.

    All hosts check after the same step, so that none waits in the next step for a host that has stopped.
    """
    if _count == 1:
        return asked
    return step % STEPS == 1 and bool(_of_all(int(asked)).any())


def _of_all(value: int | list[int]) -> np.ndarray:
    """Return the values of all hosts, by index, once all have called this function."""
    if _count == 1:
        return np.array([value])
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.array(value, np.int32)))
