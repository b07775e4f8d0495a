"""Is a server of a library as good as ours: throughput, too many requests, and a worker that dies?

Command:  python benchmarks/serving_libraries.py [cars.whichcar] [--seconds 20]          (about 6 minutes on 2 cores)
Expected: ours is not slower than the others; ours and Ray Serve refuse what is too much at once, LitServe does not; of
          the requests of a dead worker, ours have a 503 and those of LitServe no answer.

`whichcar serve`, LitServe and Ray Serve have the same network, handler, files and load, and a worker for each core;
each runs alone. One that is not installed is left out: pip install litserve 'ray[serve]'.
WHICHCAR_DATA names a folder with car_ims/; else cars are drawn.
"""

import argparse
import asyncio
import importlib.util
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from _load import Load, Server

ROUNDS, FILES = 3, 256
BOUNDARY = "b"
HERE = Path(__file__).parent


def as_form(body: bytes) -> bytes:
    """Return a file as a form, which all of them take."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    return head.encode() + body + f"\r\n--{BOUNDARY}--\r\n".encode()


def free_port() -> str:
    """Return a port that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return str(taken.getsockname()[1])


def wait_until_ready(server: Server, workers: int) -> None:
    """Return when it answers, and all workers have their network."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/health", timeout=5) as answer:
                if answer.status == 200 and len(server.workers()) >= workers:
                    return
        except OSError:
            pass
        time.sleep(0.5)
    raise SystemExit("a server did not get ready")


def shown(load: Load) -> str:
    """Return how many answers had each status."""
    return ", ".join(f"{status}: {count}" for status, count in sorted(load.statuses.items()))


def kill_one(server: Server, load: Load, seconds: float) -> None:
    """Kill a worker in the middle of a load."""

    async def killed() -> None:
        await asyncio.sleep(seconds / 3)
        os.kill(server.workers()[0], signal.SIGKILL)

    async def both() -> None:
        await asyncio.gather(load.run(16, seconds), killed())

    asyncio.run(both())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="default: the model that comes with whichcar")
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    from whichcar.inference.released import find_model
    from whichcar.parallel import usable_cores
    from whichcar.synthetic.draw import draw

    model, cores = str(find_model(options.model)), str(usable_cores())
    ours = (sys.executable, "-m", "whichcar", "serve", model, "--port", "0", "--workers", cores)
    contenders: dict[str, Callable[[], Server]] = {"whichcar serve": lambda: Server(*ours)}
    for name, package in (("LitServe", "litserve"), ("Ray Serve", "grpc_reflection")):
        if importlib.util.find_spec(package) is None:
            print(f"{name}: not installed, left out")
            continue
        program = str(HERE / f"_{name.lower().replace(' ', '_')}_app.py")
        contenders[name] = lambda program=program: Server(sys.executable, program, model, free_port(), cores)
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(os.environ.get("WHICHCAR_DATA") or scratch)
        if data == Path(scratch):
            draw(data)
        bodies = [as_form(path.read_bytes()) for path in sorted((data / "car_ims").iterdir())[:FILES]]
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        print("| | images/s | latency | 64 connections | one worker killed | 512 connections | then one | stops in |")
        print("|---|---:|---|---|---|---|---|---:|", flush=True)
        for name, start in contenders.items():
            server = start()
            wait_until_ready(server, int(cores))
            asyncio.run(Load(server.port, bodies, kind).run(4, options.seconds / 4))  # warm
            rates, load = [], Load(server.port, bodies, kind)
            for _ in range(ROUNDS):
                before = load.statuses["200"]
                start_time = time.perf_counter()
                asyncio.run(load.run(64, options.seconds))
                rates.append((load.statuses["200"] - before) / (time.perf_counter() - start_time))
            cells = [f"{statistics.median(rates):.1f}", load.percentiles(), shown(load)]
            killing = Load(server.port, bodies, kind)
            kill_one(server, killing, options.seconds)
            wait_until_ready(server, int(cores))
            many, after = Load(server.port, bodies, kind), Load(server.port, bodies, kind)
            asyncio.run(many.run(512, options.seconds))
            asyncio.run(after.run(1, options.seconds / 4))
            cells += [shown(killing), shown(many), f"{shown(after)}; {after.percentiles()}", f"{server.stop():.1f} s"]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
