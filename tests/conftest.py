"""What several tests share: a quiet environment and pictures drawn once."""

from pathlib import Path

import pytest

from whichcar.data.drawn import draw


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep bars off, and the decoded cache away from the user's own."""
    monkeypatch.setenv("WHICHCAR_QUIET", "1")
    monkeypatch.setenv("WHICHCAR_CACHE", str(tmp_path_factory.getbasetemp() / "whichcar_cache"))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of eight drawn pictures with their label file; not to be written to."""
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder, classes=4, per_class=8, size=(48, 64))
    return folder
