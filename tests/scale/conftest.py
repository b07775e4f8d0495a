"""A runner that does the parts of a job here, one after the other, instead of a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field

import pytest

from whichcar.scale.parts import Part
from whichcar.scale.storage import Storage
from whichcar.scale.work import STAGES, Counts, Job, counts_of


@dataclass
class Here:
    """Does the parts as a worker does; notes which, and stops before the one numbered `stop`."""

    done: list[Part] = field(default_factory=list)
    stop: int | None = None

    def __call__(self, _: str, job: Job, parts: Sequence[Part]) -> Iterator[Counts | None]:
        sent = json.loads(json.dumps(asdict(job)))  # as they go to the cluster
        sent |= {name: Storage(**sent[name]) for name in ("source", "target")}
        work = STAGES[job.stage](Job(**sent))
        for number, part in enumerate(parts):
            if number == self.stop:
                raise KeyboardInterrupt
            self.done.append(part)
            yield None
            yield counts_of(work, part)


@pytest.fixture
def here() -> Here:
    return Here()


@pytest.fixture
def unbound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker binds itself to a processor, which this process is not to be."""
    monkeypatch.setattr("whichcar.scale.work.own_cores", lambda _: nullcontext([0]))
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)


@pytest.fixture
def bucket(s3: str) -> Iterator[str]:
    """An empty bucket."""
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="scale")
    yield "s3://scale"
    found = client.list_objects_v2(Bucket="scale").get("Contents", [])
    for entry in found:
        client.delete_object(Bucket="scale", Key=entry["Key"])
    client.close()
