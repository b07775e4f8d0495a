"""The process between a search and a Ray cluster. Ray runs here, so that nothing it does can reach the search.

Ray takes over signals, writes to the screen past Python, waits long for a cluster that is not there, and ends the whole
process when one that was there is gone for a minute. This process reads orders (JSON, one a line) from its input,
writes events to its output, and ends with its input.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from whichcar.search.ray_actor import MISTAKE, Order, Trial

POLL_SECONDS = 0.05
KILLED = -signal.SIGKILL
KILL_SECONDS = 10.0  # for a node to say that the child is dead; then its worker is killed, too


class _FarTrial:
    """A trial on the cluster, as seen from here."""

    def __init__(self, order: Order) -> None:
        import ray

        self._actor = (
            ray.remote(Trial)
            .options(num_cpus=order.cpus, num_gpus=order.gpus, max_concurrency=3, max_restarts=0)
            .remote()
        )
        self._where: Any = self._actor.where.remote()
        self._run: Any = self._actor.run.remote(order)
        self._kill_at = float("inf")
        self._began = False

    def signal(self, number: int) -> None:
        """Send a signal to the training, or take back what still waits for room."""
        if number == signal.SIGKILL:
            self._kill_at = time.monotonic() + KILL_SECONDS
        if self._began:
            self._actor.signal.remote(number)
        else:
            self._kill_at = 0.0

    def where(self) -> str | None:
        """Return the node's name, once, when the trial has one."""
        if self._began or not _is_ready(self._where):
            return None
        import ray

        self._began = True
        try:
            return str(ray.get(self._where))
        except ray.exceptions.RayError:  # `ended` tells why
            return None

    def ended(self) -> tuple[int, str] | None:
        """Return the exit status and what was wrong before the start, once the trial has ended."""
        import ray

        if not _is_ready(self._run):
            if time.monotonic() > self._kill_at:
                self._kill_at = float("inf")
                ray.kill(self._actor)
            return None
        try:
            result = ray.get(self._run)
        except ray.exceptions.RayTaskError as error:
            result = MISTAKE, _on_a_node(error)
        except (ray.exceptions.ActorUnschedulableError, ray.exceptions.RuntimeEnvSetupError) as error:
            result = MISTAKE, f"the cluster does not take the trial: {_last_line(error)}"
        except ray.exceptions.RayError as error:  # the worker or its node died, or Ray needed the memory
            result = KILLED, ""
            if getattr(error, "actor_init_failed", False):  # it could not even load our module
                result = MISTAKE, f"{_on_a_node(error)}; every node needs the same whichcar as this machine"
        ray.kill(self._actor)
        return int(result[0]), str(result[1])


def _is_ready(reference: Any) -> bool:  # noqa: ANN401
    import ray

    return bool(ray.wait([reference], timeout=0)[0])


def _on_a_node(error: BaseException) -> str:
    """Return the error with the node's address, which Ray writes into its text."""
    found = re.search(r"\bip=([^,)\s]+)", str(error))
    return f"node {found[1] if found else 'unknown'}: {_last_line(error)}"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def connect(address: str) -> list[tuple[float, float]]:
    """Connect to the cluster and return the processors and GPUs of each node."""
    import ray

    ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level=logging.CRITICAL)
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(float(node.get("CPU", 0)), float(node.get("GPU", 0))) for node in resources]


def serve(orders: queue.SimpleQueue[dict[str, Any] | None], tell: Callable[..., None]) -> None:
    """Start, signal and watch trials until there is no one left who could give an order."""
    trials: dict[int, _FarTrial] = {}
    while True:
        with contextlib.suppress(queue.Empty):
            order = orders.get(timeout=POLL_SECONDS)
            if order is None:
                return
            if "signal" not in order:
                trials[order["trial"]] = _FarTrial(Order(**order["order"]))
            elif order["trial"] in trials:
                trials[order["trial"]].signal(order["signal"])
        for number, trial in list(trials.items()):
            if node := trial.where():
                tell(trial=number, node=node)
            if ended := trial.ended():
                tell(trial=number, status=ended[0], problem=ended[1])
                del trials[number]


def main() -> None:
    """Connect to the address given, say so, and serve."""
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is no event
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # it would send the working directory to the nodes
    orders: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def tell(**event: object) -> None:
        events.write(f"{json.dumps(event)}\n")
        events.flush()

    def read() -> None:
        for line in sys.stdin:
            orders.put(json.loads(line))
        orders.put(None)

    try:
        tell(nodes=connect(sys.argv[1]))
    except Exception as error:  # Ray's are of many kinds; the search says it in one line
        tell(refused=_last_line(error.__cause__ or error))
        return
    threading.Thread(target=read, daemon=True).start()
    from ray.exceptions import RayError

    try:
        serve(orders, tell)
    except RayError:
        tell(gone=True)
    except Exception:
        tell(bug=traceback.format_exc())


if __name__ == "__main__":
    main()
