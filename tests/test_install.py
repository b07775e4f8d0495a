"""The command for a missing extra fits where the package came from."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from whichcar import install
from whichcar.errors import MissingExtraError


class Installed:
    """What importlib.metadata says of an installed package."""

    def __init__(self, origin: dict[str, object] | None) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.origin is None else json.dumps(self.origin)


def requirement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, origin: dict[str, object] | None) -> list[str]:
    """Return the words after `install` for a package in site-packages that came from `origin`."""
    monkeypatch.setattr(install, "__file__", str(tmp_path / "lib" / "site-packages" / "whichcar" / "install.py"))
    monkeypatch.setattr(install, "distribution", lambda _: Installed(origin))
    words = shlex.split(install.install_command("check"))
    return words[words.index("install") + 1 :]


def test_a_checkout_is_installed_again_with_the_extra_and_its_pins() -> None:
    root = Path(__file__).parents[1]
    words = shlex.split(str(MissingExtraError("cleanvision", "check")).partition("install it with: ")[2])
    assert words[-4:] == ["-e", f"{root}[check]", "-c", f"{root / 'constraints.txt'}"]


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, "whichcar[check]"),
        ({"url": "file:///my%20cars/whichcar.whl", "archive_info": {}}, "/my cars/whichcar.whl[check]"),
        ({"url": "https://host/w.whl", "archive_info": {}}, "whichcar[check] @ https://host/w.whl"),
        (
            {"url": "https://host/w.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "whichcar[check] @ git+https://host/w.git@abc",
        ),
    ],
)
def test_what_was_installed_from_a_file_or_address_is_named_by_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, origin: dict[str, object] | None, expected: str
) -> None:
    assert requirement(monkeypatch, tmp_path, origin) == [expected]


def test_what_was_installed_from_a_folder_is_named_by_it_with_its_pins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tmp_path / "a b"
    source.mkdir()
    origin = {"url": source.as_uri(), "dir_info": {}}
    assert requirement(monkeypatch, tmp_path, origin) == [f"{source}[check]"]
    (source / "constraints.txt").touch()
    assert requirement(monkeypatch, tmp_path, origin) == [f"{source}[check]", "-c", f"{source}/constraints.txt"]


def test_pip_is_that_of_the_python_that_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install.install_command("check").startswith(shlex.join([sys.executable, "-m", "pip", "install"]))
