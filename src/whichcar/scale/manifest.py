"""The record of a run on a cluster: `_manifest.json` in its target names the finished parts and the writing process.

A second run does the parts that are missing in it, so the images of the target need not be listed. The manifest also
keeps a second run out while the first one is alive. The process table shows that on the same machine, the time of the
last heartbeat on another one.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from whichcar.errors import DataError
from whichcar.scale.storage import Storage
from whichcar.search.lease import HEARTBEAT_SECONDS, STALE_SECONDS, Lease
from whichcar.text import as_text, plural

NAME = "_manifest.json"  # readers of a folder of Parquet files, such as pandas, skip names that begin with _


class Manifest:
    """The finished parts of a target by name, with the counts of each.

    Args:
        target: folder or bucket.
        origin: what the results depend on, as JSON values; a run with another origin is refused.
    """

    def __init__(self, target: Storage, origin: Mapping[str, Any]) -> None:
        self.target = target
        self.parts: dict[str, dict[str, Any]] = {}
        self._origin: dict[str, Any] = json.loads(json.dumps(origin))
        self._lease = Lease()
        self._saved = 0.0

    @contextlib.contextmanager
    def opened(self, forget: bool = False) -> Iterator[Manifest]:
        """Read the finished parts and reserve the target until the block ends, then save what is finished.

        Args:
            forget: redo parts that were written with other settings, instead of raising an error.

        Raises:
            DataError: the target holds something else, was written with other settings, or is used by another run.
        """
        content = self._read()
        if content is None and next(self.target.walk(), None) is not None:
            raise DataError(f"{self.target.root}: contains files of something else; give an empty folder or prefix")
        if content is not None:
            self._check_writer(content["writer"])
            if not forget:
                self._check_origin(content["origin"], self._origin)
            self.parts = content["parts"] if content["origin"] == self._origin else {}
        self._write(finished=False)
        try:
            yield self
        finally:
            with contextlib.suppress(_TakenOverError):
                self._save(released=True)

    def add(self, part: str, counts: Mapping[str, Any]) -> None:
        """Record that a part is finished."""
        self.parts[part] = dict(counts)

    def beat(self) -> None:
        """Save the finished parts and a heartbeat, if that was not done for a while.

        Raises:
            DataError: another run writes to the target now.
        """
        if time.monotonic() - self._saved > HEARTBEAT_SECONDS:
            self._save()

    def finish(self, parts: Iterable[str]) -> None:
        """Record that these are all parts, and that they are finished."""
        self.parts = {name: self.parts[name] for name in parts}
        self._write(finished=True)

    def _save(self, released: bool = False) -> None:
        content = self._read()
        if content is not None and content["writer"] and not self._lease.holds(content["writer"]):
            raise _TakenOverError(
                f"{self.target.root}: another run writes there now ({_who(content['writer'])}); this one stops"
            )
        self._write(finished=bool(content and content["finished"]), released=released)

    def _write(self, finished: bool, released: bool = False) -> None:
        writer = None if released else self._lease.record()
        content = {"finished": finished, "origin": self._origin, "writer": writer, "parts": self.parts}
        self.target.write(NAME, (json.dumps(content, indent=1) + "\n").encode())
        self._saved = time.monotonic()

    def _read(self) -> dict[str, Any] | None:
        text = self.target.read(NAME)
        if text is None:
            return None
        try:
            content: dict[str, Any] = json.loads(text)
            _ = content["finished"], content["origin"].keys(), content["writer"], content["parts"].keys()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{self.target.root}/{NAME}: is damaged; delete it and what is next to it, and run it again"
            ) from error
        return content

    def _check_origin(self, before: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> None:
        for name in sorted(now.keys() | before.keys()):
            old, new = before.get(name), now.get(name)
            if old == new:
                continue
            if isinstance(old, Mapping) and isinstance(new, Mapping) and old.get("name") == new.get("name"):
                self._check_origin(old, new, f"{above}{name}.")
            raise DataError(
                f"{self.target.root}: was written with another {above}{name} ({_short(old)}, now {_short(new)}); give "
                "the same, or another folder or prefix"
            )

    def _check_writer(self, writer: Mapping[str, Any] | None) -> None:
        if not writer or self._lease.is_free(0, writer):
            return
        is_here = writer["machine"] == self._lease.record()["machine"]
        if is_here or time.time() - writer["heartbeat"] < STALE_SECONDS:
            wait = "" if is_here else f", or for {STALE_SECONDS:.0f} seconds if that has died"
            raise DataError(f"{self.target.root}: another run writes there ({_who(writer)}); wait for it{wait}")


class _TakenOverError(DataError):
    """Another run writes to the target now."""


def _who(writer: Mapping[str, Any]) -> str:
    return f"process {writer['pid']} on {writer['host']}"


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return str(value["name"]) if "name" in value else plural(len(value), "value")
    if isinstance(value, list):
        return plural(len(value), "value")
    return "none" if value is None else as_text(str(value))
