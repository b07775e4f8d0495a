"""Counts, commands and addresses as they are printed."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from whichcar.text import file_name, first_line, one_line, plural, reason_of, shell_command, without_password


@pytest.mark.parametrize(
    ("count", "noun", "expected"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (2, "class", "2 classes"),
        (1, "class", "1 class"),
        (3, "copy", "3 copies"),
        (2, "day", "2 days"),
        (2, "box", "2 boxes"),
        (12000, "row", "12,000 rows"),
    ],
)
def test_a_noun_agrees_with_its_count(count: int, noun: str, expected: str) -> None:
    assert plural(count, noun) == expected


def test_an_irregular_plural_is_given() -> None:
    assert plural(2, "axis", "axes") == "2 axes"


def test_a_command_splits_into_the_words_it_was_made_from() -> None:
    words = ["whichcar", "predict", "my cars/a b.jpg", "--set", "model.weights=it's $HOME;rm"]
    assert shlex.split(shell_command(words)) == words


def test_a_command_takes_paths() -> None:
    assert shell_command(["whichcar", Path("a b")]) == "whichcar 'a b'"
    assert shell_command(["whichcar", Path("-rf"), "--set"]) == "whichcar ./-rf --set"


@pytest.mark.parametrize(
    "word", ["a\nb", "a'\\b\tc", "\udcff é", "$HOME", "`x`", "!!", "长 城", "", "~", "a\u202eb", "#"]
)
def test_a_shell_reads_each_word_of_a_command_as_it_was(word: str) -> None:
    command = shell_command(["printf", "%s", word])
    assert command.isprintable()
    shell = subprocess.run(["bash", "-c", os.fsencode(command)], capture_output=True, check=True)
    assert shell.stdout == os.fsencode(word)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me:p@ss@host/db", "postgresql://me:***@host/db"),
        ("https://token@host/a@b.jpg", "https://***@host/a@b.jpg"),
        ("s3://bucket/key@2x.jpg", "s3://bucket/key@2x.jpg"),
        ("postgresql+psycopg://me:p/w@d@host/db", "postgresql+psycopg://me:***@host/db"),
        ("mysql://:pw@host/db", "mysql://:***@host/db"),
        ("https://host:8080/a@b.jpg", "https://host:8080/a@b.jpg"),
        ("https://h/a.tgz?X-Amz-Signature=abc&v=1", "https://h/a.tgz?X-Amz-Signature=***&v=1"),
        ("https://h/a?sv=2&sig=a%2Fb%3D#x", "https://h/a?sv=2&sig=***#x"),
        (
            "https://h/a?api_key=1&access_token=2&key=3&page=4",
            "https://h/a?api_key=***&access_token=***&key=***&page=4",
        ),
        ("could not connect: host=h password=secret dbname=d", "could not connect: host=h password=*** dbname=d"),
        ("--token=abc", "--token=***"),
        ("fit.epochs=3", "fit.epochs=3"),
        ("data/keys=1/token.jpg", "data/keys=1/token.jpg"),
        ("refused: https://u:p@one and https://v:q@two", "refused: https://u:***@one and https://v:***@two"),
    ],
)
def test_a_password_in_an_address_is_hidden(address: str, shown: str) -> None:
    assert without_password(address) == shown


def test_a_path_with_a_line_break_stays_on_one_line() -> None:
    assert one_line(Path("a\nb\udcff.jpg")) == "a\\nb\\udcff.jpg"


def test_spaces_of_every_kind_stay_spaces() -> None:
    assert one_line("80\u00a0% 长\u3000城") == "80\u00a0% 长\u3000城"


@pytest.mark.parametrize("name", ["cars", "model.01-0.5.h5", "Škoda", "长城"])
def test_a_plain_name_stays_as_it_is(name: str) -> None:
    assert file_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "-rf", "a b", "a/b", "a?b#c%d", "a\nb", "x" * 300, "长" * 100, "a\udcff"]
)
def test_any_text_becomes_a_file_name_that_is_safe(name: str, tmp_path: Path) -> None:
    safe = file_name(name)
    (tmp_path / safe).touch()
    assert re.fullmatch(r"[\w.-]+", safe)
    assert not safe.startswith(("-", "."))
    assert len(safe.encode()) < 100


def test_names_that_are_changed_or_cut_stay_different() -> None:
    names = ["a b", "a?b", "a_b", "x" * 300, "x" * 301, "-a", "a"]
    assert len({file_name(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied", "/some/file"), "Permission denied"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "not text in UTF-8 from byte 0 on"),
        (KeyError("right"), "right is missing"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (ValueError("two\nlines"), "two\\nlines"),
        (ValueError(), "ValueError"),
    ],
)
def test_a_reason_is_one_line_without_the_notation_of_python(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_the_first_line_of_an_error_hides_a_password() -> None:
    error = OSError("request to https://me:secret@host:5000/api failed.\nmore")
    assert first_line(error) == "request to https://me:***@host:5000/api failed"
    assert first_line(ValueError()) == "ValueError"
