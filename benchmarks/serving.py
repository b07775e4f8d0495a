"""Does the server classify as fast as offline prediction, and what does it do under too much load and broken uploads?

Command:  python benchmarks/serving.py [cars.whichcar] [--seconds 60] [--fuzz 3000]    (about 4 minutes on 2 cores)
Expected: at least 0.9 of the offline rate with 64 connections; only 200 and 503 with 512 on a queue of 64.

Offline prediction and the server take the same files in turns. The load comes from one process on the same machine,
over loopback. WHICHCAR_DATA names a folder with car_ims/; else cars are drawn.
"""

import argparse
import asyncio
import collections
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROUNDS, FILES = 3, 256


class Load:
    """Connections that each send one request after the other, and how they were answered."""

    def __init__(self, port: int, bodies: list[bytes], path: str = "/predict") -> None:
        self.port, self.bodies, self.path = port, bodies, path
        self.statuses: collections.Counter[str] = collections.Counter()
        self.seconds: list[float] = []
        self.sent = 0

    async def run(self, connections: int, seconds: float) -> float:
        """Return the answers with status 200 per second."""
        start = time.perf_counter()
        await asyncio.gather(*(self._sender(start + seconds) for _ in range(connections)))
        return self.statuses["200"] / (time.perf_counter() - start)

    async def _sender(self, end: float) -> None:
        streams = None
        while time.perf_counter() < end:
            body, self.sent = self.bodies[self.sent % len(self.bodies)], self.sent + 1
            head = f"POST {self.path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
            started = time.perf_counter()
            try:
                streams = streams or await asyncio.open_connection("127.0.0.1", self.port)
                reader, writer = streams
                writer.write(head.encode() + body)
                await writer.drain()
                status, keeps = await answered(reader)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.statuses[type(error).__name__] += 1
                streams = None
                continue
            self.statuses[status] += 1
            if status == "200":
                self.seconds.append(time.perf_counter() - started)
            else:
                await asyncio.sleep(0.2)  # a client that comes again, if sooner than it was asked to
            if not keeps:
                writer.close()
                streams = None
        if streams:
            streams[1].close()

    def percentiles(self) -> str:
        p50, p99 = np.percentile(self.seconds, (50, 99)) if self.seconds else (0, 0)
        return f"p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms"


async def answered(reader: asyncio.StreamReader) -> tuple[str, bool]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
    await reader.readexactly(int(length[1]) if length else 0)
    return head.split(" ", 2)[1], "connection: close" not in head.lower()


class Server:
    def __init__(self, model: Path, *options: str) -> None:
        command = [sys.executable, "-m", "whichcar", "serve", str(model), "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.port = int(self.process.stdout.readline().split("127.0.0.1:")[1].split()[0])

    def megabytes(self) -> float:
        """Return the resident memory of the server and its workers."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        children = [child for task in tasks for child in (task / "children").read_text().split()]
        texts = [Path(f"/proc/{one}/status").read_text() for one in (self.process.pid, *children)]
        return sum(int(re.search(r"VmRSS:\s+(\d+)", text)[1]) for text in texts) / 1024

    def stop(self) -> float:
        start = time.perf_counter()
        self.process.terminate()
        self.process.wait()
        return time.perf_counter() - start


def broken(bodies: list[bytes], count: int) -> list[bytes]:
    """Return images with bytes changed, cut off, put in and taken out."""
    rng = np.random.default_rng(5)
    made = []
    for number in range(count):
        content = bytearray(bodies[number % len(bodies)])
        for _ in range(int(rng.integers(0, 30))):
            content[int(rng.integers(len(content)))] = int(rng.integers(256))
        place = int(rng.integers(len(content)))
        made.append(bytes((content, content[:place], content[place:], content[:place] + rng.bytes(9))[number % 4]))
    return made


async def fuzz(port: int, bodies: list[bytes], count: int) -> collections.Counter[str]:
    """Send images and forms that are broken, with wrong lengths, and connections that end in the middle."""
    statuses: collections.Counter[str] = collections.Counter()
    left = list(enumerate(broken(bodies, count)))

    async def one(number: int, body: bytes) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            kind, length = b"image/jpeg", len(body)
            if number % 3 == 0:
                name = [b"image", b"photo", b'image"; x="', b"\xff"][number % 4]
                part = b'--b\r\nContent-Disposition: form-data; name="' + name + b'"; filename="a.jpg"\r\n\r\n' + body
                body, kind = part + (b"\r\n--b--\r\n" if number % 5 else b""), b"multipart/form-data; boundary=b"
                length = len(body)
            if number % 7 == 0:
                length += int(number % 2) * 10**9 - number % 5
            head = b"POST /predict?%s HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % ((b"top=2", b"top=x", b"", b"none=1")[number % 11 % 4], kind, max(0, length)) + body)
            await writer.drain()
            if number % 13 == 0:
                return "closed by the client"
            return (await asyncio.wait_for(answered(reader), 30))[0]
        except (OSError, asyncio.IncompleteReadError):
            return "connection closed"
        finally:
            writer.close()

    async def sender() -> None:
        while left:
            statuses[await one(*left.pop())] += 1

    await asyncio.gather(*(sender() for _ in range(16)))
    return statuses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="default: the model that comes with whichcar")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--fuzz", type=int, default=3000)
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
        paths = sorted((data / "car_ims").iterdir())[:FILES]
        bodies = [path.read_bytes() for path in paths]
        classifier, server = Classifier(options.model), Server(options.model)
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
        statuses = asyncio.run(fuzz(server.port, bodies, options.fuzz))
        print(f"{options.fuzz} broken uploads: {dict(statuses)}, memory {server.megabytes():.0f} MB")
        print(f"stopped in {server.stop():.1f} s")
        small = Server(options.model, "--queue", "64")
        load = Load(small.port, bodies)
        rate = asyncio.run(load.run(512, options.seconds / ROUNDS))
        print(f"512 connections on a queue of 64: {rate:.1f} images/s, {load.percentiles()}, {dict(load.statuses)}")
        again = Load(small.port, bodies)
        asyncio.run(again.run(1, 1))
        print(f"then one connection: {dict(again.statuses)}; stopped in {small.stop():.1f} s")


if __name__ == "__main__":
    main()
