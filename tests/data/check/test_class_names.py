import csv
import os
from pathlib import Path

import pytest

from whichcar.data.check.class_names import odd_names

USUAL = dict.fromkeys(
    ["Audi A4 Sedan 2012", "Audi A5 Coupe 2012", "BMW X5 SUV 2007", "BMW X6 SUV 2012", "GMC Yukon 2012"], 40
)


@pytest.mark.parametrize(
    ("misspelt", "meant", "detail"),
    [
        ("audi A5 coupe 2012", "Audi A5 Coupe 2012", "capitals"),
        ("Audi A5 Coupé 2012", "Audi A5 Coupe 2012", "accents"),
        ("Audi A-5  Coupe 2012", "Audi A5 Coupe 2012", "punctuation"),
        ("Audi A5 Coup 2012", "Audi A5 Coupe 2012", None),  # a short word is another word
        ("GMC Yukn 2012", "GMC Yukon 2012", None),
        ("Audi A4 Sedam 2012", "Audi A4 Sedan 2012", "one letter"),
        ("Audi A4 Seddan 2012", "Audi A4 Sedan 2012", "one letter"),
        ("Audi A6 Sedan 2012", None, None),
        ("Audi A4 Sedan 2011", None, None),
        ("Audi A4 Wagon 2012", None, None),
    ],
)
def test_a_second_spelling_is_found_and_another_name_is_not(
    misspelt: str, meant: str | None, detail: str | None
) -> None:
    found = odd_names({**USUAL, misspelt: 3})
    if detail is None:
        assert found == []
    else:
        assert [one.path for one in found] == [misspelt]
        assert f"{meant!r} (40 images)" in found[0].detail
        assert detail in found[0].detail
        assert "it has 3" in found[0].detail


def test_a_name_without_year_is_odd_where_most_have_one() -> None:
    (found,) = odd_names({**USUAL, "Ferrari California": 12})
    assert (found.path, found.issue) == ("Ferrari California", "class_name")
    assert "no year in it; 5 of 6" in found.detail
    assert odd_names({"daisy": 3, "rose": 4}) == []


@pytest.mark.parametrize("names", [[], ["a"], ["", " "], ["###", "!!!"], ["日本 2012", "日本 2011"]])
def test_any_names_can_be_looked_at(names: list[str]) -> None:
    assert all(one.issue == "class_name" for one in odd_names(dict.fromkeys(names, 1)))


def test_none_of_the_real_names_is_odd() -> None:
    data = os.environ.get("WHICHCAR_DATA")
    if not data:
        pytest.skip("WHICHCAR_DATA is not set")
    with (Path(data) / "car_dataset_labels.csv").open(encoding="utf-8") as file:
        names = {row["class"] for row in csv.DictReader(file)}
    assert len(names) == 196
    assert odd_names(dict.fromkeys(names, 40)) == []
