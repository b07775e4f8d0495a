import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from whichcar.data.duplicates.fingerprint import detail_of, detail_similarity, distance, fingerprint, layout_similarity
from whichcar.images.read import read_image

SIMILAR = 0.7


def photos(drawn_large: Path) -> list[np.ndarray]:
    return [read_image(path) for path in sorted((drawn_large / "car_ims").iterdir())]


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    return detail_similarity(detail_of(first), detail_of(second))


def encoded(image: Image.Image, quality: int) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return Image.open(content).convert("RGB")


def banner(image: Image.Image) -> Image.Image:
    marked = image.copy()
    ImageDraw.Draw(marked).rectangle((0, image.height - image.height // 24, image.width, image.height), fill="white")
    return marked


COPIES = {
    "encoded again": lambda image: encoded(image, 30),
    "resized": lambda image: image.resize((image.width * 2, image.height * 2)),
    "flattened": lambda image: image.resize((image.width, image.height * 4 // 5)),
    "cut": lambda image: image.crop((4, 3, image.width - 4, image.height - 3)),
    "brighter": lambda image: image.point(lambda value: min(255, round(value * 1.2))),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


def test_the_hash_is_that_of_imagehash(drawn_large: Path) -> None:
    imagehash = pytest.importorskip("imagehash")
    for image in photos(drawn_large):
        theirs = int(str(imagehash.phash(Image.fromarray(image))), 16)
        assert fingerprint(image).hash % 2**64 == theirs


def test_the_second_hash_is_that_of_the_mirror_image(drawn_large: Path) -> None:
    for image in photos(drawn_large):
        mirrored = fingerprint(np.array(ImageOps.mirror(Image.fromarray(image))))
        apart = distance(np.array([fingerprint(image).mirrored]), np.array([mirrored.hash]))
        assert apart[0] <= 2  # the last bit of a sum may decide


def test_distance_counts_bits_also_of_negative_hashes() -> None:
    first = np.array([0, -1, -1, 5], np.int64)
    assert distance(first, np.array([0, 0, -2, 6], np.int64)).tolist() == [0, 64, 1, 2]


@pytest.mark.parametrize("change", COPIES)
def test_a_copy_fits_in_layout_and_detail(drawn_large: Path, change: str) -> None:
    for image in photos(drawn_large)[:12]:
        copy = np.array(COPIES[change](Image.fromarray(image)))
        assert layout_similarity(fingerprint(image), fingerprint(copy), mirrored=False) > SIMILAR
        assert similarity(image, copy) > SIMILAR


def test_a_banner_leaves_the_detail(drawn_large: Path) -> None:
    for image in photos(drawn_large)[:12]:
        assert similarity(image, np.array(banner(Image.fromarray(image)))) > SIMILAR


def test_other_images_do_not_fit(drawn_large: Path) -> None:
    details = [detail_of(image) for image in photos(drawn_large)]
    similarities = [detail_similarity(one, other) for one, other in itertools.combinations(details, 2)]
    assert len(similarities) == 496
    assert max(similarities) < SIMILAR


def test_a_mirror_image_fits_only_mirrored(drawn_large: Path) -> None:
    image = photos(drawn_large)[0]
    turned = np.ascontiguousarray(image[:, ::-1])
    assert similarity(image, turned) < SIMILAR < similarity(image, np.ascontiguousarray(turned[:, ::-1]))
    one, other = fingerprint(image), fingerprint(turned)
    assert layout_similarity(one, other, mirrored=True) > 0.99 > layout_similarity(one, other, mirrored=False)


def test_what_shows_nothing_is_flat_and_fits_nothing() -> None:
    empty = np.full((40, 60, 3), 200, np.uint8)
    assert fingerprint(empty).is_flat
    assert similarity(empty, empty) == 0
    assert layout_similarity(fingerprint(empty), fingerprint(empty), mirrored=False) == 0


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (3000, 2, 3)])
def test_any_shape_has_a_fingerprint(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert len(fingerprint(image).thumbnail) == 768
    assert 0 <= similarity(image, image) <= 1.001
