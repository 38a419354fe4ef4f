"""Transfers from an archive that misbehaves."""

from __future__ import annotations

import hashlib
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
from tidemark.datasets.acquire import transport
from tidemark.datasets.acquire.hosts import load_services
from tidemark.datasets.acquire.items import from_multihash
from tidemark.datasets.acquire.session import Patience, open_session
from tidemark.datasets.acquire.transport import Item, download, fetch, remote_bytes
from tidemark.errors import ArchiveError, ChecksumError, InputError, StorageError

DATA = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
QUICK = Patience(attempts=3, backoff_s=0.01, longest_s=3, connect_s=5, silence_s=5, slow_s=0.2, least_rate=20_000)


@pytest.fixture
def session(archive, write_config):
    return open_session(load_services(write_config(hand={"url": archive.url, "hosts": []})), QUICK)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def md5(data: bytes) -> str:
    return f"md5:{hashlib.md5(data).hexdigest()}"


def left_over(folder):
    return sorted(path.name for path in folder.rglob("*") if path.suffix in (".part", ".json", ".quarantined"))


def test_a_file_comes_with_its_digest_and_the_archives_date(archive, session, tmp_path):
    url = archive.put("/a.tif", DATA)
    got = download(Item(url, "x/a.tif", len(DATA), md5(DATA)), tmp_path, session)
    assert (tmp_path / "x/a.tif").read_bytes() == DATA
    assert (got.bytes, got.sha256, got.last_modified) == (len(DATA), sha256(DATA), "Fri, 02 May 2008 12:00:00 GMT")
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("stops", [(0,), (1,), (100_000, 50_000), (len(DATA) - 1,)])
def test_a_dropped_connection_goes_on_at_the_byte_where_it_broke(archive, session, tmp_path, stops):
    url = archive.put("/a.tif", DATA)
    archive.drops("/a.tif", *stops)
    got = download(Item(url, "a.tif"), tmp_path, session)
    assert (tmp_path / "a.tif").read_bytes() == DATA and got.sha256 == sha256(DATA)
    starts = [None] + [f"bytes={sum(stops[: n + 1])}-" if sum(stops[: n + 1]) else None for n in range(len(stops))]
    assert archive.headers("/a.tif", "Range") == starts
    assert archive.headers("/a.tif", "If-Range")[-1] == (archive.files["/a.tif"].etag if sum(stops) else None)


def test_a_later_run_goes_on_with_what_an_earlier_one_left(archive, session, tmp_path):
    url = archive.put("/a.tif", DATA)
    archive.drops("/a.tif", 90_000, 0, 0)
    with pytest.raises(ArchiveError, match="broke after 90000 of 300000 bytes"):
        download(Item(url, "a.tif"), tmp_path, session)
    assert left_over(tmp_path) == ["a.tif.part", "a.tif.part.json"] and not (tmp_path / "a.tif").exists()
    download(Item(url, "a.tif", checksum=md5(DATA)), tmp_path, session)
    assert archive.headers("/a.tif", "Range")[-1] == "bytes=90000-"
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("if_range", [True, False], ids=["200", "206 with another ETag"])
def test_a_file_that_changes_during_a_resume_is_fetched_anew(archive, session, tmp_path, if_range):
    url = archive.put("/a.tif", DATA)

    def drop_then_change(handler):
        handler.send_file(archive.files["/a.tif"], stop=100_000)
        archive.put("/a.tif", OTHER)

    archive.fail("/a.tif", drop_then_change, lambda h: h.send_file(archive.files["/a.tif"], if_range=if_range))
    download(Item(url, "a.tif", checksum=md5(OTHER)), tmp_path, session)
    assert (tmp_path / "a.tif").read_bytes() == OTHER


def test_a_file_that_became_shorter_than_its_part_is_fetched_anew(archive, session, tmp_path):
    url = archive.put("/a.tif", DATA)
    archive.drops("/a.tif", 100_000)
    archive.fail("/a.tif", lambda h: (archive.put("/a.tif", DATA[:5000]), h.reply(416, b""))[1])
    download(Item(url, "a.tif"), tmp_path, session)
    assert (tmp_path / "a.tif").read_bytes() == DATA[:5000]


def test_a_server_without_ranges_starts_at_the_beginning(archive, session, tmp_path):
    url = archive.put("/a.tif", DATA)
    archive.drops("/a.tif", 100_000)
    archive.fail("/a.tif", lambda h: h.send_file(archive.files["/a.tif"], ranges=False))
    download(Item(url, "a.tif", checksum=md5(DATA)), tmp_path, session)


@pytest.mark.parametrize(
    "status, words",
    [
        (401, "login is missing, wrong or expired"),
        (403, "may not have it"),
        (404, "not there"),
        (429, "too many requests"),
        (500, "fault of its own"),
    ],
)
def test_refusals_say_different_things(archive, session, tmp_path, status, words):
    url = archive.put("/a.tif", DATA)
    archive.says("/a.tif", status, times=10)
    with pytest.raises(ArchiveError, match=words) as caught:
        download(Item(url, "a.tif"), tmp_path, session)
    assert str(status) in str(caught.value) and archive.host in str(caught.value)
    assert len(archive.seen) == (3 if status in (429, 500) else 1)


def test_retry_after_is_kept_and_the_file_comes(archive, session, tmp_path):
    url = archive.put("/a.tif", DATA)
    archive.says("/a.tif", 429, Retry_After="1")
    started = time.monotonic()
    download(Item(url, "a.tif"), tmp_path, session)
    assert time.monotonic() - started >= 1


def test_a_retry_after_of_hours_is_named_at_once(archive, session, tmp_path):
    url = archive.put("/a.tif", DATA)
    archive.says("/a.tif", 503, times=9, Retry_After="7200")
    archive.says("/b.tif", 429, times=9, Retry_After="7200")
    with pytest.raises(ArchiveError, match="fault of its own"):
        download(Item(url, "a.tif"), tmp_path, session)
    with pytest.raises(ArchiveError, match="try again in 7200 s"):
        download(Item(archive.url + "/b.tif", "b.tif"), tmp_path, session)
    assert len(archive.seen) == 2


def test_the_catalogues_length_is_compared_before_anything_comes(archive, session, tmp_path):
    url = archive.put("/a.tif", DATA)
    with pytest.raises(ChecksumError, match="expected 299999 bytes by the catalogue, the archive offers 300000"):
        download(Item(url, "a.tif", 299_999), tmp_path, session)
    assert left_over(tmp_path) == []


def test_a_length_that_the_archive_does_not_state_is_compared_at_the_end(archive, session, tmp_path):
    def without_length(handler, body):
        handler.head(200, {"Connection": "close"})
        handler.wfile.write(DATA)
        handler.close_connection = True

    archive.answers["/a.tif"] = without_length
    with pytest.raises(ChecksumError, match="expected 300001 bytes, found 300000"):
        download(Item(archive.url + "/a.tif", "a.tif", 300_001), tmp_path, session)
    assert left_over(tmp_path) == ["a.tif.quarantined"]
    assert download(Item(archive.url + "/a.tif", "a.tif"), tmp_path, session).bytes == len(DATA)


@pytest.mark.parametrize("name", ["md5", "sha256", "sha512"])
def test_wrong_bytes_of_the_right_length_are_set_aside(archive, session, tmp_path, name):
    url, right = archive.put("/a.tif", OTHER), hashlib.new(name, DATA).hexdigest()
    item = Item(url, "a.tif", len(DATA), f"{name}:{right}")
    with pytest.raises(ChecksumError) as caught:
        download(item, tmp_path, session)
    assert right in str(caught.value) and hashlib.new(name, OTHER).hexdigest() in str(caught.value)
    assert left_over(tmp_path) == ["a.tif.quarantined"] and not (tmp_path / "a.tif").exists()
    archive.put("/a.tif", DATA)
    download(item, tmp_path, session)
    assert (tmp_path / "a.tif").read_bytes() == DATA


def test_googles_md5_header_counts_where_the_catalogue_has_no_checksum(archive, session, tmp_path):
    # header as in cloud.google.com/storage/docs/xml-api/reference-headers
    url = archive.put("/a.tif", DATA, headers={"x-goog-hash": "crc32c=n03x6A==, md5=Ojk9c3dhfxgoKVVHYwFbHQ=="})
    with pytest.raises(ChecksumError, match="expected md5 3a393d7377617f182829554763015b1d, found"):
        download(Item(url, "a.tif"), tmp_path, session)


def test_a_trickle_is_given_up(archive, session, tmp_path):
    url = archive.put("/a.tif", DATA)
    archive.trickles("/a.tif", every_s=0.02)
    with pytest.raises(ArchiveError, match="bytes a second, too slow"):
        download(Item(url, "a.tif"), tmp_path, session)


def test_a_login_form_is_no_file(archive, session, tmp_path):
    url = archive.put("/a.tif", b"<html>Sign in</html>", kind="text/html; charset=utf-8")
    with pytest.raises(ArchiveError, match="a web page came instead"):
        download(Item(url, "a.tif"), tmp_path, session)
    assert left_over(tmp_path) == []


def test_one_failure_does_not_stop_the_others_and_no_more_run_than_allowed(archive, session, tmp_path):
    items = [Item(archive.put(f"/{n}.tif", DATA[: 1000 + n]), f"{n}.tif") for n in range(12)]
    archive.says("/3.tif", 404)
    for n in range(12):
        archive.fail(f"/{n}.tif", lambda h: (time.sleep(0.05), h.send_file(archive.files[h.path]))[1])
    steps, done = [], []
    came, failed = fetch(
        items, tmp_path, session, jobs=3, progress=lambda *step: steps.append(step), done=lambda f: done.append(f.item)
    )
    assert [f.item.path for f in came] == [f"{n}.tif" for n in range(12) if n != 3]
    assert list(failed) == ["3.tif"] and "404" in str(failed["3.tif"])
    assert len(done) == 11 and 1 < archive.busiest <= 3
    assert steps[-1][0] == max(step[0] for step in steps)


def test_progress_knows_all_that_is_to_come_once_the_lengths_are_known(archive, session, tmp_path):
    items = [Item(archive.put(f"/{n}.tif", DATA), f"{n}.tif", len(DATA)) for n in range(2)]
    steps = []
    fetch(items, tmp_path, session, jobs=1, progress=lambda *step: steps.append(step))
    assert {total for _, total, _ in steps} == {600_000} and steps[-1][0] == 600_000


def test_the_limit_holds_for_what_is_known_and_for_what_shows_late(archive, session, tmp_path):
    url = archive.put("/a.tif", DATA)
    with pytest.raises(InputError, match="0.3 MB are to come, --max-bytes allows 0.2 MB"):
        fetch([Item(url, "a.tif", len(DATA))], tmp_path, session, max_bytes=200_000)
    assert not archive.seen
    _, failed = fetch([Item(url, "a.tif")], tmp_path, session, max_bytes=200_000)
    assert "--max-bytes allows" in str(failed["a.tif"]) and not (tmp_path / "a.tif").exists()


def test_too_small_a_disk_is_found_before_anything_comes(archive, session, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=transport.RESERVE + 1000))
    with pytest.raises(StorageError, match="0.3 MB are needed, 0.0 MB are free"):
        fetch([Item(archive.put("/a.tif", DATA), "a.tif", len(DATA))], tmp_path, session)
    assert not archive.seen


def test_a_place_that_cannot_be_written_is_named(archive, session, tmp_path):
    (tmp_path / "x").write_text("a file where a folder is needed")
    with pytest.raises(StorageError, match="x"):
        download(Item(archive.put("/a.tif", DATA), "x/a.tif"), tmp_path, session)


def test_a_part_that_lies_here_needs_no_room_again(archive, session, tmp_path, monkeypatch):
    url = archive.put("/a.tif", DATA)
    archive.drops("/a.tif", 250_000, 0, 0)
    with pytest.raises(ArchiveError):
        download(Item(url, "a.tif"), tmp_path, session)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=transport.RESERVE + 50_000))
    came, failed = fetch([Item(url, "a.tif", len(DATA))], tmp_path, session)
    assert len(came) == 1 and not failed


@pytest.mark.parametrize("url", ["s3://bucket/a.tif", "ftp://example.org/a.tif", "/etc/passwd", "https://u:p@h/a.tif"])
def test_a_catalogues_url_of_another_scheme_costs_that_file_alone(archive, session, tmp_path, url):
    items = [Item(url, "a.tif"), Item(archive.put("/b.tif", DATA), "b.tif")]
    came, failed = fetch(items, tmp_path, session)
    assert [f.item.path for f in came] == ["b.tif"] and "not a plain http(s) URL" in str(failed["a.tif"])


def test_the_length_is_asked_for_without_the_file(archive, session):
    assert remote_bytes(archive.put("/a.tif", DATA), session) == len(DATA)
    assert archive.headers("/a.tif", "Range") == ["bytes=0-0"]


@pytest.mark.parametrize("path", ["../a.tif", "/a.tif", "x/../../a.tif", "C:\\a.tif", "a\0.tif", ""])
def test_a_name_that_leaves_the_folder_is_refused(path):
    with pytest.raises(InputError, match="not a name for a file below"):
        Item("https://example.org/a.tif", path)


def test_multihashes_of_stac_are_read_and_others_left_alone():
    # prefixes of github.com/multiformats/multicodec table.csv: sha2-256 0x12, sha2-512 0x13, md5 0xd5
    assert from_multihash("1220" + "ab" * 32) == "sha256:" + "ab" * 32
    assert from_multihash("1340" + "cd" * 64) == "sha512:" + "cd" * 64
    assert from_multihash("d50110" + "ef" * 16) == "md5:" + "ef" * 16
    for other in ("", None, "1220ab", "9020" + "ab" * 32, "zz"):
        assert from_multihash(other) is None
