#!/usr/bin/env python3
"""Build the images of this folder and run commands in them without a container engine: as root, in a Debian root.

    python docker/chroot.py build -t s05_project -f docker/Dockerfile .
    python docker/chroot.py run --rm -v "$(pwd):/home/app/src" --workdir /home/app/src s05_project whichcar --help
    python docker/chroot.py health whichcar_serve

The arguments are those of `docker`, and the steps are the lines of the Dockerfile. What differs: `FROM python:…` is a
Debian installed by debootstrap with the Python of that suite; `.dockerignore` is not read; the network, the devices and
the kernel's limits are those of this machine. As with `docker run --rm`, what a command writes outside its volumes is
discarded, and its processes and mounts end with it. Images and named volumes are folders in `--store`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

PACKAGES = "ca-certificates,python-is-python3,python3,python3-venv"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FLAGS = {"COPY": {"from"}, "HEALTHCHECK": {"interval", "timeout", "start-period", "start-interval", "retries"}}


@dataclass(frozen=True, slots=True)
class Step:
    """A line of a Dockerfile, with its continuation lines."""

    name: str
    flags: dict[str, str]
    words: str

    def command(self) -> list[str]:
        """Return the words as the JSON list that they are, or else as a line for the shell."""
        return list(map(str, json.loads(self.words))) if self.words.startswith("[") else ["/bin/sh", "-c", self.words]


@dataclass(slots=True)
class Settings:
    """What an image starts with."""

    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    workdir: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)

    def expand(self, words: str) -> str:
        """Put the values of `env` in place of $NAME and ${NAME}; a name without a value is empty."""
        return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda name: self.env.get(name[1] or name[2], ""), words)

    def take(self, step: Step) -> None:
        """Take over what a step sets.

        Raises:
            ValueError: an instruction that is not known here.
        """
        match step.name:
            case "ENV":
                pairs = [pair.partition("=") for pair in shlex.split(self.expand(step.words))]
                self.env.update({name: value for name, _, value in pairs})
            case "WORKDIR":
                self.workdir = os.path.join(self.workdir, self.expand(step.words))  # noqa: PTH118, a path in the image
            case "USER":
                user, _, group = self.expand(step.words).partition(":")
                self.user = f"{user}:{group or 0}"
            case "ENTRYPOINT":
                self.entrypoint = step.command()
            case "CMD":
                self.cmd = step.command()
            case "HEALTHCHECK":
                self.healthcheck = Step("CMD", {}, step.words.removeprefix("CMD").lstrip()).command()
            case "EXPOSE":
                pass
            case other:
                raise ValueError(f"{other}: no such instruction here")


def parse(content: str) -> list[Step]:
    """Read the steps of a Dockerfile.

    Raises:
        ValueError: an instruction or flag that is not known here.
    """
    lines = (line for line in content.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    steps = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, words = line.strip().partition(" ")
        flags = {}
        while match := re.match(r"--([a-z-]+)=(\S+)\s+", words):
            flags[match[1]] = match[2]
            words = words[match.end() :]
        if unknown := flags.keys() - FLAGS.get(name, set()):
            raise ValueError(f"{name} --{min(unknown)}: no such flag here")
        steps.append(Step(name, flags, words.strip()))
    for step in steps:
        if step.name not in {"FROM", "COPY", "RUN"}:
            Settings().take(step)
    return steps


def command_in(
    root: Path, command: Sequence[str], settings: Settings, volumes: Sequence[tuple[Path, str, bool]], *, keep: bool
) -> list[str]:
    """Return the command line that runs `command` in a root as its own mount and process namespace.

    Args:
        root: the folder that becomes `/`.
        command: run as the user, in the folder and with the environment of `settings`.
        settings: of the image.
        volumes: path here, path in the root, whether it is read only.
        keep: whether what is written outside the volumes stays in `root`.
    """
    at = root.parent / "mounted"
    mounts = [["mkdir", "-p", str(at)]]
    if keep:
        mounts += [["mount", "--bind", str(root), str(at)]]
    else:
        layers = f"lowerdir={root},upperdir={at}/upper,workdir={at}/work"
        mounts += [
            ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(at)],
            ["mkdir", f"{at}/upper", f"{at}/work"],
            ["mount", "-t", "overlay", "-o", layers, "overlay", str(at)],
        ]
    mounts += [
        ["mount", "--rbind", "/dev", f"{at}/dev"],
        ["mount", "-t", "tmpfs", "-o", "size=64m,mode=1777", "tmpfs", f"{at}/dev/shm"],  # as large as in a container
        ["mount", "--rbind", "/sys", f"{at}/sys"],
        ["mkdir", "-p", f"{at}{settings.workdir}"],
    ]
    for source, target, read_only in [
        (Path("/etc/resolv.conf"), "/etc/resolv.conf", True),
        (Path("/etc/hosts"), "/etc/hosts", True),
        *volumes,
    ]:
        point = f"{at}{target}"
        if source.is_dir():
            mounts += [["mkdir", "-p", point]]
        else:
            mounts += [["mkdir", "-p", str(Path(point).parent)], ["touch", "-a", point]]
        mounts += [["mount", "--bind", str(source), point]]
        if read_only:
            mounts += [["mount", "-o", "remount,bind,ro", point]]
    user, group = settings.user.split(":")
    home = "/root" if user == "0" else "/"
    env = [f"{name}={value}" for name, value in ({"HOME": home} | settings.env).items()]
    inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", f"--root={at}", f"--wd={settings.workdir}"]
    inside += [f"--setgid={group}", f"--setuid={user}", "/usr/bin/env", "-i", *env, *command]
    script = "\n".join(map(shlex.join, [*mounts, ["exec", *inside]]))
    return ["unshare", "--mount", "sh", "-ec", script]


def debian(folder: Path, suite: str, mirror: str | None) -> None:
    """Install Debian's base and its Python into a folder, unless it is there."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(part)]
        subprocess.run([*command, *([mirror] if mirror else [])], check=True)
        part.rename(folder)


def copy(step: Step, source: Path, root: Path, settings: Settings) -> None:
    """Copy files and the content of folders as COPY does, owned by root."""
    *sources, target = shlex.split(settings.expand(step.words))
    at = os.path.join(settings.workdir, target)  # noqa: PTH118, keeps the slash at the end
    for name in sources:
        one = source / name.lstrip("/")
        into = root / at.lstrip("/")
        if one.is_file() and (at.endswith("/") or into.is_dir()):
            into /= one.name
        into.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-dR", "--preserve=mode,timestamps", "-T", one, into], check=True)


def folder_of(tag: str, store: Path) -> Path:
    """Return the folder of an image.

    Raises:
        ValueError: the tag cannot be the name of a folder.
    """
    if not re.fullmatch(r"\w[\w.-]*", tag):
        raise ValueError(f"{tag}: must be letters, digits, _, . and -")
    return store / "images" / tag


def build(store: Path, options: argparse.Namespace) -> None:
    """Take the steps of a Dockerfile; the last stage becomes the image."""
    steps = parse(Path(options.file).read_text())
    image = folder_of(options.tag, store)
    base = store / f"debian_{options.suite}"
    debian(base, options.suite, options.mirror)
    shutil.rmtree(image, ignore_errors=True)
    stages: dict[str, Path] = {}
    settings = Settings()
    root = base
    for number, step in enumerate(steps):
        print(f"{number + 1}/{len(steps)} {step.name} {step.words}", flush=True)
        if step.name == "FROM":
            origin, _, name = step.words.partition(" AS ")
            if not origin.startswith("python:"):
                raise ValueError(f"FROM {origin}: only `python:` is known here")
            root = image / f"stage_{len(stages)}"
            stages[name or str(len(stages))] = root
            root.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", base, root], check=True)
            settings = Settings()
        elif step.name == "COPY":
            copy(step, stages[step.flags["from"]] if step.flags else Path(options.context), root, settings)
        elif step.name == "RUN":
            at_build = Settings(settings.env | environment(options.env), settings.workdir, settings.user)
            volumes = [volume(one, store, root) for one in options.volume]
            subprocess.run(command_in(root, step.command(), at_build, volumes, keep=True), check=True)
        else:
            settings.take(step)
            (root / settings.workdir.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for one in stages.values():
        if one != root:
            shutil.rmtree(one)
    root.rename(image / "root")
    (image / "settings.json").write_text(json.dumps(asdict(settings), indent=1))


def environment(given: Sequence[str]) -> dict[str, str]:
    """Return NAME=VALUE pairs as a mapping; NAME alone takes the value that it has here, if any."""
    pairs = [one if "=" in one else f"{one}={os.environ[one]}" for one in given if "=" in one or one in os.environ]
    return dict(pair.split("=", 1) for pair in pairs)


def volume(given: str, store: Path, root: Path) -> tuple[Path, str, bool]:
    """Return path here, path in the root and whether it is read only, of `PATH_OR_NAME:PATH[:ro]`.

    A name is a folder of the store; a new one begins with what the image has at that path, as in Docker.
    """
    name, target, *mode = given.split(":")
    if mode not in ([], ["ro"], ["rw"]) or not target.startswith("/"):
        raise ValueError(f"-v {given}: must be PATH_OR_NAME:PATH or PATH_OR_NAME:PATH:ro")
    if "/" in name:
        source = Path(name).absolute()
        if not source.exists():
            source.mkdir(parents=True)
    else:
        source = store / "volumes" / name
        if not source.exists():
            source.parent.mkdir(exist_ok=True)
            within = root / target.lstrip("/")
            subprocess.run(["cp", "-a", within, source] if within.is_dir() else ["mkdir", source], check=True)
    return source, target, mode == ["ro"]


def start(store: Path, options: argparse.Namespace) -> list[str]:
    """Return the command line of `run` or `health`."""
    image = folder_of(options.tag, store)
    if not (image / "settings.json").is_file():
        raise ValueError(f"{options.tag}: no such image in {store}; build it first")
    settings = Settings(**json.loads((image / "settings.json").read_text()))
    if options.action == "health":
        if not settings.healthcheck:
            raise ValueError(f"{options.tag}: has no HEALTHCHECK")
        return command_in(image / "root", settings.healthcheck, settings, [], keep=False)
    settings.env |= environment(options.env)
    settings.workdir = options.workdir or settings.workdir
    settings.user = options.user or settings.user
    settings.take(Step("USER", {}, settings.user))
    volumes = [volume(one, store, image / "root") for one in options.volume]
    command = [*settings.entrypoint, *(options.command or settings.cmd)]
    return command_in(image / "root", command, settings, volumes, keep=False)


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default="build/chroot", help="folder of images and named volumes")
    actions = parser.add_subparsers(dest="action", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("-v", "--volume", action="append", default=[], metavar="PATH_OR_NAME:PATH[:ro]")
    shared.add_argument("-e", "--env", action="append", default=[], metavar="NAME[=VALUE]")
    one = actions.add_parser("build", parents=[shared], help="-v and -e are for the RUN steps only")
    one.add_argument("-t", "--tag", required=True)
    one.add_argument("-f", "--file", default="Dockerfile")
    one.add_argument("--suite", default="trixie", help="of Debian; trixie has Python 3.13")
    one.add_argument("--mirror", help="of Debian, in place of debootstrap's own")
    one.add_argument("context")
    one = actions.add_parser("run", parents=[shared], help="-i, -t and --rm are always so; -p changes nothing")
    one.add_argument("-i", "-t", "--rm", action="store_true")
    one.add_argument("-p", "--publish", action="append")
    one.add_argument("-u", "--user", metavar="UID[:GID]")
    one.add_argument("-w", "--workdir")
    one.add_argument("tag")
    one.add_argument("command", nargs=argparse.REMAINDER)
    actions.add_parser("health", help="run the HEALTHCHECK, once").add_argument("tag")
    return parser


def main() -> None:
    """Build, or become the command that is to run."""
    options = arguments().parse_args()
    store = options.store.absolute()
    try:
        if os.geteuid():
            raise ValueError("only root can change the root")
        if options.action == "build":
            build(store, options)
        else:
            command = start(store, options)
            os.execvp(command[0], command)
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
