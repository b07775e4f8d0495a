"""Colour profiles, drawn here byte by byte, and images that carry them."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from whichcar.images.read import read_image, read_resized

D50, D65 = (0.9642, 1.0, 0.8249), (0.3127, 0.3290)
PRIMARIES = {
    "Display P3": ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
    "Adobe RGB": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)),
    "green and blue changed": ((0.64, 0.33), (0.15, 0.06), (0.30, 0.60)),
}
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def profile(space: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ", kind: bytes = b"mntr") -> bytes:
    tags = {b"wtpt": b"XYZ \0\0\0\0" + fixed(*D50), **tags}
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(body), len(padded))
        body += padded
    head = struct.pack(">I4sI4s4s4s", 0, b"none", 0x02400000, kind, space, pcs) + bytes(12) + b"acsp" + bytes(28)
    whole = (head + fixed(*D50)).ljust(128, b"\0") + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def rgb_profile(primaries: tuple[tuple[float, float], ...], value: float = 2.2) -> bytes:
    """A profile of these primaries and white D65, adapted to D50 by Bradford."""

    def xyz(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1, (1 - x - y) / y])

    colours, white = np.array([xyz(*one) for one in primaries]).T, xyz(*D65)
    matrix = colours * np.linalg.solve(colours, white)
    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    matrix = np.linalg.inv(cones) @ np.diag((cones @ D50) / (cones @ white)) @ cones @ matrix
    columns = {name: b"XYZ \0\0\0\0" + fixed(*matrix[:, at]) for at, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return profile(b"RGB ", columns | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma(value)))


def cmyk_profile() -> bytes:
    """A profile in which cyan ink is red, magenta green, yellow blue, and black black: one table of 2 x 2 x 2 x 2."""
    inks = ((136, 208, 195), (224, 42, 211), (82, 207, 20))  # Lab of red, green and blue, in bytes

    def mixed(ink: tuple[int, ...]) -> tuple[int, ...]:
        if ink[3]:
            return (0, 128, 128)
        used = [colour for colour, there in zip(inks, ink, strict=False) if there]
        return used[0] if len(used) == 1 else (0, 128, 128) if used else (255, 128, 128)

    places = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    table = bytes(value for place in places for value in mixed(place))
    same = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + 4 * same + table + 3 * same
    return profile(b"CMYK", {b"A2B0": lut, b"A2B1": lut}, pcs=b"Lab ", kind=b"prtr")


def smooth() -> Image.Image:
    """Colours that all of these spaces hold, in slopes."""
    rows, columns = np.mgrid[0:48, 0:64]
    return Image.fromarray(np.stack([60 + 2 * columns, 60 + 3 * rows, 200 - 2 * columns], 2).astype(np.uint8))


def difference(path: Path, expected: Image.Image) -> float:
    return float(np.abs(read_image(path).astype(int) - np.asarray(expected.convert("RGB")).astype(int)).max())


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("name", PRIMARIES)
def test_an_image_with_a_profile_is_read_as_srgb(tmp_path: Path, name: str, suffix: str) -> None:
    content = rgb_profile(PRIMARIES[name])
    source, target = ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(content))
    stored = ImageCms.profileToProfile(smooth(), source, target, renderingIntent=1, outputMode="RGB")
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    stored.save(tmp_path / f"a.{suffix}", icc_profile=content, **options)
    # A JPEG rounds before the conversion, which makes more of it.
    assert difference(tmp_path / f"a.{suffix}", smooth()) <= (10 if suffix == "jpg" else 2)
    del stored.info["icc_profile"]
    stored.save(tmp_path / f"b.{suffix}", **options)
    assert difference(tmp_path / f"b.{suffix}", smooth()) > 10
    at_once = np.asarray(smooth().resize((20, 16), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(read_resized(tmp_path / f"a.{suffix}", (16, 20)) - at_once).max() <= 10


def test_a_transparent_image_with_a_profile_is_srgb_on_white(tmp_path: Path) -> None:
    content = rgb_profile(PRIMARIES["green and blue changed"])
    stored = Image.new("RGBA", (8, 8), (200, 40, 90, 255))
    stored.putpixel((0, 0), (0, 0, 0, 0))
    stored.save(tmp_path / "a.png", icc_profile=content)
    image = read_image(tmp_path / "a.png")
    assert image[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_allclose(
        image[4, 4].astype(int), (200, 90, 40), atol=8
    )  # a gamma of 2.2 is not quite that of sRGB


def test_an_image_in_srgb_is_left_as_it_is(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for content in (own, rgb_profile(SRGB)):
        Image.fromarray(noise).save(tmp_path / "a.png", icc_profile=content)
        if content is own:
            np.testing.assert_array_equal(read_image(tmp_path / "a.png"), noise)
        else:  # a plain gamma of 2.2 is darker in the shadows
            assert np.abs(read_image(tmp_path / "a.png").astype(int) - noise).max() <= 12


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_grey_profile_brightens_a_grey_image(tmp_path: Path, suffix: str) -> None:
    Image.new("L", (16, 16), 64).save(tmp_path / f"a.{suffix}", icc_profile=profile(b"GRAY", {b"kTRC": gamma(1.0)}))
    image = read_image(tmp_path / f"a.{suffix}")
    assert (image == image[:, :, :1]).all()
    assert abs(int(image[8, 8, 0]) - 137) <= 2  # a quarter of the light


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_inks_are_what_a_cmyk_profile_says(tmp_path: Path, suffix: str) -> None:
    options = {"quality": 100} if suffix == "jpg" else {}
    for ink, channel in (((255, 0, 0, 0), 0), ((0, 255, 0, 0), 1), ((0, 0, 255, 0), 2)):
        image = Image.new("CMYK", (16, 16), ink)
        image.save(tmp_path / f"a.{suffix}", icc_profile=cmyk_profile(), **options)
        assert read_image(tmp_path / f"a.{suffix}")[8, 8].argmax() == channel
        image.save(tmp_path / f"b.{suffix}", **options)
        assert read_image(tmp_path / f"b.{suffix}")[8, 8].argmin() == channel
    paper = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    paper.save(tmp_path / f"a.{suffix}", icc_profile=cmyk_profile(), **options)
    assert read_image(tmp_path / f"a.{suffix}").min() >= 250


def broken() -> list[bytes]:
    whole = rgb_profile(PRIMARIES["Adobe RGB"])
    rng = np.random.default_rng(0)
    found = [
        b"no profile",
        whole[:40],
        whole[:131],
        whole[:200],
        bytes(400),
        profile(b"RGB ", {}),
        profile(b"6CLR", {}),
    ]
    for _ in range(60):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, len(whole), 8)] = rng.integers(0, 256, 8)
        found.append(damaged.tobytes())
    return found


def test_a_broken_profile_loses_no_image(tmp_path: Path) -> None:
    for number, content in enumerate(broken()):
        smooth().save(tmp_path / "a.png", icc_profile=content)
        image = read_image(tmp_path / "a.png")
        assert image.shape == (48, 64, 3)
        if number < 7:
            np.testing.assert_array_equal(image, smooth())


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_profile_for_another_kind_of_image_is_ignored(tmp_path: Path, mode: str) -> None:
    others = {"RGB": cmyk_profile(), "L": cmyk_profile(), "CMYK": rgb_profile(PRIMARIES["Adobe RGB"])}
    smooth().convert(mode).save(tmp_path / "a.tif")
    plain = read_image(tmp_path / "a.tif")
    smooth().convert(mode).save(tmp_path / "a.tif", icc_profile=others[mode])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), plain)
