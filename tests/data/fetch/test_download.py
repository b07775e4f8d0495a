"""Downloads from real servers on loopback: an HTTP server that can fail on demand, and an S3 server of its own."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from whichcar.data.fetch import download as download_module
from whichcar.data.fetch.download import download, file_name, identity, is_remote
from whichcar.errors import DataError

from ...loopback import Silent, served

pytest.importorskip("s3fs", reason="whichcar[fetch] is not installed")

CONTENT = bytes(range(256)) * 4_000  # a megabyte
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(Silent):
    """Serves CONTENT with ranges; the path says what goes wrong."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, int]]] = []
    cuts: ClassVar[int] = 0
    tag: ClassVar[str] = '"one"'
    content: ClassVar[bytes] = CONTENT

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        if self.path.startswith(("/missing", "/forbidden")) or (body and self.path.startswith("/listed")):
            self.send_error(404 if self.path.startswith("/missing") else 403)
            return
        if self.path.startswith("/busy") and type(self).cuts:
            type(self).cuts -= 1
            self.send_error(503)
            return
        if self.path.startswith("/no-parts"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.content)))
            if self.path.startswith("/no-parts-none"):
                self.send_header("Accept-Ranges", "none")
            self.end_headers()
            if body:
                self.asked.append((self.path, 0))
                self.wfile.write(self.content)
            return
        found = re.match(r"bytes=(\d+)-(\d+)?", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        end = min(int(found[2]) + 1 if found and found[2] else len(self.content), len(self.content))
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", type(self).tag)
        self.send_header("Accept-Ranges", "bytes")
        if found:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(self.content)}")
        self.end_headers()
        if not body:
            return
        self.asked.append((self.path, start))
        if type(self).cuts and self.path.startswith(("/cut", "/late") if start >= 600_000 else "/cut"):
            type(self).cuts -= 1
            self.wfile.write(self.content[start : (start + end) // 2])
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if self.path.startswith("/changing"):
            type(self).tag = f'"{len(self.asked)}"'
        self.wfile.write(self.content[start:end])


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("asked", "cuts", "tag", "content"):
        monkeypatch.setattr(Handler, name, {"asked": [], "cuts": 0, "tag": '"one"', "content": CONTENT}[name])
    monkeypatch.setattr(download_module, "BLOCK", 200_000)
    with served(Handler) as address:
        yield address


def test_a_file_comes_whole_with_its_checksum(web: str, tmp_path: Path) -> None:
    got = download(f"{web}/a%20b.tgz?token=secret", tmp_path)
    assert got.path == tmp_path / "a b.tgz"
    assert got.path.read_bytes() == CONTENT
    assert (got.size, got.sha256, got.source) == (len(CONTENT), DIGEST, f"{web}/a%20b.tgz?token=***")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a b.tgz.json", "a b.tgz"]


def test_a_broken_connection_is_taken_up_where_it_broke(web: str, tmp_path: Path) -> None:
    Handler.cuts = 3
    assert download(f"{web}/cut.tgz", tmp_path, pause=0.01).sha256 == DIGEST
    starts = [start for _, start in Handler.asked]
    assert starts == sorted(starts)
    assert starts[-1] > 0


def test_what_has_come_is_kept_for_the_next_run(web: str, tmp_path: Path) -> None:
    Handler.cuts = 100
    with pytest.raises(DataError, match=r"/late\.tgz: "):
        download(f"{web}/late.tgz", tmp_path, pause=0.001)
    Handler.cuts, Handler.asked[:] = 0, []
    assert download(f"{web}/late.tgz", tmp_path).path.read_bytes() == CONTENT
    assert [start for _, start in Handler.asked] == [600_000, 800_000, 1_000_000]


def test_what_is_there_already_is_not_fetched_again_unless_it_changed(web: str, tmp_path: Path) -> None:
    first = download(f"{web}/a.tgz", tmp_path)
    Handler.asked.clear()
    assert download(f"{web}/a.tgz", tmp_path) == download(f"{web}/a.tgz", tmp_path, sha256=DIGEST) == first
    assert Handler.asked == []
    Handler.tag, Handler.content = '"two"', CONTENT[::-1]
    assert download(f"{web}/a.tgz", tmp_path).path.read_bytes() == CONTENT[::-1]


def test_a_file_of_a_server_that_names_no_version_is_fetched_again_on_demand(web: str, tmp_path: Path) -> None:
    download(f"{web}/no-parts.tgz", tmp_path)
    Handler.content = CONTENT[::-1]
    assert download(f"{web}/no-parts.tgz", tmp_path).path.read_bytes() == CONTENT
    assert download(f"{web}/no-parts.tgz", tmp_path, redo=True).path.read_bytes() == CONTENT[::-1]


def test_a_file_of_another_address_is_fetched_though_its_name_is_the_same(web: str, tmp_path: Path) -> None:
    download(f"{web}/a.tgz?set=1", tmp_path)
    Handler.asked.clear()
    download(f"{web}/a.tgz?set=2&token=secret", tmp_path)
    assert Handler.asked
    Handler.asked.clear()
    download(f"{web}/a.tgz?set=2&token=other", tmp_path)
    assert Handler.asked == []


@pytest.mark.parametrize("name", ["no-parts.tgz", "no-parts-none.tgz"])
def test_a_server_that_gives_no_parts_is_read_in_one_go(
    web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.delenv("WHICHCAR_QUIET", raising=False)
    (tmp_path / f"{name}.part").write_bytes(b"x" * 1000)
    (tmp_path / f".{name}.part.json").write_text(json.dumps({"address": f"{web}/{name}", "size": len(CONTENT)}))
    assert download(f"{web}/{name}", tmp_path).path.read_bytes() == CONTENT
    assert f"fetching {name}: 1024/1024 kB, " in capsys.readouterr().err


def test_what_came_in_an_earlier_run_counts_for_no_rate(
    web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WHICHCAR_QUIET", raising=False)
    Handler.cuts = 100
    with pytest.raises(DataError):
        download(f"{web}/late.tgz", tmp_path, pause=0.001)
    (tmp_path / "late.tgz.part").write_bytes(CONTENT)
    capsys.readouterr()
    assert download(f"{web}/late.tgz", tmp_path).sha256 == DIGEST
    assert "fetching late.tgz: 1024/1024 kB, 0:00 in all\n" in capsys.readouterr().err


def test_a_busy_server_is_asked_again(web: str, tmp_path: Path) -> None:
    Handler.cuts = 2
    assert download(f"{web}/busy.tgz", tmp_path, pause=0.01).sha256 == DIGEST
    Handler.cuts = 100
    with pytest.raises(DataError, match="the server answers 503"):
        download(f"{web}/busy2.tgz", tmp_path, pause=0.001)


def test_more_than_the_whole_is_begun_again(web: str, tmp_path: Path) -> None:
    Handler.cuts = 100
    with pytest.raises(DataError):
        download(f"{web}/cut.tgz", tmp_path, pause=0.001)
    (tmp_path / "cut.tgz.part").write_bytes(bytes(2_000_000))
    Handler.cuts = 0
    assert download(f"{web}/cut.tgz", tmp_path).path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://h/a/..%2F..%2Fevil.tgz", "evil.tgz"),
        ("https://h/%2Fetc%2Fevil.tgz", "evil.tgz"),
        ("https://h/a/..%5Cevil.tgz", "evil.tgz"),
        ("https://h/a/%2E%2E", ""),
        ("s3://b/a%2Fb.tgz", "a%2Fb.tgz"),
        ("https://h/", ""),
    ],
)
def test_a_name_from_an_address_is_never_a_path(url: str, name: str) -> None:
    assert file_name(url) == name


@pytest.mark.parametrize("name", ["id", "key", "date", "design"])
def test_addresses_are_distinguished_by_what_does_not_sign_them(name: str) -> None:
    assert identity(f"https://h/a?{name}=1") != identity(f"https://h/a?{name}=2")


@pytest.mark.parametrize(
    "query",
    [
        "X-Amz-Signature=1&X-Amz-Date=2",
        "Signature=1&Expires=2&Key-Pair-Id=3",
        "sv=1&se=2&sig=3",
        "token=1",
        "api_key=1",
        "X-Api-Key=1",
        "apikey=1",
        "accesstoken=1",
        "access_token=1",
        "Credential=1",
        "auth=1",
    ],
)
def test_a_new_signature_is_the_same_address(query: str) -> None:
    assert identity(f"https://h/a?{query}") == identity("https://h/a") == "https://h/a"


def test_another_version_of_the_file_is_begun_again(web: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Handler.cuts = 100
    with pytest.raises(DataError):
        download(f"{web}/cut.tgz", tmp_path, pause=0.001)
    (tmp_path / "cut.tgz.part").write_bytes(b"x" * 600_000)
    Handler.cuts, Handler.tag, Handler.content = 0, '"two"', CONTENT[::-1]
    assert download(f"{web}/cut.tgz", tmp_path).path.read_bytes() == CONTENT[::-1]
    assert "changed since its download began; beginning again" in caplog.text


def test_a_file_that_changes_while_it_comes_is_noticed(web: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the file changed while it was fetched"):
        download(f"{web}/changing.tgz", tmp_path, pause=0.001)
    assert not (tmp_path / "changing.tgz").exists()


def test_a_wrong_checksum_leaves_no_file(web: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"its SHA-256 is {DIGEST}, not 0000"):
        download(f"{web}/a.tgz", tmp_path, sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []
    assert download(f"{web}/a.tgz", tmp_path, sha256=DIGEST.upper()).sha256 == DIGEST


@pytest.mark.parametrize(("name", "said"), [("missing", "there is no such file"), ("forbidden", "access is refused")])
def test_what_no_further_try_can_fix_fails_at_once_and_keeps_secrets(
    web: str, tmp_path: Path, name: str, said: str
) -> None:
    address = web.replace("http://", "http://me:secret@")
    with pytest.raises(DataError, match=said) as caught:
        download(f"{address}/{name}.tgz?signature=secret", tmp_path, pause=100)
    assert "secret" not in str(caught.value)
    assert "AWS" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_listed_but_not_given_leaves_nothing(web: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="access is refused; check the address"):
        download(f"{web}/listed.tgz", tmp_path, pause=100)
    assert list(tmp_path.iterdir()) == []


def test_no_server_is_reported_after_some_tries(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/a\.tgz: (no connection|Cannot connect)"):
        download("http://127.0.0.1:9/a.tgz", tmp_path, pause=0.001)


def test_an_unknown_scheme_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gopher:// is not known here; known: s3, https, http, hf and paths"):
        download("gopher://x/a.tgz", tmp_path)
    with pytest.raises(DataError, match="names no file"):
        download("https://example.org/", tmp_path)


def test_addresses_are_reported_from_paths_and_shown_without_secrets() -> None:
    assert is_remote("s3://b/k")
    assert not is_remote("data/car_ims")
    assert not is_remote("file:///data")
    assert identity("https://me:pw@host:8080/a.tgz?X-Amz-Signature=1#x") == "https://me:***@host:8080/a.tgz"
    assert identity("https://host/a.tgz?v=1") != identity("https://host/a.tgz?v=2")


# --- S3 --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    import boto3

    monkeypatch.setattr(download_module, "BLOCK", 200_000)
    client = boto3.client("s3")
    client.create_bucket(Bucket="cars")
    client.put_object(Bucket="cars", Key="deep/car_ims.tgz", Body=CONTENT)
    client.close()
    return "s3://cars"


def test_a_file_comes_from_a_bucket_and_resumes_where_it_stopped(bucket: str, tmp_path: Path) -> None:
    got = download(f"{bucket}/deep/car_ims.tgz", tmp_path)
    assert got.path.read_bytes() == CONTENT
    assert got.source == "s3://cars/deep/car_ims.tgz"


def test_a_missing_key_and_a_missing_bucket_are_reported(bucket: str, tmp_path: Path) -> None:
    for address in (f"{bucket}/no.tgz", "s3://no-such-bucket/a.tgz"):
        with pytest.raises(DataError, match="there is no such file; check bucket, key or address") as caught:
            download(address, tmp_path, pause=100)
        assert "very-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "no credentials were found"),
        ({"AWS_PROFILE": "nobody"}, r"The config profile \(nobody\) could not be found"),
        ({"AWS_ACCESS_KEY_ID": "key"}, "Partial credentials found in env, missing: AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_without_credentials_the_ways_to_give_them_are_named(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ways = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or WHICHCAR_ANONYMOUS=1 to read a public"
    with pytest.raises(DataError, match=f"{said}; {ways}"):
        download(f"{bucket}/deep/car_ims.tgz", tmp_path, pause=100)
