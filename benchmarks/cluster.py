"""What does a Ray cluster cost: images/s of `whichcar predict --ray` on this machine against the plain command?

Command:  python benchmarks/cluster.py               (about 15 minutes on 2 cores)
Expected: for each core at least 0.9 of the plain command, which uses all cores, with one worker and with one on each
          core; the memory of a worker grows by at most 5 % once it is at work.

All classify drawn images with the released model. A command is run with some images and with three times as many, in
turns; what counts is the time for the further ones, without that of the start. Of the longer runs, memory is the
resident set of the largest worker, in the second quarter of its time and in the last.
"""

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROUNDS, COUNT = 3, 300
CORES = len(os.sched_getaffinity(0))


@contextlib.contextmanager
def cluster(folder: Path, cores: int) -> Iterator[str]:
    """Start a node with this number of cores; yields its address."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}"]
    options = ["--include-dashboard=false", "--object-store-memory=200000000", f"--temp-dir={folder}"]
    options.append(f"--num-cpus={cores}")
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


@contextlib.contextmanager
def watched(samples: list[float]) -> Iterator[None]:
    """Note the resident set of the largest worker, in MB, each second."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1):
            found = []
            for entry in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if b"MapWorker" in (entry / "cmdline").read_bytes():
                        pages = int((entry / "statm").read_text().split()[1])
                        found.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
            if found:
                samples.append(max(found))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


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
        plain: list[float] = []
        table: list[tuple[int, list[float], float, float]] = []
        for cores in sorted({1, CORES}):
            rates: list[float] = []
            memory: list[tuple[float, float]] = []
            with cluster(Path(ray) / str(cores), cores) as address:
                for _ in range(ROUNDS):
                    few, many = (seconds(folder / size, folder / "out.csv") for size in ("few", "many"))
                    plain.append(2 * COUNT / (many - few))
                    few = seconds(folder / "few", folder / "out", "--ray", address)
                    samples: list[float] = []
                    with watched(samples):
                        many = seconds(folder / "many", folder / "out", "--ray", address)
                    rates.append(2 * COUNT / (many - few))
                    quarter = len(samples) // 4
                    memory.append((max(samples[quarter : 2 * quarter]), max(samples[-quarter:])))
            table.append((cores, rates, *map(statistics.median, zip(*memory, strict=True))))
        reference = statistics.median(plain)
        print("\nClassifying files\n\n| | images/s | for each core, times plain | MB of a worker | later |")
        print(f"|---|---:|---:|---:|---:|\n| plain | {reference:.1f} | 1.00 | | |")
        for cores, rates, early, late in table:
            rate = statistics.median(rates)
            share = rate / cores / (reference / CORES)
            print(f"| --ray, {cores} at work | {rate:.1f} | {share:.2f} | {early:.0f} | {late:.0f} |")


if __name__ == "__main__":
    main()
