from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from whichcar.data.fetch import archives
from whichcar.data.fetch.archives import is_archive, unpack
from whichcar.errors import DataError


def tar(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            file.addfile(info, io.BytesIO(member[1]))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zipped(path: Path, *members: tuple[str, bytes], link: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
        if link:
            info = zipfile.ZipInfo("link.jpg")
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            file.writestr(info, link)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("make", [tar, zipped])
@pytest.mark.parametrize("suffix", [".tar", ".tgz", ".zip"])
def test_files_land_under_their_names(tmp_path: Path, make: Callable[..., Path], suffix: str) -> None:
    """The content decides what an archive is, not its name."""
    archive = make(
        tmp_path / f"a{suffix}", ("car_ims/1.jpg", b"one"), ("./car_ims/größe 2.jpg", b"two"), ("x.csv", b"")
    )
    assert unpack(archive, tmp_path / "out") == 3
    assert files(tmp_path / "out") == {"car_ims/1.jpg": b"one", "car_ims/größe 2.jpg": b"two", "x.csv": b""}
    assert is_archive(archive)


@pytest.mark.parametrize("make", [tar, zipped])
def test_hidden_files_are_passed_over(tmp_path: Path, make: Callable[..., Path]) -> None:
    archive = make(
        tmp_path / "a.tar", ("a.jpg", b"1"), (".DS_Store", b"2"), ("__MACOSX/a.jpg", b"3"), ("x/._a.jpg", b"4")
    )
    assert unpack(archive, tmp_path / "out") == 1
    assert files(tmp_path / "out") == {"a.jpg": b"1"}


@pytest.mark.parametrize("make", [tar, zipped])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../evil.jpg", "points outside the folder"),
        ("a/../../evil.jpg", "points outside the folder"),
        ("..\\evil.jpg", "points outside the folder"),
        ("/etc/evil.jpg", "has an absolute path"),
        ("C:\\evil.jpg", "has an absolute path"),
        ("a/" * 1500 + "a.jpg", "lies more than 100 folders deep"),
    ],
)
def test_nothing_lands_outside(tmp_path: Path, make: Callable[..., Path], name: str, said: str) -> None:
    archive = make(tmp_path / "a.tar", ("good.jpg", b"1"), (name, b"2"))
    with pytest.raises(DataError, match=said) as caught:
        unpack(archive, tmp_path / "in" / "out")
    assert "get the archive from a source you trust" in str(caught.value)
    assert set(files(tmp_path)) <= {"a.tar", "in/out/good.jpg"}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "is not a regular file"),
        (tarfile.FIFOTYPE, "is not a regular file"),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes, said: str) -> None:
    with pytest.raises(DataError, match=f"'evil' {said}"):
        unpack(tar(tmp_path / "a.tar", special("evil", kind, "/etc/passwd")), tmp_path / "out")
    assert files(tmp_path / "out") == {}


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'link\.jpg' is a link"):
        unpack(zipped(tmp_path / "a.zip", link="/etc/passwd"), tmp_path / "out")


@pytest.mark.parametrize("names", [("LICENSE", "LICENSE/a.txt"), ("a/b/c", "a"), ("a", "a/b/c")])
def test_what_is_a_file_in_one_archive_may_be_a_folder_in_another(tmp_path: Path, names: tuple[str, str]) -> None:
    for number, name in enumerate(names):
        unpack(zipped(tmp_path / f"{number}.zip", (name, b"1"), (f"{number}.jpg", b"2")), tmp_path / "out")
    assert sorted(files(tmp_path / "out")) == ["0.jpg", "1.jpg", names[0]]
    with pytest.raises(DataError, match=r"b\.zip: '0\.jpg/a\.jpg' lies in what is a file too; keep one"):
        unpack(zipped(tmp_path / "b.zip", ("0.jpg/a.jpg", b"")), tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [tar, zipped])
def test_a_name_that_stands_twice_is_refused(tmp_path: Path, make: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"'a\.jpg' is in it twice"):
        unpack(make(tmp_path / "a.tar", ("a.jpg", b"1"), ("a.jpg", b"2")), tmp_path / "out")


@pytest.mark.parametrize("make", [tar, zipped])
def test_a_bomb_is_refused_before_it_fills_the_disk(
    tmp_path: Path, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_SMALL", 1_000_000)
    archive = make(tmp_path / "a.tgz", ("zeros.jpg", bytes(8_000_000)))
    with pytest.raises(DataError, match=r"'zeros\.jpg' makes it unpack to more than"):
        unpack(archive, tmp_path / "out")
    assert sum(map(len, files(tmp_path / "out").values())) < 8_000_000


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b broken"])
def test_what_is_no_archive_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tgz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tgz: cannot be unpacked"):
        unpack(tmp_path / "a.tgz", tmp_path / "out")


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    whole = bytearray(tar(tmp_path / "a.tgz", ("a.jpg", os.urandom(100_000))).read_bytes())
    whole[len(whole) // 2] ^= 4
    (tmp_path / "a.tgz").write_bytes(whole)
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path / "a.tgz", tmp_path / "out")


@pytest.mark.parametrize("cut", [512, 1024, 1536, 2048, 2560, 3000])
def test_a_tar_that_ends_anywhere_too_early_is_noticed(tmp_path: Path, cut: int) -> None:
    whole = tar(tmp_path / "a.tar", ("a.jpg", b"1"), ("b.jpg", b"2"), ("c.jpg", b"3")).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:cut])
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


def test_a_zip_inside_a_tar_is_not_taken_for_the_archive(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", ("x.jpg", b"x"))
    archive = tar(tmp_path / "a.tar", ("a.jpg", b"1"), ("inner.zip", inner.read_bytes()))
    unpack(archive, tmp_path / "out")
    assert sorted(files(tmp_path / "out")) == ["a.jpg", "inner.zip"]


@pytest.mark.parametrize("name", ["Citroën.jpg".encode(), "Citroën.jpg".encode("cp437")])
def test_a_name_in_a_zip_that_does_not_say_so_may_be_utf_8(tmp_path: Path, name: bytes) -> None:
    archive = zipped(tmp_path / "a.zip", ("X" * len(name), b"1"))
    archive.write_bytes(archive.read_bytes().replace(b"X" * len(name), name))
    unpack(archive, tmp_path / "out")
    assert files(tmp_path / "out") == {"Citroën.jpg": b"1"}


def test_folders_in_a_zip_may_end_in_a_backslash(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("photos\\", "photos\\Audi TT\\", "photos\\Audi TT\\1.jpg", "photos\\empty\\"):
            file.writestr(name, b"" if name.endswith("\\") else b"image")
    assert unpack(tmp_path / "a.zip", tmp_path / "out") == 1
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [tmp_path / "out/photos/Audi TT/1.jpg"]


def test_a_name_in_a_zip_that_is_not_the_utf_8_it_claims_is_reported(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("Citroën.jpg", b"1"))
    archive.write_bytes(archive.read_bytes().replace("ë".encode(), b"\xff\xff"))
    with pytest.raises(DataError, match=r"a\.zip: cannot be unpacked"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path, kind: bytes) -> None:
    header = special("long", kind)
    header.size = 2_000_000
    archive = tmp_path / "a.tar"
    archive.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + b"8 path=a\n".ljust(2_000_384, b"a") + bytes(1024))
    with pytest.raises(DataError, match=r"cannot be unpacked .*a header of 2 MB"):
        unpack(archive, tmp_path / "out")


def test_a_folder_with_a_colon_is_no_drive(tmp_path: Path) -> None:
    assert unpack(tar(tmp_path / "a.tar", ("cars:/a.jpg", b"1")), tmp_path / "out") == 1


@pytest.mark.parametrize("name", ["a.tgz", "a.zip"])
def test_a_truncated_archive_is_reported(tmp_path: Path, name: str) -> None:
    make = zipped if name.endswith("zip") else tar
    whole = make(tmp_path / name, ("a.jpg", os.urandom(100_000))).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path / name, tmp_path / "out")
