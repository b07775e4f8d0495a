"""Sound image files of every format that is read, as bytes, of drawn vehicles."""

import io
import itertools
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

Rng = np.random.Generator
SIZE = (80, 64)  # width, height
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def vehicle(rng: Rng, size: tuple[int, int] = SIZE) -> Image.Image:
    """Draw a red block, which the detector of the tests takes for a car, on noise."""
    pixels = rng.integers(100, 156, (size[1], size[0], 3), dtype=np.uint8)
    top, left = rng.integers(4, 16, 2)
    pixels[top : top + size[1] // 2, left : left + size[0] // 2] = (230, 20, 20)
    return Image.fromarray(pixels)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)  # type: ignore[arg-type]
    return file.getvalue()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x9003] = orientation, "a car", "2011:01:01 00:00:00"
    return exif


def tiff(
    pixels: np.ndarray, order: str = "<", tile: int = 0, pages: int = 1, more: dict[int, int] | None = None
) -> bytes:
    """Return a TIFF of (height, width[, channels]), deflated, in strips or tiles; Pillow writes no tiles.

    `more` lays values over those of the tags, such as sizes that are not true; tag 0 is the offset of the next page.
    """
    height, width, *rest = pixels.shape
    down, across = (tile, tile) if tile else (height, width)
    edges = [(0, -height % down), (0, -width % across), (0, 0)][: pixels.ndim]
    padded = np.pad(pixels.astype(pixels.dtype.newbyteorder(order)), edges)
    corners = itertools.product(range(0, height, down), range(0, width, across))
    blocks = [padded[y : y + down, x : x + across] for y, x in corners]
    packed = [zlib.compress(np.ascontiguousarray(block).tobytes()) for block in blocks]
    start = 8 + sum(map(len, packed))
    offsets = list(itertools.accumulate(map(len, packed[:-1]), initial=8))
    channels, bits = (rest or [1])[0], pixels.dtype.itemsize * 8
    tags = {256: [width], 257: [height], 258: [bits] * channels, 259: [8], 262: [{1: 1, 3: 2, 4: 5}[channels]]}
    tags |= {277: [channels], 339: [3 if pixels.dtype.kind == "f" else 1] * channels}
    where = {322: [tile], 323: [tile], 324: offsets, 325: list(map(len, packed))}
    tags |= where if tile else {273: offsets, 278: [height], 279: list(map(len, packed))}
    tags |= {tag: [value] for tag, value in (more or {}).items() if tag}
    values, entries = b"", b""
    for tag, numbers in sorted(tags.items()):
        inside = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(inside) > 4:
            inside, values = struct.pack(f"{order}I", start + len(values)), values + inside
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + inside
    size, first = 6 + len(entries), start + len(values)
    following = [first + size * (page + 1) for page in range(pages - 1)] + [(more or {}).get(0, 0)]
    ifds = b"".join(struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", one) for one in following)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", first)
    return head + b"".join(packed) + values + ifds


def png(pixels: np.ndarray, kind: int, interlaced: bool = False, claimed: tuple[int, int] = (0, 0)) -> bytes:
    """Return a PNG of 16-bit numbers, which Pillow writes for grey only; `claimed` is a size that is not true."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    starts = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    passes = [pixels[y::down, x::across] for x, y, across, down in starts] if interlaced else [pixels]
    body = b"".join(b"\0" + row.astype(">u2").tobytes() for part in passes for row in part)
    width, height = claimed if any(claimed) else (pixels.shape[1], pixels.shape[0])
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def _frames(rng: Rng) -> dict[str, object]:
    return {"save_all": True, "append_images": [vehicle(rng), vehicle(rng)]}


def sixteen(rng: Rng, channels: int) -> np.ndarray:
    image = np.asarray(vehicle(rng).convert("RGBA")).astype(np.uint16) * 257
    return image[..., :channels] if channels > 1 else image[..., 0]


SOUND: dict[str, tuple[str, Callable[[Rng], bytes]]] = {
    "JPEG": (".jpg", lambda r: saved(vehicle(r), "JPEG", exif=_exif(int(r.integers(1, 9))))),
    "JPEG with a profile": (".JPG", lambda r: saved(vehicle(r), "JPEG", icc_profile=SRGB)),
    "JPEG progressive": (".jpeg", lambda r: saved(vehicle(r), "JPEG", progressive=True, exif=_exif(6))),
    "JPEG CMYK": (".jpg", lambda r: saved(vehicle(r).convert("CMYK"), "JPEG")),
    "JPEG grey": (".jpg", lambda r: saved(vehicle(r).convert("L"), "JPEG")),
    "MPO": (".jpg", lambda r: saved(vehicle(r), "MPO", **_frames(r))),
    "PNG": (".png", lambda r: saved(vehicle(r), "PNG", icc_profile=SRGB, exif=_exif(3))),
    "PNG RGBA": (".png", lambda r: saved(vehicle(r).convert("RGBA"), "PNG")),
    "PNG palette, transparent": (".png", lambda r: saved(vehicle(r).quantize(16), "PNG", transparency=3)),
    "PNG black and white": (".png", lambda r: saved(vehicle(r).convert("1"), "PNG")),
    "PNG 16-bit grey": (".png", lambda r: png(sixteen(r, 1), 0)),
    "PNG 16-bit RGB, interlaced": (".png", lambda r: png(sixteen(r, 3), 2, interlaced=True)),
    "PNG 16-bit RGBA": (".png", lambda r: png(sixteen(r, 4), 6)),
    "APNG": (".png", lambda r: saved(vehicle(r), "PNG", **_frames(r))),
    "WebP lossy": (".webp", lambda r: saved(vehicle(r), "WEBP", exif=_exif(8))),
    "WebP lossless": (".webp", lambda r: saved(vehicle(r).convert("RGBA"), "WEBP", lossless=True)),
    "WebP animated": (".webp", lambda r: saved(vehicle(r), "WEBP", **_frames(r))),
    "GIF": (".gif", lambda r: saved(vehicle(r).quantize(32), "GIF")),
    "GIF animated": (".gif", lambda r: saved(vehicle(r), "GIF", **_frames(r))),
    "BMP": (".bmp", lambda r: saved(vehicle(r), "BMP")),
    "BMP palette": (".bmp", lambda r: saved(vehicle(r).quantize(256), "BMP")),
    "BMP 32-bit": (".bmp", lambda r: saved(vehicle(r).convert("RGBA"), "BMP")),
    "TIFF": (".tif", lambda r: saved(vehicle(r), "TIFF", exif=_exif(7))),
    "TIFF LZW": (".tiff", lambda r: saved(vehicle(r), "TIFF", compression="tiff_lzw")),
    "TIFF with a profile": (".tif", lambda r: saved(vehicle(r), "TIFF", compression="tiff_deflate", icc_profile=SRGB)),
    "TIFF JPEG": (".tif", lambda r: saved(vehicle(r), "TIFF", compression="jpeg")),
    "TIFF CMYK": (".tif", lambda r: saved(vehicle(r).convert("CMYK"), "TIFF", compression="tiff_lzw")),
    "TIFF tiled": (".tif", lambda r: tiff(np.asarray(vehicle(r)), tile=16)),
    "TIFF 16-bit": (".tif", lambda r: tiff(sixteen(r, 1))),
    "TIFF 16-bit RGB, big-endian": (".tif", lambda r: tiff(sixteen(r, 3), ">")),
    "TIFF float": (".tif", lambda r: tiff(sixteen(r, 1).astype(np.float32) / 65535)),
    "TIFF big-endian": (".tif", lambda r: tiff(np.asarray(vehicle(r)), ">", tile=32)),
    "TIFF of pages": (".tiff", lambda r: tiff(np.asarray(vehicle(r)), pages=3)),
}  # fmt: skip
