import random
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from whichcar.data.duplicates import find
from whichcar.data.duplicates.find import Duplicates, Pair, Prints, copies_among, find_duplicates
from whichcar.data.duplicates.scan import ScanCache


@pytest.fixture
def images(drawn_large: Path, tmp_path: Path) -> list[Path]:
    """Twelve images, and after them a copy by the byte, a small one, a mirrored one, and two of one colour."""
    originals = sorted((drawn_large / "car_ims").iterdir())[:12]
    copies = [tmp_path / f"{number}.png" for number in range(5)]
    shutil.copyfile(originals[3], copies[0])
    Image.open(originals[5]).resize((100, 80)).save(copies[1])
    ImageOps.mirror(Image.open(originals[7])).save(copies[2])
    Image.new("RGB", (60, 40), (200, 10, 10)).save(copies[3])
    Image.new("RGB", (62, 40), (200, 10, 10)).save(copies[4])
    return [*originals, *copies]


def found_among(paths: list[Path], cache: ScanCache) -> Duplicates:
    prints = Prints()
    for scan in cache.scan(paths):
        prints.add(scan)
    return find_duplicates(cache, prints, paths.__getitem__)


def test_copies_are_found_and_nothing_else(images: list[Path], tmp_path: Path) -> None:
    with ScanCache(tmp_path / "scans.db") as cache:
        found = found_among(images, cache)
    assert found.exact == [[3, 12]]
    assert [(pair.first, pair.second, pair.mirrored) for pair in found.near] == [(5, 13, False), (7, 14, True)]
    assert all(0.7 <= pair.similarity <= 1 for pair in found.near)
    assert found.groups() == [[3, 12], [5, 13], [7, 14]]


def test_pairs_are_compared_once(images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScanCache(tmp_path / "scans.db") as cache:
        before = found_among(images, cache)
    monkeypatch.setattr(find, "detail_similarity", lambda *_: pytest.fail("compared again"))
    with ScanCache(tmp_path / "scans.db") as cache:
        assert found_among(images, cache) == before


def test_images_of_the_same_bytes_are_compared_with_others_once(images: list[Path], tmp_path: Path) -> None:
    again = tmp_path / "again.png"
    shutil.copyfile(images[13], again)
    with ScanCache(tmp_path / "scans.db") as cache:
        found = found_among([*images, again], cache)
    assert found.exact == [[3, 12], [13, 17]]
    assert [(pair.first, pair.second) for pair in found.near] == [(5, 13), (7, 14)]
    assert found.groups() == [[3, 12], [5, 13, 17], [7, 14]]


def test_groups_follow_chains_of_copies() -> None:
    near = [Pair(4, 9, 0.8, False), Pair(1, 4, 0.8, False), Pair(6, 7, 0.9, True), Pair(0, 9, 0.7, False)]
    assert Duplicates([[7, 8]], near).groups() == [[0, 1, 4, 9], [6, 7, 8]]


@pytest.mark.slow
def test_many_copies_of_one_image_hide_no_others_and_are_compared_once_each(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = []
    for number in range(300):
        many.append(tmp_path / f"many {number:03d}.jpg")
        Image.open(images[1]).convert("RGB").save(many[-1], quality=30 + number % 60, comment=str(number))
    compared = []
    original = find.detail_similarity
    monkeypatch.setattr(find, "detail_similarity", lambda *a: compared.append(a) or original(*a))
    with ScanCache(tmp_path / "scans.db") as cache:
        found = found_among([*images, *many], cache)
    assert found.groups() == [[1, *range(17, 317)], [3, 12], [5, 13], [7, 14]]
    assert len(found.near) == 302
    assert len(compared) < 700


def test_fewer_bits_may_differ_in_very_large_sets(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "_MANY", 3)
    monkeypatch.setattr(find, "_BITS_OF_MANY", -1)
    with ScanCache(tmp_path / "scans.db") as cache:
        assert found_among(images, cache).near == []


@pytest.mark.parametrize("seed", range(3))
def test_groups_do_not_depend_on_the_order_or_on_what_is_known(
    drawn_large: Path, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of copies, each a little more cropped: the ends of a chain are no longer alike, its links are."""
    paths = sorted((drawn_large / "car_ims").iterdir())[:8]
    for number in range(4):
        image = Image.open(paths[number])
        for step in range(6):
            image = image.crop((image.width // 20, 0, image.width, image.height * 19 // 20)).resize((128, 96))
            paths.append(tmp_path / f"{number} {step}.png")
            (ImageOps.mirror(image) if step % 3 == 2 else image).save(paths[-1])
    paths = random.Random(seed).sample(paths, len(paths))
    expected = named(paths, copies_among(paths))
    assert max(map(len, expected)) > 2
    monkeypatch.setenv("WHICHCAR_CACHE", str(tmp_path / "new cache"))
    monkeypatch.setattr(find, "_AT_ONCE", 3)
    for order in (sorted(paths), sorted(paths, reverse=True)):
        assert named(order, copies_among(order)) == expected
    for group in expected:  # what is left of a set has no copies that the whole set did not have
        rest = [path for path in paths if path not in group] + sorted(group)[1:]
        assert all(any(part <= whole for whole in expected) for part in named(rest, copies_among(rest)))


def named(paths: list[Path], groups: list[list[int]]) -> set[frozenset[Path]]:
    return {frozenset(paths[number] for number in group) for group in groups}


@pytest.mark.parametrize("count", [0, 1])
def test_few_images_have_no_copies(images: list[Path], count: int) -> None:
    assert copies_among(images[:count]) == []


def test_an_image_that_cannot_be_read_is_a_copy_by_its_bytes_only(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_text("no image" if name != "c.jpg" else "neither")
    paths = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg", "gone.jpg", "gone too.jpg")]
    assert copies_among(paths) == [[0, 1]]
