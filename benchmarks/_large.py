"""Large JPEG, PNG, TIFF and WebP images in every mode, and the peak memory of commands on a folder of them."""

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = {24: (6000, 4000), 50: (8660, 5773), 99: (12000, 8250)}  # megapixels: (width, height)
STARTING = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def draw_large(folder: Path, megapixels: int) -> None:
    """Write an image of this size in each format and mode that is decoded differently."""
    size = SIZES[megapixels]
    folder.mkdir(parents=True)
    # Finer noise is more than lossy WebP can hold.
    image = Image.effect_noise((size[0] // 32, size[1] // 32), 90).convert("RGB").resize(size)
    image.paste((200, 30, 30), (size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2))
    clear = image.copy()
    clear.putalpha(image.getchannel(1))
    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
    image.save(folder / "rgb.png", compress_level=1)
    clear.save(folder / "rgba.png", compress_level=1)
    image.quantize(64, Image.Quantize.FASTOCTREE).save(folder / "palette.png", compress_level=1)
    _png16(folder / "grey16.png", grey[:, :, None], 0)
    _png16(folder / "rgb16.png", np.stack([grey, grey[::-1], grey], 2), 2)
    image.save(folder / "rgb.tif")
    clear.save(folder / "rgba.tif", compression="tiff_lzw")
    image.convert("CMYK").save(folder / "cmyk.tif", compression="tiff_lzw")
    Image.fromarray(grey).save(folder / "grey16.tif")
    image.save(folder / "lossy.webp", method=0)
    clear.save(folder / "rgba.webp", method=0)
    image.save(folder / "lossless.webp", lossless=True, method=0, quality=0)
    image.save(folder / "baseline.jpg")
    image.save(folder / "progressive.jpg", progressive=True, subsampling=0)


def print_peaks(scratch: Path, commands: Mapping[str, Callable[[Path, str], list[str]]]) -> None:
    """Draw the images and print the peak memory of each command.

    Args:
        scratch: an empty folder.
        commands: name of a row to what returns the arguments of Python for a folder with `images/` and a free name.
    """
    print("\nPeak memory with large images, MB\n")
    print(f"| | {' | '.join(f'{size} megapixels' for size in SIZES)} |\n|---|{'---:|' * len(SIZES)}")
    folders = {size: scratch / f"{size}" for size in SIZES}
    for size, folder in folders.items():
        draw_large(folder / "images", size)
    for name, command in commands.items():
        peaks = [
            peak([sys.executable, *command(folder, str(scratch / f"{name} {size}"))])
            for size, folder in folders.items()
        ]
        print(f"| {name} | {' | '.join(f'{one:.0f}' for one in peaks)} |", flush=True)


def peak(command: list[str]) -> float:
    """Run a command and return its peak memory in MB."""
    # A small process starts the command: the peak of a process includes what its parent held when it was started.
    done = subprocess.run([sys.executable, "-c", STARTING, *command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return int(done.stdout) * 1024 / 1e6


def _png16(path: Path, array: np.ndarray, colour_type: int) -> None:
    """Write a 16-bit PNG, which Pillow cannot for colours; array is (height, width, channels) uint16."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = array.shape[:2]
    packer = zlib.compressobj(1)
    lines = b"".join(packer.compress(b"\0" + line.astype(">u2").tobytes()) for line in array) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    content = (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", lines), chunk(b"IEND", b""))
    path.write_bytes(b"".join(content))
