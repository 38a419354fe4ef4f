"""Archives of strangers: nothing leaves the folder, nothing swells, nothing half-done stays."""

from __future__ import annotations

import hashlib
import stat
import zipfile

import pytest
from tidemark.datasets.acquire.unpack import unpack
from tidemark.errors import InputError


def write_zip(path, members, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data, **options)
    return path


def everything(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_members_take_their_places_with_their_digests(tmp_path):
    path = write_zip(tmp_path / "alos.zip", [("AP/", b""), ("AP/a_HH.tif", b"hh" * 50), ("AP/b.xml", b"<a/>")])
    files = unpack(path, tmp_path / "out/alos", tmp_path / "out")
    assert [(f.path, f.bytes) for f in files] == [("alos/AP/a_HH.tif", 100), ("alos/AP/b.xml", 4)]
    assert files[1].sha256 == hashlib.sha256(b"<a/>").hexdigest()
    assert everything(tmp_path / "out") == ["alos/AP/a_HH.tif", "alos/AP/b.xml"]


def link(name, target):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, target


@pytest.mark.parametrize(
    "member, words",
    [
        (("../escaped.txt", b"x"), r"leaves the folder"),
        (("AP/../../escaped.txt", b"x"), r"leaves the folder"),
        (("/tmp/escaped.txt", b"x"), "absolute or foreign path"),
        (("C:\\escaped.txt", b"x"), "absolute or foreign path"),
        (("C:/escaped.txt", b"x"), "absolute or foreign path"),
        (("..\\escaped.txt", b"x"), "absolute or foreign path"),
        (link("AP/link", b"/etc/passwd"), "link or a special file"),
    ],
)
def test_a_member_that_could_leave_the_folder_is_refused(tmp_path, member, words):
    path = write_zip(tmp_path / "alos.zip", [("AP/good.tif", b"good"), member])
    with pytest.raises(InputError, match=words):
        unpack(path, tmp_path / "out/alos", tmp_path / "out")
    assert everything(tmp_path) == ["alos.zip"]


def test_a_bomb_is_refused_before_a_byte_is_written(tmp_path):
    path = write_zip(tmp_path / "alos.zip", [(f"AP/{n}.tif", bytes(10 << 20)) for n in range(4)])
    with pytest.raises(InputError, match="states 41943040 bytes from"):
        unpack(path, tmp_path / "out/alos", tmp_path / "out")
    assert everything(tmp_path) == ["alos.zip"]


def test_a_member_longer_than_it_states_is_refused(tmp_path):
    path = write_zip(tmp_path / "alos.zip", [("AP/a.tif", b"0123456789" * 100)])
    data = bytearray(path.read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = (500).to_bytes(4, "little")  # uncompressed size, APPNOTE 4.3.12
    path.write_bytes(data)
    with pytest.raises(InputError):
        unpack(path, tmp_path / "out/alos", tmp_path / "out")
    assert everything(tmp_path) == ["alos.zip"]


def test_damage_leaves_what_was_there_before(tmp_path):
    members = [("AP/a.tif", bytes(range(256)) * 400), ("AP/b.tif", bytes(range(256)) * 400)]
    path = write_zip(tmp_path / "alos.zip", members)
    unpack(path, tmp_path / "out/alos", tmp_path / "out")
    data = bytearray(path.read_bytes())
    data[data.index(b"AP/b.tif") + 40] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        unpack(path, tmp_path / "out/alos", tmp_path / "out")
    assert everything(tmp_path / "out") == ["alos/AP/a.tif", "alos/AP/b.tif"]
    assert (tmp_path / "out/alos/AP/b.tif").read_bytes() == members[1][1]
