"""Packing real runs, and what the form of a submission refuses, each with its own message and JSON pointer."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidemark.benchmark.records import read_result
from tidemark.errors import FormatError, InputError
from tidemark.leaderboard.artifacts import check_folder
from tidemark.leaderboard.entries import load_entries
from tidemark.leaderboard.pack import locate, pack
from tidemark.leaderboard.submission import (
    SUBMISSION_NAME,
    make_submission,
    parse_submission,
    read_submission,
    submission_schema,
)


def raw_of(folder):
    return json.loads((folder / SUBMISSION_NAME).read_bytes())


def refused(raw, match):
    with pytest.raises(FormatError, match=match):
        parse_submission(raw if isinstance(raw, bytes) else json.dumps(raw).encode())


def test_a_pack_holds_every_seed_with_its_records_and_files(packed, lab):
    submission = read_submission(packed.patches / SUBMISSION_NAME)
    assert [run.seed for run in submission.runs] == [0, 1, 2]
    for run, folder in zip(submission.runs, lab.patch_runs, strict=True):
        assert run.records["test"] == read_result(folder / "test" / "result.json")
    found = {str(p.relative_to(packed.patches)) for p in packed.patches.rglob("*") if p.is_file()}
    assert found == {file.path for file in submission.files.values()} | {SUBMISSION_NAME}
    assert len(found) == 3 * 4 + 1


def test_a_pack_passes_its_own_check_with_and_without_the_data(packed, lab):
    assert check_folder(packed.patches, lab.data) == check_folder(packed.patches)
    assert check_folder(packed.maps, lab.data).model.trained


def test_a_trivial_row_that_learned_nothing_needs_one_seed(lab, statement, tmp_path):
    run = next(lab.map_runs[0].parents[1].glob("all-dry-*/seed0"))
    assert len(pack([run], tmp_path / "dry", **statement).runs) == 1


def test_a_trained_model_needs_three_seeds(lab, statement, tmp_path):
    with pytest.raises(FormatError, match="/runs: 2 seeds of a trained model, at least 3"):
        pack(lab.patch_runs[:2], tmp_path / "two", **statement)
    assert not list(tmp_path.iterdir())  # nothing half made stays


def test_a_repeated_seed_is_refused(lab, statement, tmp_path, copy, forge):
    with pytest.raises(FormatError, match="seed 0 is repeated"):
        pack([*lab.patch_runs, lab.patch_runs[0]], tmp_path / "four", **statement)
    folder = copy("patches")  # the same run under another number, every digest stated as it is
    with pytest.raises(FormatError, match="/runs/3/.*/sha256: seed 7 has the same .* as seed 0"):
        forge.edit(folder, lambda raw: raw["runs"].append(as_seed(raw["runs"][0], 7)))


def as_seed(run, seed):
    from tidemark.benchmark.records import make_result

    text = json.dumps(run).replace("seed0/", f"seed{seed}/")
    run = {**json.loads(text), "seed": seed}
    for split, record in run["records"].items():
        del record["id"]
        run["records"][split] = make_result(**{**record, "seed": seed}).model_dump(mode="json")
    return run


def test_runs_of_two_configurations_are_no_submission(lab, statement, tmp_path):
    with pytest.raises(FormatError, match="its dataset is not that of"):
        pack([*lab.patch_runs[:2], lab.map_runs[2]], tmp_path / "mixed", **statement)


def test_a_run_without_a_score_or_with_other_predictions_is_named(lab, statement, tmp_path):
    run = shutil.copytree(lab.patch_runs[0], tmp_path / "run")
    (run / "val" / "result.json").rename(run / "val" / "kept.json")
    with pytest.raises(FormatError, match=r"not scored on val.*tidemark evaluate .* --split val"):
        pack([run], tmp_path / "out", **statement)
    (run / "val" / "kept.json").rename(run / "val" / "result.json")
    shutil.copyfile(run / "test" / "predictions.h5", run / "val" / "predictions.h5")
    with pytest.raises(FormatError, match="not those that were scored"):
        pack([run], tmp_path / "out", **statement)


def test_a_folder_that_is_there_is_not_overwritten(lab, statement, packed):
    with pytest.raises(InputError, match="is there already"):
        pack(lab.patch_runs, packed.patches, **statement)


def test_the_id_is_that_of_the_content(packed):
    raw = raw_of(packed.patches)
    refused({**raw, "title": "Another title"}, "/id: the content has the id")
    raw["runs"][1]["records"]["val"]["chips"] += 1
    refused(raw, "/runs/1/records/val/id: the content has the id")


def test_locating_the_artefacts_changes_place_and_id_alone(copy):
    folder = copy("patches")
    before = read_submission(folder / SUBMISSION_NAME)
    after = locate(folder, "https://example.org/small")
    assert after == read_submission(folder / SUBMISSION_NAME) and after.id != before.id
    same = {"id", "artifacts"}
    assert after.model_dump(exclude=same) == before.model_dump(exclude=same)


@pytest.mark.parametrize(
    "place",
    [
        "http://example.org/a",
        "https://user:secret@example.org/a",
        "https://example.org/../a",
        "owner/name",
        "owner/name@main",
        "owner/name@" + "0" * 39,
        "file:///etc/passwd",
        "https://localhost\n/a",
        "../owner/name@" + "0" * 40,
    ],
)
def test_a_place_that_cannot_be_cited_is_refused(copy, place):
    with pytest.raises(FormatError, match="/artifacts"):
        locate(copy("patches"), place)


def test_numbers_that_are_none_and_keys_given_twice_are_refused(packed):
    text = (packed.patches / SUBMISSION_NAME).read_bytes()
    refused(text.replace(b'"seed": 0', b'"seed": NaN', 1), "NaN is not a JSON number")
    refused(text.replace(b'"seed": 0', b'"seed": 1e999', 1), "1e999 is not finite")
    refused(text.replace(b'"seed": 0', b'"seed": 0, "seed": 0', 1), "the key 'seed' repeats")
    refused(text.replace(b'"seed": 0', b'"seed": "0"', 1), "/seed: Input should be a valid integer")
    refused(text[:-9], "not valid JSON")
    refused(b"[" * 100_000, "not valid JSON")
    refused(b'{"a": ' * 40 + b"1" + b"}" * 40, "nested 41 levels deep")
    refused(text.replace(b"A small model", b"A small \\ud800 model", 1), "not valid JSON")


def test_ten_megabytes_of_text_are_refused_before_they_are_parsed(packed, tmp_path):
    raw = raw_of(packed.patches)
    refused({**raw, "note": "x" * 10_000_000}, "over the limit of 8388608")
    refused({**raw, "note": "x" * 5_000}, "/note: String should have at most 2000 characters")
    path = tmp_path / SUBMISSION_NAME
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FormatError, match="over the limit"):
        read_submission(path)


def test_unknown_fields_and_tiers_from_the_submitter_are_refused(packed):
    raw = raw_of(packed.patches)
    refused({**raw, "tier": "reproduced"}, "/tier: Extra inputs are not permitted")
    raw["runs"][0]["records"]["val"]["verified"] = True
    refused(raw, "/runs/0/records/val/verified: Extra inputs are not permitted")


@pytest.mark.parametrize("path", ["../model.safetensors", "/etc/passwd", "C:\\a", "seed1/model.safetensors"])
def test_a_file_anywhere_but_in_its_place_is_refused(packed, path):
    raw = raw_of(packed.patches)
    raw["runs"][0]["weights"]["path"] = path
    with pytest.raises(FormatError, match="/runs/0/weights/path"):
        make_submission(**{k: v for k, v in raw.items() if k not in ("id", "format", "schema_version")})


def test_a_newer_form_asks_for_a_newer_version(packed):
    refused({**raw_of(packed.patches), "schema_version": "1.7", "new": 1}, "needs schema >= 1.7.*upgrade tidemark")


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda raw: raw["dataset"].update(version="3.0.0"), "/dataset/version: expected 3.0.0, found 2.0.0"),
        (lambda raw: raw["model"].update(label="Better"), "/model/label: expected Better, found patch CNN"),
        (lambda raw: raw["runs"][0].update(seed=9), "/runs/0/records/.*/seed: expected 9, found 0"),
        (lambda raw: raw["runs"][0]["records"].pop("val"), "/runs/0/records: needs records and predictions of val"),
        (lambda raw: raw.update(training_data=[]), "/training_data: a trained model must declare"),
        (lambda raw: raw.update(submitted="2026-02-30T00:00:00Z"), "/submitted: Value error, day"),
        (lambda raw: raw["model"].update(trained=False), "/model/trained: false, but there are weights"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(copy, forge, change, match):
    with pytest.raises(FormatError, match=match):
        forge.edit(copy("patches"), change)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=40)
@given(st.data())
def test_whatever_stands_anywhere_in_it_ends_in_one_clear_error(packed, data):
    raw = raw_of(packed.maps)
    node = raw
    while True:
        key = data.draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    node[key] = data.draw(JSON.filter(lambda value: value != node[key]))
    try:
        text = json.dumps(raw).encode()
    except UnicodeEncodeError:
        return
    with pytest.raises(FormatError) as found:
        parse_submission(text, where="submission.json")
    assert "\n" not in str(found.value) and len(str(found.value)) < 1000


def test_the_schema_is_json_schema(packed):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(raw_of(packed.patches), submission_schema())


def test_the_board_reads_house_rows_and_submissions(board, packed, lab):
    submission = read_submission(packed.patches / SUBMISSION_NAME)
    place = board / submission.folder
    place.mkdir(parents=True)
    shutil.copyfile(packed.patches / SUBMISSION_NAME, place / SUBMISSION_NAME)
    entries = load_entries(board)
    assert [(e.team, e.tier) for e in entries] == [("Tidemark", "scored")] * 3 + [("Fenland Water Lab", "claimed")]
    assert [r.seed for r in entries[-1].of_split("test")] == [0, 1, 2]
    assert entries[-1].active and not entries[-1].ranked and entries[0].ranked
