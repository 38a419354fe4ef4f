"""Publishing through the real client: one commit, one tag, and a published version never changes."""

from __future__ import annotations

import shutil

import pytest
from huggingface_hub import DatasetCard
from tidemark.datasets.hub import pull
from tidemark.datasets.licences import hub_licence
from tidemark.datasets.publish import push
from tidemark.datasets.spec import canonical_json, load_manifest
from tidemark.datasets.verify import verify
from tidemark.errors import ChecksumError, HubError, InputError


def test_what_was_pushed_is_pulled_and_verifies(hub, tiny_dataset, tmp_path):
    folder = tiny_dataset(chips=2)
    done = push(folder, "org/tiny")
    repo = hub.repo("org/tiny")
    assert repo.tags == {"v1.0.0": done.commit} and done.new
    assert len(repo.commits) == 2  # the empty repository's and the one of the data set
    assert verify(pull("org/tiny@1.0.0", tmp_path / "data"), deep=True).problems == ()


def test_the_card_has_the_header_of_the_hub_and_a_picture(hub, tiny_dataset):
    done = push(tiny_dataset(chips=2), "org/tiny", rights="made by the test's <author>")
    files = hub.repo("org/tiny").commits[done.commit]
    card = DatasetCard(files["README.md"].decode())
    assert card.data.license == "cc0-1.0" and "simulated" in card.data.tags
    assert "![Chips of the training split](preview.png)" in card.text and "made by the test's <author>" in card.text
    assert files["preview.png"].startswith(b"\x89PNG")


def test_an_interrupted_push_sends_only_what_is_missing(hub, tiny_dataset):
    folder = tiny_dataset(chips=2)
    uploads = []

    def fail_at_the_third(method, path):
        if path.startswith("/upload/"):
            uploads.append(path)
            return 500 if len(uploads) > 2 else None

    hub.fault = fail_at_the_third
    with pytest.raises(HubError, match="org/tiny@1.0.0"):
        push(folder, "org/tiny")
    assert hub.repo("org/tiny").tags == {}
    stored, hub.fault, hub.received = len(hub.blobs), lambda method, path: None, 0
    before = len([1 for method, path, _ in hub.requests if method == "PUT"])
    push(folder, "org/tiny")
    sent = len([1 for method, path, _ in hub.requests if method == "PUT"]) - before
    assert sent < 13 and stored > 1 and hub.repo("org/tiny").tags.keys() == {"v1.0.0"}


def test_pushing_the_same_bytes_again_changes_nothing(hub, tiny_dataset):
    folder = tiny_dataset(chips=2)
    first = push(folder, "org/tiny")
    again = push(folder, "org/tiny")
    assert again.commit == first.commit and not again.new and len(hub.repo("org/tiny").commits) == 2


def test_a_changed_byte_under_a_published_version_is_an_error_that_names_the_file(hub, tiny_dataset, tmp_path):
    folder = tiny_dataset(chips=2)
    push(folder, "org/tiny")
    other = tmp_path / "tiny/1.0.0"
    shutil.copytree(tiny_dataset(chips=2, shape=(2, 64, 64)), other)
    with pytest.raises(ChecksumError, match="dataset.json is published as v1.0.0 with other bytes.*new version"):
        push(other, "org/tiny")


def test_a_new_version_replaces_the_files_and_the_old_tag_stays(hub, tiny_dataset, tmp_path):
    push(tiny_dataset(chips=2), "org/tiny")
    done = push(tiny_dataset(chips={"train": 2, "val": 1}, version="2.0.0"), "org/tiny")
    assert not any(path.startswith("test/") for path in hub.repo("org/tiny").commits[done.commit])
    assert pull("org/tiny", tmp_path).name == "2.0.0" and pull("org/tiny@1.0.0", tmp_path).name == "1.0.0"


def test_without_a_licence_that_allows_it_nothing_is_sent(hub, tiny_dataset, tmp_path):
    folder = tmp_path / "tiny/1.0.0"
    shutil.copytree(tiny_dataset(chips=2), folder)
    manifest = load_manifest(folder).model_copy(update={"licence": None})
    (folder / "dataset.json").write_bytes(canonical_json(manifest))
    with pytest.raises(InputError, match="none stated.*--i-hold-the-rights"):
        push(folder, "org/tiny")
    assert not any(method == "POST" for method, *_ in hub.requests)
    assert push(folder, "org/tiny", rights="it is mine").new


def test_a_damaged_data_set_is_not_published(hub, tiny_dataset, tmp_path):
    folder = tmp_path / "tiny/1.0.0"
    shutil.copytree(tiny_dataset(chips=2), folder)
    shard = next(folder.rglob("*.h5"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match="problems, first"):
        push(folder, "org/tiny")
    assert not any(method == "POST" for method, *_ in hub.requests)


def test_a_dry_run_sends_nothing(hub, tiny_dataset):
    done = push(tiny_dataset(chips=2), "org/tiny", dry_run=True)
    assert done.commit is None and "dataset.json" in done.files and hub.repos == {}


def test_a_token_that_may_not_write_is_told_so(hub, tiny_dataset):
    hub.fault = lambda method, path: 403 if path == "/api/repos/create" else None
    with pytest.raises(HubError, match=r"does not allow this \(403\)"):
        push(tiny_dataset(chips=2), "org/tiny")


@pytest.mark.parametrize(
    ("stated", "identifier"),
    [
        ("CC0-1.0", "cc0-1.0"),
        ("CC BY 4.0", "cc-by-4.0"),
        ("cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0"),
        ("MIT", "mit"),
        ("Apache-2.0", "apache-2.0"),
        ("CC-BY-ND-4.0", None),
        ("mitigated", None),
        ("not stated", None),
        ("", None),
        (None, None),
    ],
)
def test_licences_by_the_names_of_the_hub(stated, identifier):
    assert hub_licence(stated) == identifier
