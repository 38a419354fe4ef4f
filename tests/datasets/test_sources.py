import hashlib
import pickle
import stat
import zipfile

import pytest
from tidemark.datasets.files import tree_sha256
from tidemark.datasets.sources import open_source
from tidemark.errors import InputError

FILES = {"images/0.png": b"zero", "images/1.png": b"one", "meta.csv": b"0 1 2 W\n"}


@pytest.fixture
def folder(tmp_path):
    for name, data in FILES.items():
        path = tmp_path / "unpacked" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "unpacked" / ".git").mkdir()
    (tmp_path / "unpacked" / ".git" / "config").write_bytes(b"hidden")
    return tmp_path / "unpacked"


@pytest.fixture
def archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "source.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in reversed(FILES.items()):
            file.writestr(f"top/inner/{name}", data)
        file.writestr("top/.gitignore", b"hidden")
        file.writestr("__MACOSX/top/._meta.csv", b"hidden")
    return tmp_path / "source.zip"


def hostile(path, name="top/a.png", data=b"x", mode=stat.S_IFREG | 0o644):
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(info, data)
        file.writestr("top/b.png", b"y")
    return path


def test_folder_and_archive_look_the_same(folder, archive):
    for source in (open_source(folder), open_source(folder.parent / "unpacked"), open_source(archive)):
        assert source.names() == sorted(FILES)
        assert {name: source.read(name) for name in source.names()} == FILES
        assert "meta.csv" in source and "top/meta.csv" not in source
        assert source.size("images/0.png") == 4
    assert open_source(folder).digests(FILES) == open_source(archive).digests(FILES)
    assert open_source(archive).digests(["meta.csv"])["meta.csv"] == hashlib.sha256(FILES["meta.csv"]).hexdigest()


def test_a_source_reopens_after_pickling(archive):
    source = open_source(archive)
    source.read("meta.csv")
    assert pickle.loads(pickle.dumps(source)).read("images/1.png") == b"one"


def test_another_source_is_refused_unless_the_user_insists(archive):
    source = open_source(archive)
    right = tree_sha256(source.digests(FILES))
    assert source.verify(FILES, right) == source.digests(FILES)
    with pytest.raises(InputError, match=f"expected tree sha256 {'0' * 64}, found {right}"):
        source.verify(FILES, "0" * 64)
    assert source.verify(FILES, "0" * 64, unverified=True)


def test_the_record_of_a_group_states_size_and_digest(folder):
    source = open_source(folder)
    record = source.record("images", source.digests(["images/0.png", "images/1.png"]))
    assert (record.path, record.bytes, record.files) == ("images", 7, 2)


@pytest.mark.parametrize("name", ["../a.png", "top/../../a.png", "/etc/passwd", "C:\\a.png", "c:/a.png", "top\\a.png"])
def test_a_member_that_leaves_the_folder_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="archive member .* refused"):
        open_source(hostile(tmp_path / "bad.zip", name))


def test_a_link_in_an_archive_is_refused(tmp_path):
    with pytest.raises(InputError, match="link"):
        open_source(hostile(tmp_path / "bad.zip", data=b"/etc/passwd", mode=stat.S_IFLNK | 0o777))


def test_a_link_in_a_folder_is_refused(folder):
    (folder / "images" / "2.png").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="images/2.png is a link"):
        open_source(folder)


def test_a_forged_size_is_refused_without_the_allocation(tmp_path):
    path = hostile(tmp_path / "bad.zip")
    raw = bytearray(path.read_bytes())
    entry = raw.index(b"PK\x01\x02")
    raw[entry + 24 : entry + 28] = (3 << 30).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(InputError, match="states 3221225472 bytes"):
        open_source(path)


def test_a_member_listed_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr("a.png", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a.png", b"2")
    with pytest.raises(InputError, match="twice"):
        open_source(tmp_path / "bad.zip")


def test_damaged_missing_and_foreign_sources_are_one_clear_line(tmp_path, archive):
    with pytest.raises(InputError, match="no such file or folder"):
        open_source(tmp_path / "absent.zip")
    with pytest.raises(InputError, match="not a readable zip archive"):
        (tmp_path / "text.zip").write_text("hello")
        open_source(tmp_path / "text.zip")
    with pytest.raises(InputError, match="images/9.png is missing"):
        open_source(archive).read("images/9.png")
    raw = bytearray(archive.read_bytes())
    raw[raw.index(b"meta.csv") + len("meta.csv") + 2] ^= 0xFF
    archive.write_bytes(raw)
    with pytest.raises(InputError, match="cannot read meta.csv"):
        open_source(archive).read("meta.csv")
