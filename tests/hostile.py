"""Hostile image files by seed: sound ones of every format, what breaks them, what only looks like an image, odd names.

The same seed and count give the same files.
"""

import itertools
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .image_files import SIZE, SOUND, Rng, png, saved, sixteen, tiff, vehicle


def _cut(content: bytes, rng: Rng) -> bytes:
    return content[: int(rng.integers(1, len(content)))]


def _at(rng: Rng, content: bytes, first: float, last: float) -> int:
    return int(rng.integers(int(first * (len(content) - 1)), int(last * (len(content) - 1)) + 1))


def _overwritten(content: bytes, rng: Rng, first: float, last: float, most: int, fill: int | None) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, most))):
        changed[_at(rng, content, first, last)] = int(rng.integers(256)) if fill is None else fill
    return bytes(changed)


def _in_part(content: bytes, rng: Rng, marks: tuple[bytes, ...], fallback: float) -> bytes:
    """Change bytes behind the first mark that is there, such as the name of a chunk."""
    start = next((place for mark in marks if (place := content.find(mark)) >= 0), int(fallback * len(content)))
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 24))):
        changed[min(len(content) - 1, start + int(rng.integers(0, 160)))] = int(rng.integers(256))
    return bytes(changed)


def _resized(content: bytes, rng: Rng) -> bytes:
    """Put other sizes where the file has its own: up to thousands of millions of pixels."""
    changed, side = content, int(rng.choice([0, 1, 79, 5000, 9999, 30000, 65535]))
    for order, width in itertools.product("<>", "HI"):
        for old in SIZE:
            changed = (
                changed[:400].replace(struct.pack(order + width, old), struct.pack(order + width, side)) + changed[400:]
            )
    return changed


BROKEN: dict[str, Callable[[bytes, Rng], bytes]] = {
    "cut off": _cut,
    "head changed": lambda c, r: _overwritten(c, r, 0, 0.05, 6, None),
    "body changed": lambda c, r: _overwritten(c, r, 0.05, 1, 40, None),
    "body zeroed": lambda c, r: (lambda p: c[:p] + bytes(len(c[p : p + 200])) + c[p + 200 :])(_at(r, c, 0.05, 1)),
    "bytes put in": lambda c, r: (lambda p: c[:p] + r.bytes(int(r.integers(1, 40))) + c[p:])(_at(r, c, 0, 1)),
    "bytes taken out": lambda c, r: (lambda p: c[:p] + c[p + int(r.integers(1, 40)) :])(_at(r, c, 0, 1)),
    "EXIF changed": lambda c, r: _in_part(c, r, (b"Exif\0\0", b"eXIf", b"EXIF"), 0.9),
    "profile changed": lambda c, r: _in_part(c, r, (b"ICC_PROFILE", b"iCCP", b"ICCP", b"acsp"), 0.8),
    "end changed": lambda c, r: _overwritten(c, r, 0.95, 1, 6, None),
    "other sizes": _resized,
    "rubbish behind": lambda c, r: c + r.bytes(500),
}


def _loops(rng: Rng) -> bytes:
    return tiff(np.asarray(vehicle(rng)), pages=int(rng.integers(1, 4)), more={0: 8})


def _many_scans(rng: Rng) -> bytes:
    """Return a progressive JPEG whose last scan is repeated a thousand times."""
    content = saved(vehicle(rng), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * 1000 + content[-2:]


ODD: dict[str, tuple[str, Callable[[Rng], bytes]]] = {
    "empty": (".jpg", lambda r: b""),
    "one byte": (".png", lambda r: b"\xff"),
    "random bytes": (".jpg", lambda r: r.bytes(3000)),
    "zeros": (".gif", lambda r: bytes(4096)),
    "web page": (".jpg", lambda r: b"<!DOCTYPE html><html><body>404</body></html>"),
    "Git LFS pointer": (".png", lambda r: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"),
    "EPS": (".jpg", lambda r: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n"),
    "SVG": (".jpg", lambda r: b"<svg xmlns='http://www.w3.org/2000/svg' width='64' height='64'/>"),
    "PDF": (".jpg", lambda r: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"),
    "HEIC": (".jpg", lambda r: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + r.bytes(200)),
    "zip": (".webp", lambda r: b"PK\x03\x04" + r.bytes(200)),
    "PNG called .jpg": (".jpg", lambda r: saved(vehicle(r), "PNG")),
    "JPEG called .tiff": (".tiff", lambda r: saved(vehicle(r), "JPEG")),
    "PNG of 10,000 megapixels": (".png", lambda r: png(sixteen(r, 1), 0, claimed=(100_000, 100_000))),
    "TIFF whose pages go round": (".tif", _loops),
    "TIFF of large tiles": (".tif", lambda r: tiff(np.asarray(vehicle(r)), tile=64, more={322: 65536, 323: 65536})),
    "TIFF of large strips": (".tif", lambda r: tiff(np.asarray(vehicle(r)), more={278: 2**31, 279: 2**31})),
    "TIFF of many channels": (".tif", lambda r: tiff(np.asarray(vehicle(r)), more={277: 65535})),
    "JPEG of many scans": (".jpg", _many_scans),
    "JPEG with text for a profile": (".jpg", lambda r: saved(vehicle(r), "JPEG", icc_profile=b"no profile" * 40)),
    "JPEG, odd EXIF": (".jpg", lambda r: saved(vehicle(r), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08" + r.bytes(60))),
    "JPEG twice": (".jpg", lambda r: saved(vehicle(r), "JPEG") * 2),
    "one pixel": (".png", lambda r: saved(vehicle(r).resize((1, 1)), "PNG")),
    "very long": (".png", lambda r: saved(vehicle(r).resize((20_000, 1)), "PNG")),
}  # fmt: skip

NAMES = (
    "{}",
    "two\nlines {}",
    'it\'s "quoted" {}',
    "100% %s %d {{}} {}",
    "#1?a=b&c {}",
    " blank in front, comma; {}",
    "NFD a\u0308 {}",
    os.fsdecode(b"bytes \xff\xfe ") + "{}",
    "-rf {}",
    "$HOME `id` * {}",
    "\u202eright to left {}",
    "tab\t{}",
    "{}" + "x" * 240,
)


def _name(number: int, suffix: str) -> str:
    name = NAMES[number // 3 % len(NAMES) if number % 3 == 0 else 0].format(f"{number:04d}")
    return os.fsdecode(os.fsencode(name)[: 255 - len(suffix)]) + suffix


def make(folder: Path, seed: int, count: int, classes: tuple[str, ...]) -> dict[str, str]:
    """Write `count` files into class folders, and return what each is by its path relative to `folder`.

    The first are one sound file of each format and one of each odd kind, as far as `count` reaches; then follow sound
    files that were broken, and last, beyond the count, what is no regular file.
    """
    rng = np.random.default_rng(seed)
    made: dict[str, str] = {}
    kinds = [(what, suffix, write) for group in (SOUND, ODD) for what, (suffix, write) in group.items()]
    for number in range(count):
        if number < len(kinds):
            what, suffix, write = kinds[number]
            content = write(rng)
        else:
            form, how = (list(group)[int(rng.integers(len(group)))] for group in (SOUND, BROKEN))
            suffix, write = SOUND[form]
            what, content = f"{form}, {how}", BROKEN[how](write(rng), rng)
        path = f"{classes[number % len(classes)]}/{_name(number, suffix)}"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        made[path] = what
    return made | _no_files(folder, classes[0], rng)


def _no_files(folder: Path, inside: str, rng: Rng) -> dict[str, str]:
    """Make what has an image's name and is no regular file."""
    place = folder / inside
    (place / "folder.jpg").mkdir()
    (place / "folder.jpg" / "sound.png").write_bytes(saved(vehicle(rng), "PNG"))
    os.mkfifo(place / "pipe.jpg")
    (place / "broken link.jpg").symlink_to("nowhere.jpg")
    (place / "round.jpg").symlink_to("round.jpg")
    (place / "endless.jpg").symlink_to("/dev/zero")
    (place / "linked.jpg").symlink_to("folder.jpg/sound.png")
    made = {"folder.jpg/sound.png": "PNG", "pipe.jpg": "pipe", "broken link.jpg": "broken link"}
    made |= {"round.jpg": "link to itself", "endless.jpg": "device", "linked.jpg": "link"}
    if os.getuid():  # root may read everything
        (place / "secret.png").write_bytes(saved(vehicle(rng), "PNG"))
        (place / "secret.png").chmod(0)
        made["secret.png"] = "without permission"
    return {f"{inside}/{name}": what for name, what in made.items()}
