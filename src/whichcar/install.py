"""The command that installs an extra of this package from where the package was installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from whichcar.text import shell_command

NAME = "whichcar"


def install_command(extra: str) -> str:
    """Return the command that adds an extra, such as `pip install -e '/src/whichcar[check]' -c …/constraints.txt`."""
    return shell_command([*_pip(), "install", *_requirement(extra)])


def _requirement(extra: str) -> list[str]:
    checkout = Path(__file__).parents[2]
    if (checkout / "pyproject.toml").is_file():
        return _from_folder(checkout, extra, editable=True)
    origin = _origin()
    url = str(origin.get("url", ""))
    if "dir_info" in origin:
        return _from_folder(_path(url), extra, editable=False)
    if url.startswith("file:"):
        return [f"{_path(url)}[{extra}]"]
    if "vcs_info" in origin:
        version = origin["vcs_info"]
        return [f"{NAME}[{extra}] @ {version['vcs']}+{url}@{version['commit_id']}"]
    return [f"{NAME}[{extra}]{' @ ' + url if url else ''}"]


def _from_folder(folder: Path, extra: str, editable: bool) -> list[str]:
    constraints = folder / "constraints.txt"
    pinned = ["-c", str(constraints)] if constraints.is_file() else []
    return [*(["-e"] if editable else []), f"{folder}[{extra}]", *pinned]


def _path(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


def _origin() -> dict[str, Any]:
    """Return PEP 610's direct_url.json; empty if the package came from an index."""
    try:
        content: dict[str, Any] = json.loads(distribution(NAME).read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return {}
    return content


def _pip() -> list[str]:
    """Return the command that runs pip for this Python."""
    found = shutil.which("pip")
    if found and Path(found).parent == Path(sys.executable).parent:
        return ["pip"]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    return ["uv", "pip"] if Path(sys.prefix, "pyvenv.cfg").is_file() else ["pip"]
