import io
import os
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from whichcar.errors import ImageError, UnsupportedFormatError
from whichcar.files import IMAGE_FORMATS, IMAGE_SUFFIXES
from whichcar.images import read
from whichcar.images.inputs import each
from whichcar.images.read import decoded, read_format, read_image, read_resized
from whichcar.records import Box

from ..image_files import png

RED, GREEN, BLUE, YELLOW = (220, 30, 20), (20, 200, 40), (10, 40, 210), (230, 220, 30)
GREY = (0.299, 0.587, 0.114)


def quarters(height: int = 48, width: int = 80) -> Image.Image:
    """Draw red, green / blue, yellow: every turn, flip and swap of colours shows."""
    array = np.empty((height, width, 3), np.uint8)
    array[: height // 2, : width // 2], array[: height // 2, width // 2 :] = RED, GREEN
    array[height // 2 :, : width // 2], array[height // 2 :, width // 2 :] = BLUE, YELLOW
    return Image.fromarray(array)


def corners(image: np.ndarray) -> list[tuple[int, ...]]:
    height, width = image.shape[:2]
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [tuple(image[place].tolist()) for place in places]


def assert_quarters(image: np.ndarray, tolerance: int = 8) -> None:
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    np.testing.assert_allclose(corners(image), [RED, GREEN, BLUE, YELLOW], atol=tolerance)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tif"])
def test_colours_are_rgb_not_bgr_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    quarters().save(path)
    image = read_image(path)
    assert image.shape == (48, 80, 3)
    assert image.flags.writeable
    assert_quarters(image)


def as_stored(seen: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera stores what is seen, by the definition of each orientation."""
    turned = seen.transpose(1, 0, 2)
    return {
        1: seen,
        2: seen[:, ::-1],
        3: seen[::-1, ::-1],
        4: seen[::-1],
        5: turned,
        6: turned[::-1],
        7: turned[::-1, ::-1],
        8: turned[:, ::-1],
    }[orientation]


STORED = [
    *(("jpg", mode) for mode in ("RGB", "L", "CMYK")),
    *(("png", mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    *(("webp", mode) for mode in ("RGB", "RGBA")),
    *(("tif", mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "CMYK", "I;16", "F", "LAB", "YCbCr")),
]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("suffix", "mode"), STORED)
def test_exif_orientation_is_applied_once_however_an_image_is_read(
    tmp_path: Path, suffix: str, mode: str, orientation: int
) -> None:
    rng = np.random.default_rng(orientation)
    seen = np.asarray(quarters(40 + int(rng.integers(9)), 60 + int(rng.integers(9))))
    image = Image.fromarray(np.ascontiguousarray(as_stored(seen, orientation)))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    else:
        image = image.quantize(8) if mode == "P" else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    image.save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    whole = read_image(path)
    assert whole.shape == seen.shape
    if mode in ("RGB", "RGBA", "P", "LAB", "YCbCr"):
        assert_quarters(whole, tolerance=16 if mode == "LAB" else 8)
    # The corners tell each orientation from the others in grey as well: four different levels.
    if mode != "1":
        levels, expected = np.array(corners(whole)) @ GREY, np.array([RED, GREEN, BLUE, YELLOW]) @ GREY
        assert np.argsort(levels).tolist() == np.argsort(expected).tolist()
    assert (read_image(path, at_least=(20, 30)).shape[0] - seen.shape[0] / 2) <= 1
    resized = read_resized(path, (30, 41)).astype(int)
    expected = np.asarray(Image.fromarray(whole).resize((41, 30), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(resized - expected).max() <= (6 if mode == "LAB" else 1)
    box = Box(*(int(side) for side in (rng.integers(9), rng.integers(9), 50 + rng.integers(9), 30 + rng.integers(9))))
    with decoded(path) as found:
        np.testing.assert_array_equal(found.pixels(box), whole[box.top : box.bottom, box.left : box.right])
        assert found.size == seen.shape[:2]
        assert (found.header.width, found.header.height) == seen.shape[1::-1]
        assert found.header.orientation == orientation


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    "exif", [b"II*\0\xff\xff\xff\xff", b"XX*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03", b"II*"]
)
def test_a_broken_exif_part_does_not_lose_the_image(tmp_path: Path, suffix: str, exif: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    quarters().save(path, exif=b"Exif\0\0" + exif)
    assert_quarters(read_image(path))


def test_a_broken_exif_part_makes_no_noise(tmp_path: Path) -> None:
    quarters().save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    code = "import sys, pathlib, whichcar.images.read as i; i.read_image(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path / "a.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_an_orientation_out_of_range_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    quarters().save(tmp_path / "a.jpg", exif=exif)
    assert_quarters(read_image(tmp_path / "a.jpg"))


def test_cmyk_keeps_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    quarters().convert("CMYK").save(path)
    with Image.open(path) as stored:
        assert stored.mode == "CMYK"
    assert_quarters(read_image(path), tolerance=20)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_gets_three_equal_channels(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    quarters().convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (48, 80, 3)
    assert (image == image[:, :, :1]).all()


def test_a_palette_image_keeps_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    quarters().quantize(8).save(path)
    assert_quarters(read_image(path))


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    seen = np.dstack([np.asarray(quarters()), np.full((48, 80), 255, np.uint8)])
    seen[:, :40, 3] = 0
    seen[0, 79, 3] = 128
    Image.fromarray(seen).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert (image[:, :40] == 255).all()
    assert tuple(image[40, 79]) == YELLOW
    np.testing.assert_allclose(image[0, 79], (np.array(GREEN) + 255) / 2, atol=2)


def test_a_transparent_palette_colour_becomes_white(tmp_path: Path) -> None:
    palette = quarters().quantize(4)
    palette.save(tmp_path / "a.png", transparency=palette.getpixel((0, 0)))
    found = corners(read_image(tmp_path / "a.png"))
    assert found[0] == (255, 255, 255)
    np.testing.assert_allclose(found[1:], [GREEN, BLUE, YELLOW], atol=8)


def test_sixteen_bits_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None, :, None].repeat(4, 0)
    image = read_image(written(tmp_path / "a.png", png(ramp, 0)))
    np.testing.assert_array_equal(image[0, :, 0], np.arange(256))
    assert read_image(written(tmp_path / "b.png", png(ramp // 256, 0))).max() == 1


@pytest.mark.parametrize("colour_type", [2, 4, 6])
def test_sixteen_bits_in_colour_or_with_alpha_are_read(tmp_path: Path, colour_type: int) -> None:
    channels = {2: 3, 4: 2, 6: 4}[colour_type]
    array = np.full((4, 4, channels), 65535, np.uint16)
    array[:, :, 0] = 200 * 257
    image = read_image(written(tmp_path / "a.png", png(array, colour_type)))
    expected = (200, 200, 200) if colour_type == 4 else (200, 255, 255)
    np.testing.assert_allclose(image[0, 0], expected, atol=1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 100, 200]], np.float32), [0, 100, 200]),
        (np.array([[-5, np.nan, 255]], np.float32), [0, 0, 255]),
        (np.array([[0, 32768, 65535]], np.int32), [0, 128, 255]),
        (np.array([[0, 100000, 200000]], np.int32), [0, 128, 255]),
        (np.array([[0, 0, 0]], np.float32), [0, 0, 0]),
    ],
)
def test_numbers_of_32_bits_are_scaled(tmp_path: Path, values: np.ndarray, expected: list[int]) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == expected


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    quarters().save(path, save_all=True, append_images=[Image.new("RGB", (80, 48), "black")] * 2)
    assert_quarters(read_image(path))


def test_a_webp_marked_as_an_animation_may_have_one_frame(tmp_path: Path) -> None:
    content = io.BytesIO()
    quarters().save(content, "WEBP", lossless=True)
    still, (height, width) = content.getvalue()[12:], (48, 80)
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = (b"VP8X", b"\x02\0\0\0" + size), (b"ANIM", bytes(6)), (b"ANMF", bytes(6) + size + bytes(4) + still)
    body = b"WEBP" + b"".join(name + len(inside).to_bytes(4, "little") + inside for name, inside in chunks)
    (tmp_path / "a.webp").write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    assert_quarters(read_image(tmp_path / "a.webp"))
    assert_quarters(read_image(tmp_path / "a.webp", at_least=(20, 20)))


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    quarters().save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert_quarters(read_image(tmp_path / "a.jpg"), tolerance=0)


@pytest.mark.parametrize(
    "name", ["a b.jpg", 'it\'s "new".jpg', "Škoda – 車.jpg", "a%20b;c&d#.jpg", "-x.jpg", "a\nb.jpg"]
)
def test_odd_names_are_no_hindrance(tmp_path: Path, name: str) -> None:
    quarters().save(tmp_path / name)
    assert_quarters(read_image(tmp_path / name))


def test_a_large_jpeg_is_decoded_small_but_not_below_what_is_needed(tmp_path: Path) -> None:
    quarters(1200, 2000).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").shape == (1200, 2000, 3)
    assert read_image(tmp_path / "a.jpg", at_least=(600, 600)).shape == (600, 1000, 3)
    small = read_image(tmp_path / "a.jpg", at_least=(128, 128))
    assert small.shape == (150, 250, 3)
    assert_quarters(small)
    assert read_image(tmp_path / "a.jpg", at_least=(1201, 10)).shape == (1200, 2000, 3)


def test_what_is_needed_counts_after_the_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    quarters(400, 1600).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg", at_least=(400, 100)).shape == (400, 100, 3)
    assert read_image(tmp_path / "a.jpg", at_least=(200, 101)).shape == (800, 200, 3)


def message(path: Path) -> str:
    with pytest.raises(ImageError) as raised:
        read_image(path)
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    assert ";" in text  # what would do
    return text.removeprefix(f"{path}: ")


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert "empty" in message(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
def test_a_truncated_image_is_named_at_any_length(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    for length in sorted({1, 3, 10, 30, 100, 200, *range(1, len(whole) // 2, max(1, len(whole) // 20))}):
        path.write_bytes(whole[:length])
        assert message(path)


def test_half_a_jpeg_says_truncated(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    quarters(480, 800).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    assert "truncated" in message(path)


def test_a_jpeg_that_tells_its_pixels_thousands_of_times_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    quarters(2000, 2000).save(path, progressive=True)
    whole = path.read_bytes()
    last = whole.rindex(b"\xff\xda")
    path.write_bytes(whole[:last] + whole[last:-2] * 3000 + whole[-2:])
    assert "scans, more than 200" in message(path)
    path.write_bytes(whole[:last] + whole[last:-2] * 3 + whole[-2:])
    assert read_image(path).shape == (2000, 2000, 3)


def test_what_looks_like_a_scan_in_a_clip_behind_a_jpeg_is_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    quarters(480, 800).save(path)
    path.write_bytes(path.read_bytes() + b"\xff\xda\x37\x91" * 300)
    assert read_image(path).shape == (480, 800, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "bmp"])
def test_an_image_whose_beginning_is_damaged_is_called_a_damaged_image(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    quarters().save(path)
    path.write_bytes(path.read_bytes()[:12] + bytes(200 if suffix == "jpg" else 0))
    assert f"a damaged {Image.registered_extensions()[f'.{suffix}']}, " in message(path)


def test_a_tiff_that_cannot_be_read_is_reported_of_by_its_row_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.tif"
    quarters().save(path)
    path.write_bytes(
        path.read_bytes().replace(struct.pack("<HHII", 277, 3, 1, 3), struct.pack("<HHII", 277, 3, 1, 999))
    )
    assert "a damaged TIFF" in message(path)
    assert not caplog.records  # Pillow's own lines do not say of which file they are


@pytest.mark.parametrize("content", [b"\0" * 1000, b"GIF89a", b"BMW 3 series", "Škoda".encode()])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert "copy it again" in message(tmp_path / "a.jpg")


def test_a_file_of_no_known_kind_shows_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"name,class\n")
    assert 'begins with "name,cla"' in message(tmp_path / "a.jpg")


def test_damaged_bytes_never_raise_anything_but_an_image_error(tmp_path: Path) -> None:
    chance = np.random.default_rng(7)
    for suffix in ("jpg", "png", "gif", "tif", "webp", "bmp"):
        path = tmp_path / f"a.{suffix}"
        quarters(24, 24).save(path)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[chance.integers(0, len(whole), 6)] = chance.integers(0, 256, 6)
            path.write_bytes(damaged.tobytes())
            try:
                assert read_image(path).shape[2] == 3
            except ImageError as error:
                assert str(path) in str(error)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert "no such file" in message(tmp_path / "a.jpg")
    assert "not a file" in message(tmp_path)
    with pytest.raises(ImageError, match="cannot be reached"):
        read_image(tmp_path / "a\0b.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert "not a file" in message(tmp_path / "a.jpg")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    quarters().save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").chmod(0)
    if os.access(tmp_path / "a.jpg", os.R_OK):
        pytest.skip("this user may read everything")
    assert "permissions" in message(tmp_path / "a.jpg")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # the limit is ours, not the warning's
@pytest.mark.parametrize("side", [10_001, 14_000, 60_000])
def test_above_a_hundred_megapixels_is_refused_before_decoding(tmp_path: Path, side: int) -> None:
    content = png(np.zeros((1, 1), np.uint16), 0, claimed=(side, side))
    assert "100 million pixels" in message(written(tmp_path / "a.png", content))


@pytest.mark.slow
def test_just_below_a_hundred_megapixels_is_read_without_a_warning(tmp_path: Path) -> None:
    quarters(9_000, 11_000).save(tmp_path / "a.jpg")
    code = (
        "import sys, pathlib, whichcar.images.read as i; print(i.read_image(pathlib.Path(sys.argv[1]), (99, 99)).shape)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "(141, 172, 3)\n"
    assert done.stderr == ""


def test_every_image_is_read_alike_in_strips_and_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (150, 170, 4), np.uint8)
    kinds = {"RGB": "png", "RGBA": "png", "LA": "png", "P": "gif", "L": "bmp", "CMYK": "tif", "F": "tif", "1": "png"}
    for mode, suffix in kinds.items():
        Image.fromarray(noise).convert("RGB" if mode in ("L", "CMYK", "F") else "RGBA").convert(mode).save(
            tmp_path / f"{mode}.{suffix}"
        )
    paths = sorted(tmp_path.iterdir())

    def read() -> list[np.ndarray]:
        sizes = [(16, 16), (40, 16), (150, 170), (200, 7)]
        return [
            *(read_image(path) for path in paths),
            *(read_image(path, at_least=(30, 30)) for path in paths),
            *(read_resized(path, size) for path in paths for size in sizes),
        ]

    whole = read()
    monkeypatch.setattr("whichcar.images.pixels._STRIP", 700)
    for one, other in zip(whole, read(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("size", [(32, 24), (600, 20), (100, 100)])
def test_resizing_is_that_of_pillow_at_once_whatever_the_aspect(tmp_path: Path, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 800, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    expected = np.asarray(Image.fromarray(noise).resize(size[::-1], Image.Resampling.BILINEAR))
    resized = read_resized(tmp_path / "a.png", size)
    assert resized.shape == (*size, 3)
    assert np.abs(resized.astype(int) - expected).max() <= 12
    assert np.abs(resized.astype(int) - expected).mean() < 1.5


def test_an_image_of_the_size_wanted_is_left_as_it_is(tmp_path: Path) -> None:
    quarters().save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_resized(tmp_path / "a.png", (48, 80)), quarters())


def test_a_very_long_image_is_reduced_on_its_long_side_too(tmp_path: Path) -> None:
    Image.new("RGB", (40, 60_000), GREEN).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", at_least=(64, 64)).shape == (7500, 5, 3)
    assert (read_resized(tmp_path / "a.png", (64, 64)) == GREEN).all()


def test_a_png_damaged_in_its_body_is_refused_however_it_is_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 40, (60, 80, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    refused = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        damaged, place = bytearray(whole), int(rng.integers(len(whole) // 10, len(whole) * 9 // 10))
        damaged[place : place + 4] = rng.bytes(4)
        (tmp_path / "a.png").write_bytes(damaged)
        reasons = set()
        for reader in (
            read_image,
            lambda path: read_image(path, at_least=(16, 16)),
            lambda path: read_resized(path, (16, 16)),
        ):
            try:
                reader(tmp_path / "a.png")
                reasons.add("")
            except ImageError as error:
                reasons.add(error.reason)
        assert len(reasons) == 1, seed
        refused += reasons != {""}
    assert refused >= 29


@pytest.mark.parametrize(
    ("beginning", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "AVIF"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "video"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x4f\xff\x51\0\x2f", "JPEG 2000"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"8BPS\0\1", "Photoshop"),
        (b"P6\n2 2\n255\n" + bytes(12), "Netpbm"),
        (b"\0\0\1\0\1\0", "ICO"),
    ],
)
def test_an_image_of_another_format_is_called_what_it_is(tmp_path: Path, beginning: bytes, name: str) -> None:
    (tmp_path / "a.jpg").write_bytes(beginning + bytes(200))
    assert message(tmp_path / "a.jpg") == f"{name} is not supported; convert it to JPEG"
    with pytest.raises(UnsupportedFormatError):
        read_format(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"<html>Not found</html>", "a web page; download the image itself"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(40), "a zip archive; unpack it"),
    ],
)
def test_what_is_saved_as_an_image_and_is_none_is_called_what_it_is(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert what in message(tmp_path / "a.jpg")


def test_no_image_starts_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n"
    (tmp_path / "a.jpg").write_bytes(eps)
    assert message(tmp_path / "a.jpg") == "EPS is not supported; convert it to JPEG"
    assert not (tmp_path / "started").exists()


def test_formats_and_suffixes_are_those_of_pillow() -> None:
    suffixes = Image.registered_extensions()
    assert {suffixes[suffix] for suffix in IMAGE_SUFFIXES} == set(IMAGE_FORMATS)


LARGE = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from whichcar.images.read import decoded, read_image, read_resized

def whole(path):
    with decoded(path) as image:
        return image.pixels().shape

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(16) as pool:
    paths = [Path(name) for name in sys.argv[1:]] * 4
    list(pool.map(lambda path: read_image(path, at_least=(224, 224)), paths))
    list(pool.map(lambda path: read_resized(path, (224, 224)), paths))
    list(pool.map(whole, paths))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_sixteen_threads_hold_no_more_pixels_than_the_largest_image_has(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("rgba.png", "palette.png", "cmyk.tif")]
    for path, mode in zip(paths, ("RGBA", "P", "CMYK"), strict=True):
        Image.new("RGB", (6000, 4000), GREEN).convert(mode).save(path)
    command = [sys.executable, "-c", LARGE, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4 * 100 + 3 * 100 + 100  # decoded, handed on, and strips; in megabytes


def test_a_budget_lets_what_fits_in_at_once_and_the_rest_wait() -> None:
    budget, held, most = read._Budget(10), [], []
    lock = threading.Lock()

    def take(size: int) -> None:
        with budget.hold(size):
            with lock:
                held.append(size)
                most.append((sum(min(one, 10) for one in held), len(held)))
            time.sleep(0.001)
            with lock:
                held.remove(size)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, [1, 3, 25, 2, 4, 10, 5] * 8))
    assert max(total for total, _ in most) <= 10
    assert max(count for _, count in most) > 1


def test_a_broken_link_says_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match=r"a\.jpg: a link to .*gone\.jpg, which is not there"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
@pytest.mark.parametrize("side", [130, 250, 600, 1500])
def test_an_image_that_is_decoded_smaller_looks_to_a_network_as_its_pixels_do(
    tmp_path: Path, side: int, suffix: str
) -> None:
    path, rng = tmp_path / f"a.{suffix}", np.random.default_rng(side)
    coarse = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), np.uint8))
    coarse.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=95)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    (given,) = each(pixels)
    (file,) = each(path)
    with given.open((112, 112)) as from_array, file.open((112, 112)) as from_file:
        whole = from_array.resized((112, 112)).astype(int)
        assert np.abs(from_file.resized((112, 112)) - whole).mean() < 1.5
    assert np.abs(read_resized(path, (112, 112)) - whole).mean() < 1.5
