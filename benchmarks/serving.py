"""Does the server classify as fast as offline prediction, and what does it do under too much load and broken uploads?

Command:  python benchmarks/serving.py [cars.whichcar] [--seconds 60] [--fuzz 10000]   (about 6 minutes on 2 cores)
Expected: at least 0.9 of the offline rate with 64 connections; only 200 and 503 with 512 on a queue of 64.

Offline prediction and the server take the same files in turns. The load comes from one process on the same machine,
over loopback. WHICHCAR_DATA names a folder with car_ims/; else cars are drawn.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from _load import Fuzz, Load, Server

ROUNDS, FILES = 3, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="default: the model that comes with whichcar")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--fuzz", type=int, default=10_000)
    options = parser.parse_args()
    from whichcar.errors import CheckpointError
    from whichcar.inference.classifier import Classifier
    from whichcar.inference.released import find_model
    from whichcar.synthetic.draw import draw

    try:
        options.model = find_model(options.model)
    except CheckpointError as error:
        print(f"skipped: {error}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(os.environ.get("WHICHCAR_DATA") or scratch)
        if data == Path(scratch):
            draw(data)
        command = (sys.executable, "-m", "whichcar", "serve", str(options.model), "--port", "0")
        paths = sorted((data / "car_ims").iterdir())[:FILES]
        bodies = [path.read_bytes() for path in paths]
        classifier, server = Classifier(options.model), Server(*command)
        classifier.predict(paths[:16])
        offline, served, waits = [], [], []
        for number in range(ROUNDS):
            start = time.perf_counter()
            classifier.predict(paths)
            offline.append(len(paths) / (time.perf_counter() - start))
            load = Load(server.port, bodies)
            served.append(asyncio.run(load.run(64, options.seconds / ROUNDS)))
            waits += load.seconds
            print(f"64 connections: {served[-1]:.1f} images/s, {load.percentiles()}, {dict(load.statuses)}, "
                  f"offline {offline[-1]:.1f} images/s, memory {server.megabytes():.0f} MB")  # fmt: skip
            if number == 0:
                before = server.megabytes()
        ratio = statistics.median(one / other for one, other in zip(served, offline, strict=True))
        print(f"server / offline: {ratio:.2f}; memory {100 * (server.megabytes() / before - 1):+.1f} % since round 1")
        fuzz = Fuzz(server.port, bodies, options.fuzz)
        for tenth in range(1, 11):
            asyncio.run(fuzz.run(-(-options.fuzz // 10)))
            if tenth in (1, 5, 10):
                print(
                    f"{fuzz.statuses.total()} broken uploads: {dict(fuzz.statuses)}, memory {server.megabytes():.0f} MB"
                )
        print(f"stopped in {server.stop():.1f} s")
        small = Server(*command, "--queue", "64")
        load = Load(small.port, bodies)
        rate = asyncio.run(load.run(512, options.seconds / ROUNDS))
        print(f"512 connections on a queue of 64: {rate:.1f} images/s, {load.percentiles()}, {dict(load.statuses)}")
        again = Load(small.port, bodies)
        asyncio.run(again.run(1, 1))
        print(f"then one connection: {dict(again.statuses)}; stopped in {small.stop():.1f} s")


if __name__ == "__main__":
    main()
