"""What the images start with: any command, as the owner of the folder it is started in, with what the tests need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCKERFILES = ("Dockerfile", "Dockerfile_gpu")
AS_OWNER = ROOT / "docker" / "as_owner.sh"
OTHER = 4321


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(AS_OWNER), *command], cwd=folder, capture_output=True, text=True, check=False)


def test_the_command_its_arguments_and_its_status_pass_through(tmp_path: Path) -> None:
    done = run(tmp_path, "bash", "-c", 'echo "$1"; exit 7', "bash", "two words")
    assert (done.stdout, done.returncode) == ("two words\n", 7)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become another user")
def test_files_are_the_folders_owners(tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    folder.mkdir()
    for above in tmp_path.parents[:-2]:  # of the temporary folder only
        above.chmod(0o755)
    tmp_path.chmod(0o755)
    os.chown(folder, OTHER, OTHER)
    assert run(folder, "touch", "made").returncode == 0
    made = (folder / "made").stat()
    assert (made.st_uid, made.st_gid) == (OTHER, OTHER)
    os.chown(folder, 0, 0)
    assert run(folder, "id", "-u").stdout == "0\n"  # root's own folder


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_starts_any_command_and_holds_what_the_tests_need(name: str) -> None:
    content = (ROOT / "docker" / name).read_text()
    assert 'ENTRYPOINT ["as_owner"]' in content
    assert "WORKDIR /home/app/src" in content
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    held = set(re.findall(r"'\.\[(.*)\]'", content)[0].split(","))
    extras = set(project["project"]["optional-dependencies"])
    assert held <= extras
    assert extras - held == {"dev", "docs", "hub", "reference", "cpu" if "gpu" in held else "gpu"}
