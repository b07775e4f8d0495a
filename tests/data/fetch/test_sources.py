"""Data sets with a name, through `fetch`."""

from __future__ import annotations

from pathlib import Path

import pytest

from whichcar.data.fetch.fetch import fetch
from whichcar.data.fetch.sources import NAMED
from whichcar.errors import DataError


def test_of_a_named_set_every_home_that_fails_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes = (("http://127.0.0.1:9/a.tgz",), ("gopher://second/a.tgz",))
    monkeypatch.setitem(NAMED, "stanford-cars", homes)
    monkeypatch.setattr("whichcar.data.fetch.download.TRIES", 1)
    with pytest.raises(
        DataError, match=r"http://127\.0\.0\.1:9/a\.tgz: .*; gopher://second/a\.tgz: gopher:// is not known"
    ):
        fetch(["stanford-cars"], tmp_path / "data")


def test_the_named_set_tells_its_terms_and_comes_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert all(source.startswith("hf://datasets/") for home in NAMED["stanford-cars"] for source in home)
    monkeypatch.setitem(NAMED, "stanford-cars", (("gopher://first/a.tgz",),))
    with pytest.raises(DataError, match="get its files another way and give their paths"):
        fetch("stanford-cars", tmp_path / "data")
    assert "non-commercial research" in caplog.text
