import pytest

from whichcar.data.split_names import split_in, split_of


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ["train", "Training", " TRAIN "]),
        ("validation", ["val", "valid", "validation", "Dev"]),
        ("test", ["test", "Testing"]),
        (None, ["trains", "trainer", "tests", "valuable", "", "BMW"]),
    ],
)
def test_common_names_of_a_split_mean_it(split: str | None, names: list[str]) -> None:
    assert {split_of(name) for name in names} == {split}


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("data-validation-0000.parquet", "validation"),
        ("default/test/0000.parquet", "test"),
        ("cars_val.parquet", "validation"),
        ("test data/train.parquet", "train"),
        ("my-test-set-train-0000.parquet", "train"),
        ("trained_cars.parquet", None),
        ("latest.parquet", None),
    ],
)
def test_a_table_tells_its_split_by_a_word_of_its_path(path: str, split: str | None) -> None:
    assert split_in(path) == split
