"""A load of HTTP requests over loopback, and what a server makes of uploads that are broken."""

import asyncio
import collections
import contextlib
import io
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from whichcar.files import IMAGE_FORMATS

ANSWER = 40  # seconds after which no answer comes any more


class Load:
    """Connections that each send one request after the other, and how they were answered."""

    def __init__(self, port: int, bodies: list[bytes], kind: str = "image/jpeg") -> None:
        self.port, self.bodies, self.kind = port, bodies, kind
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
            head = (
                f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: {self.kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            started = time.perf_counter()
            try:
                streams = streams or await asyncio.open_connection("127.0.0.1", self.port)
                reader, writer = streams
                writer.write(head.encode() + body)
                await writer.drain()
                status, keeps = await asyncio.wait_for(answered(reader), ANSWER)
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
    """Read an answer and return its status, and whether the connection stays."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    if "transfer-encoding: chunked" in head.lower():
        while size := int((await reader.readline()).split(b";")[0], 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    elif length := re.search(r"content-length: (\d+)", head, re.IGNORECASE):
        await reader.readexactly(int(length[1]))
    return head.split(" ", 2)[1], "connection: close" not in head.lower()


class Server:
    """A server in a process of its own that says its address on its first line."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.process.stdout:
            if found := re.search(r"127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                return
        raise SystemExit(f"did not start; run by hand: {' '.join(command)}")

    def megabytes(self) -> float:
        """Return the resident memory of the server and its workers."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        children = [child for task in tasks for child in (task / "children").read_text().split()]
        texts = [Path(f"/proc/{one}/status").read_text() for one in (self.process.pid, *children)]
        return sum(int(re.search(r"VmRSS:\s+(\d+)", text)[1]) for text in texts) / 1024

    def stop(self) -> float:
        """Return the seconds it takes; processes that it leaves behind are killed."""
        children, start = descendants(self.process.pid), time.perf_counter()
        self.process.terminate()
        self.process.wait()
        seconds = time.perf_counter() - start
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return seconds

    def workers(self) -> list[int]:
        """Return the processes that have a network."""
        return [one for one in descendants(self.process.pid) if has_network(one)]


def descendants(process: int) -> list[int]:
    """Return the processes that a process, or one of its children, has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == process:
                found += [int(path.parent.name), *descendants(int(path.parent.name))]
    return found


def has_network(process: int) -> bool:
    """Whether a process has loaded ONNX Runtime."""
    with contextlib.suppress(OSError):
        return "onnxruntime_pybind" in Path(f"/proc/{process}/maps").read_text()
    return False


QUERIES = (b"", b"top=2", b"vehicles=all", b"explain=1", b"vehicles=largest&explain=true", b"confidence=0.9", b"",
           b"top=x", b"none=1", b"explain=2", b"confidence=9&vehicles=x")  # fmt: skip
OTHER_FORMATS = ("AVIF", "EPS", "ICO", "JPEG2000", "PPM", "TGA")  # that Pillow writes and the server does not take
NAMES = (b"image", b"photo", b'image"; x="', b"\xff")
SLOW_PARTS = 4


def broken(bodies: Sequence[bytes], count: int) -> list[bytes]:
    """Return images of all formats with bytes changed, cut off, put in and taken out."""
    rng = np.random.default_rng(5)
    images = [Image.open(io.BytesIO(body)).convert("RGB") for body in bodies[:8]]
    sound = [*bodies[:8], *(_as_file(image, kind) for image in images for kind in (*IMAGE_FORMATS, *OTHER_FORMATS))]
    made = []
    for number in range(count):
        content = bytearray(sound[int(rng.integers(len(sound)))])
        for _ in range(int(rng.integers(0, 30))):
            content[int(rng.integers(len(content)))] = int(rng.integers(256))
        place = int(rng.integers(len(content)))
        made.append(bytes((content, content[:place], content[place:], content[:place] + rng.bytes(9))[number % 4]))
    return made


def _as_file(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.resize((160, 120)).save(file, kind)
    return file.getvalue()


class Fuzz:
    """Broken images and forms, wrong lengths, slow senders, and connections that end in the middle."""

    def __init__(self, port: int, bodies: Sequence[bytes], count: int) -> None:
        self._port = port
        self._left = list(enumerate(broken(bodies, count)))
        self.statuses: collections.Counter[str] = collections.Counter()

    async def run(self, count: int) -> None:
        """Send that many of them, 16 at a time."""
        part, self._left = self._left[:count], self._left[count:]

        async def sender() -> None:
            while part:
                self.statuses[await self._answer(*part.pop())] += 1

        await asyncio.gather(*(sender() for _ in range(16)))

    async def _answer(self, number: int, body: bytes) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            request = _request(number, body)
            step = -(-len(request) // SLOW_PARTS) if number % 17 == 0 else len(request)
            for start in range(0, len(request), step):
                writer.write(request[start : start + step])
                await writer.drain()
                await asyncio.sleep(0.2 if step < len(request) else 0)
            if number % 13 == 0:
                return "closed by the client"
            return (await asyncio.wait_for(answered(reader), 40))[0]
        except (OSError, asyncio.IncompleteReadError):
            return "connection closed"
        finally:
            writer.close()


def _request(number: int, body: bytes) -> bytes:
    kind = b"image/jpeg"
    if number % 3 == 0:
        disposition = b'Content-Disposition: form-data; name="%s"; filename="a.jpg"' % NAMES[number % 4]
        end = b"\r\n--b--\r\n" if number % 5 else b""
        body, kind = b"--b\r\n%s\r\n\r\n%s%s" % (disposition, body, end), b"multipart/form-data; boundary=b"
    length = len(body)
    if number % 7 == 0:
        length += int(number % 2) * 10**9 - number % 5
    head = b"POST /predict?%s HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (QUERIES[number % len(QUERIES)], kind, max(0, length)) + body
