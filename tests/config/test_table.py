"""The table of settings that the README shows."""

from whichcar.config.table import Setting, describe_settings

TABLE = {row.name: row for row in describe_settings()}


def test_a_row_has_name_kind_default_limits_and_meaning() -> None:
    assert TABLE["model.dropout_rate"] == Setting(
        "model.dropout_rate", "number", "0.0", "at least 0, less than 1", "dropout rate before the classification head"
    )


def test_each_kind_in_words() -> None:
    assert TABLE["seed"][1:4] == ("whole number", "required", "at least 0, at most 4294967295")
    assert TABLE["data.image_size"][1:4] == ("[whole number, whole number]", "[224, 224]", "at least 16, at most 2048")
    assert TABLE["data.cache_size"].kind == "[whole number, whole number] or null"
    assert TABLE["model.weights"][1:3] == ("text or null", '"imagenet"')
    assert TABLE["model.input_shape"].kind == "[whole number or null, whole number or null, 3]"
    assert TABLE["model.data_aug_layer"].kind == "settings by name or null"
    assert TABLE["compile.metrics"].kind == "list of accuracy"
    assert TABLE["fit.callbacks.tensor_board"][1:3] == ("section", "")
    assert TABLE["fit.callbacks.early_stopping"][1:3] == ("section", "off")
    assert TABLE["recipe.schedule"].kind == "constant or cosine"
    assert TABLE["recipe.stages"][1:4] == ("list of section", "[]", "")
    assert TABLE["recipe.stages[].epochs"][1:4] == ("whole number", "required", "at least 1")
    assert TABLE["recipe.test_sizes"].kind == "list of [whole number, whole number]"


def test_every_setting_has_a_meaning_and_none_is_listed_twice() -> None:
    rows = describe_settings()
    assert all(row.meaning and row.kind for row in rows)
    assert len({row.name for row in rows}) == len(rows)
    assert not any("settings" in row.kind for row in rows if row.name != "model.data_aug_layer")
