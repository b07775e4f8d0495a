"""Make, model, body type and year from class names, and the classes grouped by them."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from whichcar.taxonomy import VehicleName, parse_name, taxonomy_of

CARS = (
    "Audi S4 Sedan 2007",
    "Audi S4 Sedan 2012",
    "Audi S5 Coupe 2012",
    "AUDI TTS Coupe 2012",
    "Land Rover LR2 SUV 2012",
    "Volvo 240 Sedan 1993",
)


@pytest.mark.parametrize(
    ("name", "make", "model", "body", "years"),
    [
        ("Audi S4 Sedan 2012", "Audi", "S4", "Sedan", "2012"),
        ("AM General Hummer SUV 2000", "AM General", "Hummer", "SUV", "2000"),
        ("land rover LR2 SUV 2012", "land rover", "LR2", "SUV", "2012"),
        ("Mercedes-Benz 300-Class Convertible 1993", "Mercedes-Benz", "300-Class", "Convertible", "1993"),
        ("2012 Tesla Model S", "Tesla", "Model S", "", "2012"),
        ("acura_cl_1997", "acura", "cl", "", "1997"),
        ("汽车 2012", "汽车", "", "", "2012"),
        ("Škoda 2012", "Škoda", "", "", "2012"),
        ("2012 Лада", "Лада", "", "", "2012"),
        ("Land Rover 2012", "Land Rover", "", "", "2012"),
        ("Lynk & Co 01", "Lynk & Co", "01", "", ""),
        ("Ford Ranger SuperCab 2011", "Ford", "Ranger", "Pickup", "2011"),
        ("GMC Canyon Extended Cab 2012", "GMC", "Canyon", "Pickup", "2012"),
        ("Dodge Sprinter Cargo Van 2009", "Dodge", "Sprinter", "Van", "2009"),
        ("Mini Suvereno 2012", "Mini", "Suvereno", "", "2012"),
        ("Audi A4 Avant 2009-2011", "Audi", "A4 Avant", "", "2009-2011"),
        ("Audi_A4_Sedan_2009–11", "Audi", "A4", "Sedan", "2009-2011"),
        ("Opel Astra Sedan 1998-04", "Opel", "Astra", "Sedan", "1998-2004"),
        ("Opel Astra 1994-98", "Opel", "Astra", "", "1994-1998"),
        ("Audi A4 2012-2012", "Audi", "A4", "", "2012"),
        ("Jaguar XK XKR 2012", "Jaguar", "XK", "Coupe", "2012"),
        ("Infiniti G Coupe IPL 2012", "Infiniti", "G", "Coupe", "2012"),
        ("Ram C/V Cargo Van Minivan 2012", "Ram", "C/V", "Minivan", "2012"),
        ("Black footed Albatross", "Black", "footed Albatross", "", ""),
    ],
)
def test_a_name_is_taken_apart(name: str, make: str, model: str, body: str, years: str) -> None:
    parts = parse_name(name)
    assert (parts.make, parts.model, parts.body, parts.years) == (make, model, body, years)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("Peugeot 2008", VehicleName("Peugeot", "2008", "", None, None)),
        ("Peugeot 2008 2014", VehicleName("Peugeot", "2008", "", 2014, 2014)),
        ("BMW 2002", VehicleName("BMW", "2002", "", None, None)),
        ("Dodge Ram 3500", VehicleName("Dodge", "Ram 3500", "", None, None)),
    ],
)
def test_a_number_is_no_year_where_it_is_the_model(name: str, parts: VehicleName) -> None:
    assert parse_name(name) == parts


def test_a_make_of_two_words_ends_where_its_word_ends() -> None:
    assert parse_name("Great Wallaby X 2001").make == "Great"
    assert parse_name("Great Wall") == VehicleName("Great Wall", "", "", None, None)


def test_a_name_of_nothing_has_no_parts() -> None:
    assert parse_name(" _ ") == VehicleName("", "", "", None, None)
    assert parse_name("2012") == VehicleName("2012", "", "", None, None)


def test_probabilities_add_up_along_the_levels() -> None:
    taxonomy = taxonomy_of(CARS)
    assert [level.name for level in taxonomy.levels] == ["class", "model", "make"]
    probabilities = np.array([[0.3, 0.2, 0.1, 0.05, 0.25, 0.1]], np.float32)
    model, make = (probabilities @ level.matrix for level in taxonomy.levels[1:])
    assert dict(zip(taxonomy.levels[1].groups, model[0].tolist(), strict=True)) == pytest.approx(
        {"Audi S4": 0.5, "Audi S5": 0.1, "AUDI TT": 0.05, "Land Rover LR2": 0.25, "Volvo 240": 0.1}
    )
    assert dict(zip(taxonomy.levels[2].groups, make[0].tolist(), strict=True)) == pytest.approx(
        {"Audi": 0.65, "Land Rover": 0.25, "Volvo": 0.1}
    )


def test_a_taxonomy_as_json_has_the_group_of_each_class() -> None:
    content = taxonomy_of(CARS).as_json()
    assert list(content) == ["model", "make", "body type", "year"]
    assert content["make"] == ["Audi", "Audi", "Audi", "Audi", "Land Rover", "Volvo"]
    assert content["year"][0] == "2007"
    assert taxonomy_of(("a", "b")).as_json() == {}


def test_every_group_lies_in_one_group_of_the_next_level() -> None:
    taxonomy = taxonomy_of(CARS)
    for fine, coarse in zip(taxonomy.levels, taxonomy.levels[1:], strict=False):
        assert (fine.matrix.T @ coarse.matrix > 0).sum(axis=1).tolist() == [1] * len(fine.groups)


def test_a_name_without_a_year_belongs_to_a_make_that_others_have_with_one() -> None:
    names = ("Zastava Yugo", "Zastava Yugo 1985", "Audi A4 2012", "Audi A6 2012", "Audi A8 2012")
    _, model, make = taxonomy_of(names).levels
    assert model.groups == ("Zastava Yugo", "Audi A4", "Audi A6", "Audi A8")
    assert make.groups == ("Zastava", "Audi")


def test_body_type_and_year_group_the_classes_in_other_ways() -> None:
    body, year = taxonomy_of(CARS).facets
    assert (body.name, body.groups) == ("body type", ("Sedan", "Coupe", "SUV"))
    assert (year.name, year.groups) == ("year", ("2007", "2012", "1993"))


def test_names_that_differ_in_case_alone_are_of_two_classes() -> None:
    names = ("BMW X5 2010", "bmw x5 2010", "Kia Rio 2011")
    classes, *coarser = taxonomy_of(names).levels
    assert classes.groups == names and classes.matrix.shape == (3, 3)
    assert [level.groups for level in coarser] == [("BMW X5", "Kia Rio")]


@pytest.mark.parametrize("names", [("Black footed Albatross", "Laysan Albatross"), ("a", "b"), ("a",)])
def test_names_that_are_not_those_of_vehicles_have_one_level(names: tuple[str, ...]) -> None:
    taxonomy = taxonomy_of(names)
    assert [level.groups for level in taxonomy.all] == [names]


def test_known_makes_are_enough_for_levels() -> None:
    assert [level.name for level in taxonomy_of(("audi_a4", "Audi A6", "bmw x5")).all] == ["class", "make"]


def test_a_class_that_is_no_vehicle_is_a_group_of_its_own() -> None:
    taxonomy = taxonomy_of((*CARS, "other things", "other animals"))
    assert taxonomy.levels[-1].groups == ("Audi", "Land Rover", "Volvo", "other things", "other animals")
    assert "not stated" in taxonomy.facets[0].groups


@pytest.mark.skipif("WHICHCAR_DATA" not in os.environ, reason="WHICHCAR_DATA names no real images")
def test_all_names_of_stanford_cars_are_understood() -> None:
    with (Path(os.environ["WHICHCAR_DATA"]) / "car_dataset_labels.csv").open(encoding="utf-8") as file:
        names = sorted({row["class"] for row in csv.DictReader(file)})
    parts = [parse_name(name) for name in names]
    assert len(names) == 196
    taxonomy = taxonomy_of(names)
    counts = {level.name: len(level.groups) for level in taxonomy.all}
    assert counts == {"class": 196, "model": 162, "make": 49, "body type": 9, "year": 16}
    for name, part in zip(names, parts, strict=True):
        assert name.startswith(f"{part.make} ") and name.endswith(f" {part.year}") and part.model and part.body
    assert min(part.year or 0 for part in parts) == 1991 and max(part.year or 0 for part in parts) == 2012
