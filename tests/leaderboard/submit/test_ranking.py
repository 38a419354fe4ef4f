"""Ranks and skill: who is compared with whom, what moves a rank, and what nothing may move."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from tidemark.benchmark.rows import rows
from tidemark.errors import FormatError
from tidemark.leaderboard import entries as entries_module
from tidemark.leaderboard.entries import BoardEntry, load_entries
from tidemark.leaderboard.ranking import aggregate, board_tables, current
from tidemark.leaderboard.skill import FROZEN_PATH, freeze, is_trivial, load_frozen, skill, zeros
from tidemark.leaderboard.submission import SUBMISSION_NAME, make_withdrawn, read_submission, write_submission
from tidemark.models.registry import list_models

COMMITTED = Path(entries_module.__file__).with_name("submissions")
SCENES = tuple(f"scene-{i:02d}" for i in range(12))


def entry(records, results, tier="scored", **more):
    return BoardEntry(
        ",".join(r.id for r in results), Path(), more.pop("team", "Tidemark"), tuple(results), tier, **more
    )


def water(records, name, skill_, **more):
    """A house row of three seeds on twelve scenes, and its validation split."""
    made = dict(name="lakes", units=SCENES, model=name, label=name, **more)
    return entry(
        records,
        [
            records.make(skill=skill_ - (0.01 if split == "val" else 0), seed=seed, split=split, **made)
            for seed in range(3)
            for split in ("val", "test")
        ],
    )


def trivial(records, value=0.5, **more):
    made = dict(name="lakes", units=SCENES, model="otsu", trained=False, seed=None, **more)
    return entry(records, [records.make(skill=value, split=split, **made) for split in ("val", "test")])


def table(found, split="test"):
    (one,) = (t for t in found if t.split == split)
    return one


def test_a_claim_of_the_same_name_adds_nothing_to_the_name_of_a_house_row(records):
    house = water(records, "net", 0.8, config="TRAIN: {LOSS: bce}")
    claim = water(records, "net", 0.9, config="TRAIN: {LOSS: dice, IS_WRONG: 1}", config_hash="0" * 8)
    claim = dataclasses.replace(claim, id="claim", team="Others", tier="claimed")
    found = table(board_tables([trivial(records), house, claim], []))
    assert [r.row.label for r in found.rows] == ["net", "otsu", "net"]


def test_models_that_differ_by_a_planted_gap_separate_and_twins_share_a_rank(records):
    board = [trivial(records), water(records, "good", 0.80), water(records, "better", 0.86)]
    twin = dataclasses.replace(
        board[2], id="twin", results=tuple(r.model_copy(update={"config_hash": "0" * 8}) for r in board[2].results)
    )
    found = table(board_tables([*board, twin], zeros(board)))
    assert [(r.row.label, r.rank) for r in found.rows] == [("better", 1), ("better", 1), ("good", 3), ("otsu", 4)]


def test_below_nine_units_the_order_is_the_headlines_and_there_is_no_rank(records):
    few = [entry(records, [records.make(model=m, label=m, skill=s)]) for m, s in (("a", 0.5), ("b", 0.9))]
    found = table(board_tables(few, []))
    assert [(r.row.label, r.order, r.rank) for r in found.rows] == [("b", 1, None), ("a", 2, None)]


def submitted(copy, forge, records, name, tier, **changes):
    """A board entry of a real submission with a changed statement."""
    folder = copy("maps", name)
    forge.edit(folder, lambda raw: raw.update(changes))
    submission = read_submission(folder / SUBMISSION_NAME)
    return BoardEntry(submission.id, folder, submission.team, submission.results, tier, submission)


def test_the_newest_of_a_team_and_model_stands_and_a_claim_displaces_nothing(copy, forge, records, house):
    old = submitted(copy, forge, records, "old", "scored", submitted="2026-01-01T00:00:00Z")
    new = submitted(copy, forge, records, "new", "scored", submitted="2026-02-01T00:00:00Z")
    other = submitted(copy, forge, records, "other", "scored", submitted="2026-01-15T00:00:00Z", team="Others")
    claim = submitted(copy, forge, records, "claim", "claimed", submitted="2026-03-01T00:00:00Z")
    found = current([*house, old, new, other, claim])
    assert [e.id for e in found if not e.house] == [new.id, other.id, claim.id]
    shown = table([t for t in board_tables([*house, new, claim], []) if t.dataset == "maps"])
    assert [(r.row.label, r.order is None) for r in shown.rows][-1] == ("random forest on pixels", True)
    assert [r.order for r in shown.rows] == [1, 2, 3, None] and shown.rows[-1].entry.id == claim.id
    assert len({r.row.key for r in shown.rows}) == 4


def test_a_withdrawn_submission_leaves_the_ranking_and_stays_on_the_board(board, packed):
    from tidemark.datasets.files import write_atomic
    from tidemark.datasets.spec import canonical_json

    submission = read_submission(packed.maps / SUBMISSION_NAME)
    place = board / submission.folder
    place.mkdir(parents=True)
    shutil.copyfile(packed.maps / SUBMISSION_NAME, place / SUBMISSION_NAME)
    write_atomic(place / "withdrawn.json", canonical_json(make_withdrawn(submission, "An error.")))
    found = load_entries(board)
    assert found[-1].withdrawn == "An error." and found[-1] not in current(found)
    other = read_submission(packed.patches / SUBMISSION_NAME)
    write_atomic(place / "withdrawn.json", canonical_json(make_withdrawn(other, "Not mine.")))
    with pytest.raises(FormatError, match="/submission: is of"):
        load_entries(board)


def test_a_claim_cannot_take_the_place_of_a_verified_submission_by_superseding_it(board, packed, copy, forge):
    old = read_submission(packed.maps / SUBMISSION_NAME)
    folder = copy("maps")
    forge.edit(folder, lambda raw: raw.update(title="New", supersedes=[old.id]))
    new = read_submission(folder / SUBMISSION_NAME)
    for submission in (old, new):
        write_submission(board / submission.folder / SUBMISSION_NAME, submission)
    by_id = {e.id: e for e in load_entries(board)}
    assert by_id[old.id].superseded_by == new.id  # a claim for a claim
    from tidemark.leaderboard.entries import _replacement

    scored = dataclasses.replace(by_id[old.id], tier="scored")
    assert _replacement(scored, [scored, by_id[new.id]]) is None
    assert _replacement(scored, [scored, dataclasses.replace(by_id[new.id], tier="scored")]) == new.id


def test_skill_is_the_way_from_the_best_trivial_row_to_perfection(records):
    board = [trivial(records), water(records, "good", 0.8)]
    frozen = zeros(board)
    (zero,) = frozen
    assert (zero.model, zero.metric, zero.split, zero.suite) == ("otsu", "iou", "test", True)
    row = rows(board[1].of_split("test"))[0]
    s, floor = row.headline.mean, zero.value
    assert skill(row, frozen) == pytest.approx((s - floor) / (1 - floor))
    assert skill(rows(board[0].of_split("test"))[0], frozen) == 0
    assert skill(rows(board[1].of_split("val"))[0], frozen) is None  # skill is defined on the test split
    assert skill(row, [zero.model_copy(update={"value": 1.0})]) is None


def test_the_skill_of_a_harmonization_is_the_share_of_bicubics_error_that_is_gone():
    zero = zeros([])
    assert zero == []
    data = SimpleNamespace(name="pairs", content_sha256="a" * 64, split="test")
    row = SimpleNamespace(task="harmonization", dataset=data, metrics={"rmse": SimpleNamespace(mean=0.006)})
    frozen = SimpleNamespace(dataset="pairs", content_sha256="a" * 64, split="test", metric="rmse", value=0.01)
    assert skill(row, [frozen]) == pytest.approx(0.4)


def test_no_submission_moves_the_skill_of_another(records):
    board = [trivial(records), water(records, "good", 0.8)]
    frozen = zeros(board)
    before = {r.row.label: r.skill for r in table(board_tables(board, frozen)).rows}
    after = {r.row.label: r.skill for r in table(board_tables([*board, water(records, "best", 0.95)], frozen)).rows}
    assert before.items() <= after.items()


def test_what_is_frozen_stays_until_it_is_frozen_anew(records, tmp_path):
    path = tmp_path / "trivial.json"
    freeze([trivial(records, 0.5)], path)
    first = load_frozen(path)
    freeze([trivial(records, 0.6), trivial(records, 0.5, version="2.0.0")], path)
    kept, added = load_frozen(path)
    assert kept.value == first[0].value and (kept.suite, added.suite) == (False, True)
    freeze([trivial(records, 0.6)], path, anew=True)
    assert load_frozen(path)[0].value > first[0].value
    path.write_text(path.read_text().replace('"value": 0', '"value": 1e999, "x": 0'))
    with pytest.raises(FormatError, match="/tables/0"):
        load_frozen(path)


def test_a_simulated_or_leaky_table_is_not_in_the_suite(records):
    found = {z.dataset: z.suite for z in zeros([trivial(records), trivial(records, simulated=True, version="1.1.0")])}
    assert found == {"lakes": False}
    leaky = entry(records, [records.make(name="lakes-official", model="otsu", trained=False, seed=None, units=SCENES)])
    assert [z.suite for z in zeros([leaky])] == [False]


def test_the_aggregate_is_the_mean_over_tasks_of_complete_suites_only(records):
    patches = dict(name="floes", task="classification", units=SCENES, title="Floes")
    board = [
        trivial(records),
        entry(records, [records.make(model="majority", trained=False, seed=None, skill=0.4, **patches)]),
        water(records, "unet", 0.8),
        entry(records, [records.make(model="patch-cnn", skill=0.9, **patches)]),
    ]
    frozen = zeros(board)
    found = {s.model: s for s in aggregate(board, frozen)}
    unet, team = found["unet"], found[None]
    assert unet.mean is None and unet.skills == {"floes 1.0.0": None, "lakes 1.0.0": unet.tasks["binary-segmentation"]}
    assert set(team.tasks) == {"binary-segmentation", "classification"}
    assert team.mean == pytest.approx(sum(team.tasks.values()) / 2) and next(iter(found)) is None
    claims = [dataclasses.replace(e, tier="claimed") for e in board]
    assert aggregate(claims, frozen) == []


def test_where_there_is_a_choice_validation_decides_and_never_the_test_split(records):
    worse_on_val = water(records, "unet", 0.80, config_hash="a" * 8)
    val = [r for r in water(records, "unet", 0.85, config_hash="b" * 8).results if r.dataset.split == "val"]
    test = [r for r in water(records, "unet", 0.60, config_hash="b" * 8).results if r.dataset.split == "test"]
    better_on_val = entry(records, val + test)
    frozen = zeros([trivial(records)])
    (standing,) = (s for s in aggregate([worse_on_val, better_on_val], frozen) if s.model == "unet")
    assert standing.entries == (better_on_val,)


def test_the_committed_zeros_are_those_of_the_committed_records():
    expected = {(z.dataset, z.version): z for z in zeros(load_entries(COMMITTED))}
    frozen = {(z.dataset, z.version): z for z in load_frozen(FROZEN_PATH)}
    assert frozen.keys() == expected.keys(), "run: tidemark submit freeze"
    for key, zero in frozen.items():
        assert zero.value == pytest.approx(expected[key].value, abs=1e-12), "run: tidemark submit freeze --anew"
        assert zero == expected[key].model_copy(update={"value": zero.value})


def test_the_houses_trivial_rows_are_the_registrys_rows_without_weights():
    named = set(list_models(trained=False))
    for one in load_entries(COMMITTED):
        assert one.house and is_trivial(one) == (one.results[0].model.name in named)
