"""What commands with `--ray` share: finding the cluster, one-line reasons if it fails, and reserving processors."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from whichcar.environment import expanded
from whichcar.errors import ClusterError, MissingExtraError
from whichcar.files import locked

ANSWER_SECONDS = 5.0  # for the head of the cluster to accept a connection


def check_address(address: str) -> str:
    """Return the address of a cluster if something listens there; Ray itself would wait for half a minute.

    Args:
        address: `auto` (the cluster of this machine, or RAY_ADDRESS), or `HOST:PORT` of the cluster's head.

    Raises:
        ClusterError: the address has an unsupported form, or nothing listens there.
        MissingExtraError: Ray is not installed.
    """
    address = os.environ.get("RAY_ADDRESS") or address if address == "auto" else address
    if address.startswith("ray://"):
        raise ClusterError(
            f"--ray {address}: Ray's client is not supported; run the command on a machine of the cluster, "
            "with --ray auto or --ray HOST:PORT (of its head)"
        )
    host, _, port = address.rpartition(":")
    if address != "auto" and not port.isdecimal():
        raise ClusterError(f"--ray {address}: must be auto or HOST:PORT, such as 10.0.0.5:6379")
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("Ray", "ray")
    if address != "auto":
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ClusterError(f"--ray {address}: {no_cluster(getattr(error, 'strerror', None) or error)}") from None
    return address


def connect(address: str) -> None:
    """Connect this process to a cluster, with this user's token if there is one.

    `ray start` requires the token as soon as its file exists, but Ray itself uses it by default only with `auto`.

    Raises:
        ClusterError: the cluster cannot be reached, refuses the connection, or has another version of Python or Ray.
    """
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # it would send the working directory to the nodes
    if "RAY_AUTH_MODE" not in os.environ and _has_token():
        os.environ["RAY_AUTH_MODE"] = "token"
    try:
        import ray

        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except Exception as error:  # Ray raises errors of many types
        reason = last_line(error)
        refused = " or it wants another token (RAY_AUTH_TOKEN)" if reason.startswith("Failed to connect") else ""
        raise ClusterError(no_cluster(reason + refused)) from error


def _has_token() -> bool:
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or expanded("~/.ray/auth_token").is_file()


def no_cluster(reason: object) -> str:
    """Return the message for a cluster that does not answer."""
    return f"no Ray cluster there ({reason}); start one with `ray start --head`, or leave --ray out"


def last_line(error: BaseException) -> str:
    """Return the last line of a Ray error, which states the cause, with advice if a node has another whichcar."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[-1] if lines else type(error).__name__
    missing = "No module named 'whichcar" in line
    return f"{line}; every node needs the same whichcar as this machine" if missing else line


def reason_in(log: bytes) -> str:
    """Return the last error in the log of a process that was connected to a cluster; Ray ends it without one."""
    lines = log.decode("utf-8", "replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    gone = "the Ray cluster is gone, or the connection to it; the same command resumes the rest once it is back"
    return errors[-1] if errors else gone


@contextlib.contextmanager
def own_cores(count: int) -> Iterator[list[int]]:
    """Reserve `count` processors of this machine that no other slot uses, until the block ends.

    Ray only counts processors, and a training uses all processors that it may run on, so each slot is bound to its
    share by one locked file per processor. The first is chosen at random, because containers on one machine do not see
    each other's files. If too few are free (Ray was given more than there are), all processors are yielded.
    """
    folder = Path(tempfile.gettempdir()) / f"whichcar_cores_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    first = random.randrange(len(cores))
    reserved: list[int] = []
    with contextlib.ExitStack() as stack:
        for core in cores[first:] + cores[:first]:
            if len(reserved) == count:
                break
            with contextlib.suppress(BlockingIOError):
                stack.enter_context(locked(folder / str(core)))
                reserved.append(core)
        yield sorted(reserved) if len(reserved) == count else cores
