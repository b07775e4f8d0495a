"""Tokens and rates."""

from __future__ import annotations

from pathlib import Path

import pytest

from whichcar.serving import access
from whichcar.serving.access import Access
from whichcar.serving.problems import Refused


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(access.time, "monotonic", lambda: now[0])
    return now


def test_a_token_is_valid_from_when_it_is_in_the_file_until_it_is_not(tmp_path: Path, clock: list[float]) -> None:
    file = tmp_path / "tokens"
    file.write_text("# of the shop\nfirst\n\nsecond\n")
    guarded = Access(file)
    assert guarded.caller("Bearer first", "a") != guarded.caller("bearer second", "a")
    for wrong in (None, "", "first", "Basic first", "Bearer ", "Bearer third", "Bearer # of the shop"):
        with pytest.raises(Refused) as refused:
            guarded.caller(wrong, "a")
        assert (refused.value.status, refused.value.headers["WWW-Authenticate"]) == (401, "Bearer")
    file.write_text("second\nthird, new\n")
    clock[0] += 2
    guarded.caller("Bearer third, new", "a")
    with pytest.raises(Refused):
        guarded.caller("Bearer first", "a")
    file.unlink()
    clock[0] += 2
    with pytest.raises(Refused):
        guarded.caller("Bearer second", "a")


def test_tokens_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Access().caller(None, "10.0.0.1") == "10.0.0.1"
    monkeypatch.setenv("WHICHCAR_TOKENS", "one two")
    guarded = Access()
    guarded.caller("Bearer two", "a")
    with pytest.raises(Refused):
        guarded.caller(None, "a")


def test_each_caller_has_its_images_a_minute(clock: list[float]) -> None:
    counted = Access(rate=6)
    counted.count("a", 5)
    counted.count("b", 6)
    with pytest.raises(Refused) as refused:
        counted.count("a", 2)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "11")
    clock[0] += 10
    counted.count("a", 2)
    with pytest.raises(Refused) as refused:
        counted.count("c", 7)
    assert refused.value.status == 413
