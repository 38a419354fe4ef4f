"""The book of what was fetched."""

from __future__ import annotations

import hashlib

import pytest
from tidemark.datasets.acquire.items import Fetched, Item
from tidemark.datasets.acquire.ledger import NAME, File, Ledger, hold, provenance
from tidemark.errors import BusyError, FormatError

DATA = b"water"
SHA = hashlib.sha256(DATA).hexdigest()
ITEM = Item("https://example.org/a.tif?sig=s1gned", "gfc/a.tif", 5, f"sha256:{SHA}", "A", "gfc")


def put(out, path="gfc/a.tif", data=DATA):
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    (out / path).write_bytes(data)


def test_what_was_written_down_is_not_missing_in_a_later_run(tmp_path):
    put(tmp_path)
    Ledger(tmp_path).add(Fetched(ITEM, 5, SHA, "Fri, 02 May 2008 12:00:00 GMT"))
    assert Ledger(tmp_path).missing([ITEM]) == []
    record = Ledger(tmp_path).records["gfc/a.tif"]
    assert (record.url, record.sha256, record.product) == ("https://example.org/a.tif", SHA, "A")
    assert "s1gned" not in (tmp_path / NAME).read_text()


@pytest.mark.parametrize("harm", [lambda p: p.unlink(), lambda p: p.write_bytes(b"wate")], ids=["gone", "short"])
def test_a_file_that_is_gone_or_short_is_missing_again(tmp_path, harm):
    put(tmp_path)
    Ledger(tmp_path).add(Fetched(ITEM, 5, SHA, None))
    harm(tmp_path / "gfc/a.tif")
    assert Ledger(tmp_path).missing([ITEM]) == [ITEM]


def test_a_new_version_at_the_archive_is_missing(tmp_path):
    put(tmp_path)
    Ledger(tmp_path).add(Fetched(ITEM, 5, SHA, None))
    newer = Item(ITEM.url, ITEM.path, 5, "sha256:" + "0" * 64)
    assert Ledger(tmp_path).missing([newer]) == [newer]


def test_a_zip_that_was_unpacked_is_there_as_long_as_its_files_are(tmp_path):
    zipped = Item("https://example.org/AP.zip", "alos/AP.zip", 9, None, "AP", "asf")
    put(tmp_path, "alos/AP/hh.tif")
    Ledger(tmp_path).add(Fetched(zipped, 9, "1" * 64, None), [File(path="alos/AP/hh.tif", bytes=5, sha256=SHA)])
    assert Ledger(tmp_path).missing([zipped]) == []
    (tmp_path / "alos/AP/hh.tif").unlink()
    assert Ledger(tmp_path).missing([zipped]) == [zipped]


def test_a_file_from_elsewhere_is_taken_in_when_its_checksum_is_right(tmp_path):
    put(tmp_path)
    assert Ledger(tmp_path).missing([ITEM]) == [] and "gfc/a.tif" in Ledger(tmp_path).records
    put(tmp_path, "gfc/b.tif", b"other")
    wrong = Item(ITEM.url, "gfc/b.tif", 5, f"sha256:{SHA}")
    unknown = Item(ITEM.url, "gfc/b.tif", 5)
    assert Ledger(tmp_path).missing([wrong, unknown]) == [wrong, unknown]


def test_the_same_products_give_the_same_bytes_in_any_order(tmp_path):
    items = [Item(f"https://example.org/{n}", f"{n}.tif", 5, None, str(n), "hand") for n in range(5)]
    for folder, order in (("a", items), ("b", items[::-1])):
        ledger = Ledger(tmp_path / folder)
        for item in order:
            ledger.add(Fetched(item, 5, SHA, None))
    assert (tmp_path / "a" / NAME).read_bytes() == (tmp_path / "b" / NAME).read_bytes()
    assert provenance(tmp_path / "a").startswith(" Fetched by tidemark acquire: 5 from hand (acquired.json, sha256 ")
    assert provenance(tmp_path) == ""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"fetched": {"../a": {}}}', '{"fetched": {"a": {"bytes": -1}}}'])
def test_another_file_of_that_name_is_refused(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(FormatError, match="not a record of what was fetched"):
        Ledger(tmp_path)


def test_two_runs_do_not_share_a_folder(tmp_path):
    with hold(tmp_path):
        with pytest.raises(BusyError, match="another tidemark acquire"):
            with hold(tmp_path):
                pass
    with hold(tmp_path):
        pass
