"""Environment variables: the table against the code and the documentation, and folders without a home."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import whichcar
from whichcar import environment
from whichcar.cli.main import run
from whichcar.environment import VARIABLES, cache_root, expanded
from whichcar.errors import DataError

ROOT = Path(whichcar.__file__).parent
SETTINGS = Path(__file__).parents[1] / "docs" / "settings.md"
# Set by whichcar for others, or read and set by others' packages only to keep them quiet.
INNER = {
    *("WHICHCAR_DATA", "ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"),
    *("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "RAY_AUTH_MODE"),
    *("TF_CPP_MIN_LOG_LEVEL", "ABSL_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS"),
}


def test_every_variable_that_is_read_is_in_the_table() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py"))
    read = set(re.findall(r"""environ(?:\.get\(|\.setdefault\(|\[)"([A-Z_]+)\"""", code))
    named = set(re.findall(r"\bWHICHCAR_[A-Z]+\b", code))
    assert (read | named) - INNER <= VARIABLES.keys()
    assert {"KERAS_BACKEND", "XDG_CACHE_HOME", "WHICHCAR_CACHE"} <= read | named


def test_the_documentation_and_the_help_have_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    page = SETTINGS.read_text(encoding="utf-8")
    assert run(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, meaning in VARIABLES.items():
        assert f"| `{name}` | {meaning} |" in page
        assert f"{name} {meaning}" in shown


def test_the_help_shows_whole_summaries(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"])
    shown = capsys.readouterr().out.partition("Options:")[2]
    assert "..." not in shown and "…" not in shown
    assert max(map(len, shown.splitlines())) <= 100


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user number that the system does not know, without HOME; the temporary folder is the test's."""
    for name in ("HOME", "WHICHCAR_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(number: int) -> pwd.struct_passwd:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment._temporary.cache_clear()
    return tmp_path


def test_without_a_home_the_cache_is_temporary_and_that_is_said_once(
    homeless: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert cache_root() == cache_root() == homeless / f"whichcar-{os.getuid()}"
    assert cache_root().stat().st_mode & 0o777 == 0o700
    assert [record.getMessage().count("WHICHCAR_CACHE") for record in caplog.records] == [1]


def test_without_a_home_another_users_folder_is_not_used(homeless: Path) -> None:
    (homeless / "elsewhere").mkdir()
    (homeless / f"whichcar-{os.getuid()}").symlink_to(homeless / "elsewhere")
    with pytest.raises(DataError, match="WHICHCAR_CACHE or XDG_CACHE_HOME"):
        cache_root()


@pytest.mark.usefixtures("homeless")
def test_without_a_home_a_tilde_is_an_error_in_one_line() -> None:
    with pytest.raises(DataError, match="no home folder for ~"):
        expanded("~/cars")


def test_every_command_that_keeps_a_cache_runs_without_a_home(
    homeless: Path, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = homeless / "out"
    assert run(["cache"]) == 0
    assert run(["check", str(drawn), "--output", str(out)]) == 0
    assert run(["look", str(drawn), "--output", str(out / "look.html")]) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_onnx_runtime_keeps_no_identifier_of_this_machine(tmp_path: Path) -> None:
    known = {
        name: value for name, value in os.environ.items() if name not in {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    }
    code = "import whichcar, onnxruntime; onnxruntime.SessionOptions()"
    subprocess.run([sys.executable, "-c", code], env=known | {"HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.rglob("*")) == []


def test_the_hugging_face_hub_is_told_nothing_but_the_request() -> None:
    names = {"HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"}
    known = {name: value for name, value in os.environ.items() if name not in names}
    code = "import whichcar; from huggingface_hub.constants import HF_HUB_DISABLE_TELEMETRY as off; assert off"
    subprocess.run([sys.executable, "-c", code], env=known, check=True)


def test_a_tilde_is_expanded_in_one_place() -> None:
    assert {path.name for path in ROOT.rglob("*.py") if "expanduser" in path.read_text(encoding="utf-8")} == {
        "environment.py"
    }
