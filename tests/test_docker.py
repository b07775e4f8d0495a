"""What the images start with: any command, as the owner of the folder it is started in, with what the tests need."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from whichcar.cli.serve import serve

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


@pytest.fixture(scope="module")
def chroot() -> ModuleType:
    """The script that takes the steps of a Dockerfile without a container engine."""
    spec = importlib.util.spec_from_file_location("chroot", ROOT / "docker" / "chroot.py")
    assert spec
    assert spec.loader
    module = sys.modules["chroot"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", [*DOCKERFILES, "Dockerfile_serve"])
def test_the_script_knows_every_line_of_a_dockerfile(name: str, chroot: ModuleType) -> None:
    steps = chroot.parse((ROOT / "docker" / name).read_text())
    last = max(number for number, step in enumerate(steps) if step.name == "FROM")
    assert [step.words for step in steps if step.name == "FROM"] == ["python:3.12-slim AS build", "python:3.12-slim"]
    assert steps[last + 1].flags == {"from": "build"}
    settings = chroot.Settings()
    for step in steps[last + 1 :]:
        if step.name not in {"COPY", "RUN"}:
            settings.take(step)
    assert settings.env["PATH"] == f"/opt/whichcar/bin:{chroot.PATH}"
    if name in DOCKERFILES:
        assert (settings.user, settings.workdir, settings.entrypoint) == ("0:0", "/home/app/src", ["as_owner"])
        assert (settings.env["HOME"], settings.cmd) == ("/home/app", ["whichcar", "--help"])
    else:
        assert (settings.user, settings.entrypoint[:2]) == ("10001:10001", ["whichcar", "serve"])
        assert settings.healthcheck[:2] == ["python", "-c"]


@pytest.mark.parametrize(
    ("line", "said"), [("ARG A=1", "ARG"), ("VOLUME /data", "VOLUME"), ("COPY --chmod=755 a b", "COPY --chmod")]
)
def test_the_script_refuses_a_line_that_it_does_not_know(line: str, said: str, chroot: ModuleType) -> None:
    with pytest.raises(ValueError, match=f"^{said}: no such"):
        chroot.parse(f"FROM python:3.12-slim\n# a comment\n{line}\n")


def test_the_image_of_the_server_is_checked_for_health_and_does_not_run_as_root() -> None:
    content = (ROOT / "docker" / "Dockerfile_serve").read_text()
    assert "pip install -c constraints.txt '.[serve]'" in content
    assert re.search(r"^USER \d+", content, re.MULTILINE)
    check = json.loads(content.split("HEALTHCHECK")[1].split("CMD ", 1)[1].splitlines()[0])
    assert "/ready" in check[2]
    with socket.socket() as silent:  # it has the port and does not listen
        silent.bind(("127.0.0.1", 0))
        code = check[2].replace(":8000/", f":{silent.getsockname()[1]}/")
        assert code != check[2]
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 1


def test_the_example_for_kubernetes_asks_for_what_the_server_has() -> None:
    deployment, service, autoscaler = yaml.safe_load_all((ROOT / "docker" / "serve.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    probes = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert probes == {"/ready", "/health"}
    known = {name for option in serve.params for name in option.opts}
    assert {one for one in container["args"] if one.startswith("--")} <= known
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    source = (ROOT / "src" / "whichcar" / "serving" / "worker_service.py").read_text()
    assert f'"{autoscaler["spec"]["metrics"][0]["pods"]["metric"]["name"]}"' in source
