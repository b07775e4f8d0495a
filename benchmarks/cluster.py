"""What does a Ray cluster cost: images/s of `whichcar predict --ray` on this machine against the plain command?

Command:  python benchmarks/cluster.py               (about 10 minutes on 2 cores)
Expected: with one worker on each core at least 0.9 of the plain command, which uses all cores too.

Both classify drawn images with the released model. A command is run with some images and with three times as many, in
turns; what counts is the time for the further ones, without that of the start.
"""

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from _measure import print_rates

ROUNDS, COUNT = 3, 400


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Start a node with all cores of this machine; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}"]
    options = ["--include-dashboard=false", "--object-store-memory=200000000", f"--temp-dir={folder}"]
    options.append(f"--num-cpus={len(os.sched_getaffinity(0))}")
    with (folder / "message.txt").open("w") as log:
        process = subprocess.Popen([*ray, *options], stdout=log, stderr=subprocess.STDOUT)
    try:
        while "block forever" not in (folder / "message.txt").read_text():
            assert process.poll() is None, (folder / "message.txt").read_text()
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def seconds(source: Path, output: Path, *options: str) -> float:
    """Return how long the command takes; its output is deleted."""
    command = [sys.executable, "-m", "whichcar", "predict", str(source), "--output", str(output), *options]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "WHICHCAR_QUIET": "1"})
    taken = time.perf_counter() - start
    shutil.rmtree(output) if output.is_dir() else output.unlink()
    return taken


def main() -> None:
    from whichcar.synthetic.draw import draw

    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory(prefix="ray_", dir="/tmp") as ray:
        folder = Path(scratch)
        draw(folder, classes=8, per_class=8, size=(480, 640))
        drawn = sorted((folder / "car_ims").glob("*.jpg"))
        for name, count in (("few", COUNT), ("many", 3 * COUNT)):
            (folder / name).mkdir()
            for number in range(count):
                (folder / name / f"{number:05d}.jpg").symlink_to(drawn[number % len(drawn)])
        rates: dict[str, list[float]] = {"plain": [], "--ray": []}
        with cluster(Path(ray)) as address:
            for _ in range(ROUNDS):
                for name, output, options in (("plain", "out.csv", []), ("--ray", "out", ["--ray", address])):
                    few, many = (seconds(folder / size, folder / output, *options) for size in ("few", "many"))
                    rates[name].append(2 * COUNT / (many - few))
        print_rates("Classifying files", {name: statistics.median(values) for name, values in rates.items()}, "plain")


if __name__ == "__main__":
    main()
