"""A job on a Ray cluster: Ray Data distributes its parts to workers, one per processor, and replaces dead workers.

Ray itself runs in a separate process (`main`), as for a search, because it takes over signals, writes to the terminal
past Python, and ends its process when the cluster has been gone for a minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from whichcar.errors import ClusterError
from whichcar.ray_cluster import check_address, connect, last_line, reason_in
from whichcar.scale.parts import Part
from whichcar.scale.storage import Storage
from whichcar.scale.work import Counts, Job, Worker
from whichcar.search.launcher import tied_command

PASSED_ON = ("WHICHCAR_", "AWS_")  # variables that workers get from this process, unless their node sets its own
POLL_SECONDS = 5.0


def on_ray(address: str, job: Job, parts: Sequence[Part]) -> Iterator[Counts | None]:
    """Run the parts on the cluster; yield the counts of each finished part, and None every few seconds without one.

    Raises:
        ClusterError: there is no such cluster (any more), or Ray fails; other failures are in `Counts.error`.
        MissingExtraError: Ray is not installed.
    """
    address = check_address(address)
    request = {"address": address, "job": asdict(job), "parts": [asdict(part) for part in parts]}
    command = tied_command([sys.executable, "-m", __spec__.name], sorted(os.sched_getaffinity(0)))
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        ) as process:
            try:
                for line in _lines(process, json.dumps(request).encode()):
                    yield None if line is None else Counts(**json.loads(line))
            finally:
                process.kill()
        if process.returncode:
            log.seek(0)
            raise ClusterError(f"--ray {address}: {reason_in(log.read())}")


def _lines(process: subprocess.Popen[bytes], request: bytes) -> Iterator[bytes | None]:
    """Send the request and yield the lines of the answer; yield None if there is none for a while."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in process.stdout or ():
                lines.put(line)
        lines.put(b"")

    with contextlib.suppress(BrokenPipeError):  # the process has ended already, and its log says why
        (process.stdin or sys.stdin.buffer).write(request)
        (process.stdin or sys.stdin.buffer).close()
    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=POLL_SECONDS)
        except queue.Empty:
            yield None
            continue
        if not line:
            process.wait()
            return
        yield line


def main() -> None:
    """Connect to the cluster, run the parts of the request on standard input, and print the counts of each."""
    request = json.load(sys.stdin)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)  # Ray's output goes to the log
        try:
            connect(request["address"])
        except ClusterError as error:
            sys.exit(f"error: {error}")
        variables = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        given = request["job"]
        places = {name: Storage(**given[name]) for name in ("source", "target")}
        job = Job(**{**given, **places, "variables": variables})
        try:
            for counts in _finished(job, request["parts"]):
                answer.write(f"{counts}\n")
                answer.flush()
        except Exception as error:
            sys.exit(f"error: {last_line(error)}")


class Attempts:
    """Counts how often each part was started."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def begin(self, part: str) -> int:
        """Count a start of a part, and return how often it has been started."""
        self._counts[part] += 1
        return self._counts[part]


def _finished(job: Job, parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    DataContext.get_current().enable_progress_bars = False
    workers = max(1, min(len(parts), int(ray.cluster_resources().get("CPU", 1))))
    attempts: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()

    def begin(part: str) -> int:
        return int(ray.get(attempts.begin.remote(part)))

    rows = [{"part": json.dumps(part)} for part in parts]
    results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        Worker,
        fn_constructor_args=(job, begin),
        # A worker takes one part at a time; otherwise the last parts would wait for other parts of the same worker.
        compute=ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=1,
        # Calls to a lost node fail many times before its workers are replaced; `begin` counts the starts of a part.
        max_restarts=-1,
        max_task_retries=-1,
    )
    for row in results.iter_rows():
        yield str(row["counts"])


if __name__ == "__main__":
    main()
