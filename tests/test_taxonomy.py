"""Make, model and year from class names."""

import csv
import os
from pathlib import Path

import pytest

from whichcar.taxonomy import VehicleName, parse_name


@pytest.mark.parametrize(
    ("name", "make", "model", "year"),
    [
        ("Audi S4 Sedan 2012", "Audi", "S4 Sedan", 2012),
        ("AM General Hummer SUV 2000", "AM General", "Hummer SUV", 2000),
        ("land rover LR2 SUV 2012", "land rover", "LR2 SUV", 2012),
        ("Mercedes-Benz 300-Class Convertible 1993", "Mercedes-Benz", "300-Class Convertible", 1993),
        ("Audi 100 Wagon 1994", "Audi", "100 Wagon", 1994),
        ("2012 Tesla Model S", "Tesla", "Model S", 2012),
        ("acura_cl_1997", "acura", "cl", 1997),
        ("汽车 2012", "汽车", "", 2012),
        ("丰田卡罗拉_2012", "丰田卡罗拉", "", 2012),
        ("Škoda 2012", "Škoda", "", 2012),
        ("2012 Лада", "Лада", "", 2012),
        ("Land Rover 2012", "Land Rover", "", 2012),
        ("Lynk & Co 01", "Lynk & Co", "01", None),
    ],
)
def test_a_name_is_taken_apart(name: str, make: str, model: str, year: int | None) -> None:
    assert parse_name(name) == VehicleName(make, model, year)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("Peugeot 2008", VehicleName("Peugeot", "2008", None)),
        ("Peugeot 2008 2014", VehicleName("Peugeot", "2008", 2014)),
        ("BMW 2002", VehicleName("BMW", "2002", None)),
        ("Dodge Ram 3500", VehicleName("Dodge", "Ram 3500", None)),
    ],
)
def test_a_number_is_no_year_where_it_is_the_model(name: str, parts: VehicleName) -> None:
    assert parse_name(name) == parts


def test_a_make_of_two_words_ends_where_its_word_ends() -> None:
    assert parse_name("Great Wallaby X 2001").make == "Great"
    assert parse_name("Great Wall") == VehicleName("Great Wall", "", None)


def test_a_name_of_nothing_has_no_parts() -> None:
    assert parse_name(" _ ") == VehicleName("", "", None)
    assert parse_name("2012") == VehicleName("2012", "", None)


@pytest.mark.skipif("WHICHCAR_DATA" not in os.environ, reason="WHICHCAR_DATA names no real images")
def test_all_names_of_stanford_cars_are_understood() -> None:
    with (Path(os.environ["WHICHCAR_DATA"]) / "car_dataset_labels.csv").open(encoding="utf-8") as file:
        names = sorted({row["class"] for row in csv.DictReader(file)})
    parts = [parse_name(name) for name in names]
    assert len(names) == 196
    assert len({part.make for part in parts}) == 49
    assert [f"{part.make} {part.model} {part.year}" for part in parts] == names
    assert min(part.year or 0 for part in parts) == 1991 and max(part.year or 0 for part in parts) == 2012
