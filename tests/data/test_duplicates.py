import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from whichcar.data import duplicates
from whichcar.data.duplicates import Duplicates, Pair, Prints, copies_among, find_duplicates
from whichcar.data.facts import FactStore


@pytest.fixture
def pictures(drawn_large: Path, tmp_path: Path) -> list[Path]:
    """Twelve pictures, and after them a copy by the byte, a small one, a mirrored one, and two of one colour."""
    originals = sorted((drawn_large / "car_ims").iterdir())[:12]
    copies = [tmp_path / f"{number}.png" for number in range(5)]
    shutil.copyfile(originals[3], copies[0])
    Image.open(originals[5]).resize((100, 80)).save(copies[1])
    ImageOps.mirror(Image.open(originals[7])).save(copies[2])
    Image.new("RGB", (60, 40), (200, 10, 10)).save(copies[3])
    Image.new("RGB", (62, 40), (200, 10, 10)).save(copies[4])
    return [*originals, *copies]


def found_among(paths: list[Path], store: FactStore) -> Duplicates:
    prints = Prints()
    for facts in store.look(paths):
        prints.add(facts)
    return find_duplicates(store, prints, paths.__getitem__)


def test_copies_are_found_and_nothing_else(pictures: list[Path], tmp_path: Path) -> None:
    with FactStore(tmp_path / "facts.db") as store:
        found = found_among(pictures, store)
    assert found.exact == [[3, 12]]
    assert [(pair.first, pair.second, pair.mirrored) for pair in found.near] == [(5, 13, False), (7, 14, True)]
    assert all(0.7 <= pair.similarity <= 1 for pair in found.near)
    assert found.groups() == [[3, 12], [5, 13], [7, 14]]


def test_pairs_are_compared_once(pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FactStore(tmp_path / "facts.db") as store:
        before = found_among(pictures, store)
    monkeypatch.setattr(duplicates, "detail_similarity", lambda *_: pytest.fail("compared again"))
    with FactStore(tmp_path / "facts.db") as store:
        assert found_among(pictures, store) == before


def test_pictures_of_the_same_bytes_are_compared_with_others_once(pictures: list[Path], tmp_path: Path) -> None:
    again = tmp_path / "again.png"
    shutil.copyfile(pictures[13], again)
    with FactStore(tmp_path / "facts.db") as store:
        found = found_among([*pictures, again], store)
    assert found.exact == [[3, 12], [13, 17]]
    assert [(pair.first, pair.second) for pair in found.near] == [(5, 13), (7, 14)]
    assert found.groups() == [[3, 12], [5, 13, 17], [7, 14]]


def test_groups_follow_chains_of_copies() -> None:
    near = [Pair(4, 9, 0.8, False), Pair(1, 4, 0.8, False), Pair(6, 7, 0.9, True), Pair(0, 9, 0.7, False)]
    assert Duplicates([[7, 8]], near).groups() == [[0, 1, 4, 9], [6, 7, 8]]


def test_many_copies_of_one_picture_hide_no_others_and_are_compared_once_each(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = []
    for number in range(300):
        many.append(tmp_path / f"many {number:03d}.jpg")
        Image.open(pictures[1]).convert("RGB").save(many[-1], quality=30 + number % 60, comment=str(number))
    compared = []
    original = duplicates.detail_similarity
    monkeypatch.setattr(duplicates, "detail_similarity", lambda *a: compared.append(a) or original(*a))
    with FactStore(tmp_path / "facts.db") as store:
        found = found_among([*pictures, *many], store)
    assert [(pair.first, pair.second) for pair in found.near if pair.second < 17] == [(5, 13), (7, 14)]
    assert [(pair.first, pair.second) for pair in found.near if pair.second >= 17] == [(1, n) for n in range(17, 317)]
    assert len(compared) < 700


def test_fewer_bits_may_differ_in_very_large_sets(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_MANY", 3)
    monkeypatch.setattr(duplicates, "_BITS_OF_MANY", -1)
    with FactStore(tmp_path / "facts.db") as store:
        assert found_among(pictures, store).near == []


def test_near_copies_count_within_a_class_and_equal_bytes_always(pictures: list[Path]) -> None:
    same = ["a"] * 17
    assert copies_among(pictures, same) == [[3, 12], [5, 13], [7, 14]]
    other = ["a"] * 12 + ["b"] * 5
    assert copies_among(pictures, other) == [[3, 12]]


@pytest.mark.parametrize("count", [0, 1])
def test_few_pictures_have_no_copies(pictures: list[Path], count: int) -> None:
    assert copies_among(pictures[:count], ["a"] * count) == []


def test_a_picture_that_cannot_be_read_is_a_copy_by_its_bytes_only(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_text("no picture" if name != "c.jpg" else "neither")
    paths = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg", "gone.jpg", "gone too.jpg")]
    assert copies_among(paths, [0] * 5) == [[0, 1]]
