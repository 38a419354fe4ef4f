"""Scoring recomputes every integer; reproducing makes the predictions anew; only both of these give a tier."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest
from tidemark.benchmark.records import make_result
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import canonical_json
from tidemark.errors import FormatError, InputError
from tidemark.leaderboard import score
from tidemark.leaderboard.command import submit_app
from tidemark.leaderboard.entries import load_entries
from tidemark.leaderboard.schema import VerifiedSplit
from tidemark.leaderboard.score import compare_again, equal_share, score_submission
from tidemark.leaderboard.submission import SUBMISSION_NAME, VERIFICATION_NAME, read_submission, read_verification
from tidemark.models.predictions import Predictions


def place(board, folder, verification=None):
    """Put a folder's statement, and a verification, on a board."""
    target = board / read_submission(folder / SUBMISSION_NAME).folder
    target.mkdir(parents=True)
    shutil.copyfile(folder / SUBMISSION_NAME, target / SUBMISSION_NAME)
    if verification is not None:
        (target / VERIFICATION_NAME).write_bytes(canonical_json(verification))
    return target


def tidemark(*arguments):
    """``tidemark submit …`` in this process."""
    submit_app([str(argument) for argument in arguments], standalone_mode=False)


def test_what_was_packed_is_scored(copy, lab, board):
    folder = copy("maps")
    submission = read_submission(folder / SUBMISSION_NAME)
    verification = score_submission(folder, lab.data)
    assert verification.tier == "scored" and verification.submission == submission.id
    for run, found in zip(submission.runs, verification.runs, strict=True):
        assert {s: v.headline for s, v in found.splits.items()} == {s: r.headline.value for s, r in run.records.items()}
    target = place(board, folder)
    assert load_entries(board)[-1].tier == "claimed"
    tidemark("score", folder, "--data", lab.data, "--board", board)
    assert read_verification(target / VERIFICATION_NAME, submission) == verification
    assert load_entries(board)[-1].tier == "scored" and load_entries(board)[-1].ranked


def test_a_verification_among_the_submitters_files_is_refused(copy, lab, board):
    folder = copy("maps")
    (folder / VERIFICATION_NAME).write_bytes(canonical_json(score_submission(folder, lab.data)))
    with pytest.raises(FormatError, match="verification.json: a file that the submission does not name"):
        score_submission(folder, lab.data)
    tidemark("add", folder, "--board", board)
    assert not list(board.rglob(VERIFICATION_NAME))


def test_what_is_not_on_the_board_gets_no_verification(copy, lab, board, capsys):
    tidemark("score", copy("maps"), "--data", lab.data, "--board", board)
    assert "would be scored; it is not on this board" in capsys.readouterr().out
    assert not list(board.rglob(VERIFICATION_NAME))


def test_a_flipped_pixel_with_its_digest_stated_anew_is_found(copy, forge, lab):
    folder = copy("maps")

    def flip(ids, chunks, about):
        chunks[0][0][5, 5] ^= 1

    forge.rewrite(folder, 1, "test", flip)
    with pytest.raises(FormatError, match=r"/runs/1/records/test/units/0/confusion/\d/\d: \d+ stated, \d+ recomputed"):
        score_submission(folder, lab.data)


def test_an_edited_integer_is_found_though_every_figure_follows_from_it(copy, forge, lab):
    """Hits raised and misses lowered in one unit; all scores computed anew from that, so that the record agrees."""
    from tidemark.benchmark.scores import as_metric, counts_of, estimates, unit_scores

    folder = copy("maps")
    record = read_submission(folder / SUBMISSION_NAME).runs[0].records["test"]
    units = [unit.model_dump(mode="json") for unit in record.units]
    assert units[1]["confusion"][1][0] > 0
    units[1]["confusion"][1][0] -= 1
    units[1]["confusion"][1][1] += 1
    metrics = {key: metric.model_dump() for key, metric in record.metrics.items()}
    fields = {"calibration": None, "confidence": None} if "calibration" in type(record).model_fields else {}
    base = {**record.model_dump(mode="json", exclude={"id"}), **fields}
    draft = make_result(**{**base, "units": units})
    counts, names = counts_of([draft]), [c.name for c in draft.classes]
    metrics |= {k: as_metric(v).model_dump() for k, v in estimates(draft.task, names, counts).items()}
    for unit, scores in zip(units, unit_scores(draft.task, names, counts), strict=True):
        unit["scores"] = scores
    forge.restate(folder, 0, "test", units=units, metrics=metrics, **fields)
    with pytest.raises(FormatError, match=r"/runs/0/records/test/units/1/confusion/1/0: \d+ stated, \d+ recomputed"):
        score_submission(folder, lab.data)


def test_an_edited_or_invented_figure_is_found(copy, forge, lab):
    folder = copy("patches")
    record = read_submission(folder / SUBMISSION_NAME).runs[2].records["val"]
    metrics = {key: metric.model_dump() for key, metric in record.metrics.items()}
    forge.restate(folder, 2, "val", metrics={**metrics, "accuracy": {"value": 0.999}})
    with pytest.raises(FormatError, match="/runs/2/records/val/metrics/accuracy/value: 0.999 stated"):
        score_submission(folder, lab.data)
    forge.restate(folder, 2, "val", metrics={**metrics, "elegance": {"value": 1.0}})
    with pytest.raises(FormatError, match=r"/runs/2/records/val/metrics: \['elegance'\] stated but not recomputed"):
        score_submission(folder, lab.data)


def test_predictions_come_out_again_from_the_weights(copy, lab):
    folder = copy("patches")
    verification = score_submission(folder, lab.data, again=True, device="cpu")
    assert verification.tier == "reproduced"
    for run in verification.runs:
        assert run.weights_content_sha256
        for split in run.splits.values():
            assert split.equal_share == 1.0 and split.again == split.headline


def test_weights_that_did_not_make_the_predictions_are_found(copy, forge, lab):
    """The seeds' weights in a circle: files and integers are in order, but no weights make their predictions."""
    folder = copy("patches")

    def rotate(raw):
        files = [run["weights"] for run in raw["runs"]]
        for run, other in zip(raw["runs"], files[1:] + files[:1], strict=True):
            run["weights"] = {**other, "path": run["weights"]["path"]}
            for split, record in run["records"].items():
                record = {**record, "model": {**record["model"], "weights_sha256": other["sha256"]}}
                del record["id"]
                run["records"][split] = make_result(**record).model_dump(mode="json")

    paths = [folder / f"seed{n}" / "model.safetensors" for n in range(3)]
    data = [path.read_bytes() for path in paths]
    for path, other in zip(paths, data[1:] + data[:1], strict=True):
        path.write_bytes(other)
    forge.edit(folder, rotate)
    assert score_submission(folder, lab.data).tier == "scored"
    with pytest.raises(FormatError, match="the weights are not those that made the predictions"):
        score_submission(folder, lab.data, again=True, device="cpu")


def test_without_weights_a_submission_stays_scored(copy, lab):
    with pytest.raises(InputError, match="no weights to make the predictions from.*stays scored"):
        score_submission(copy("maps"), lab.data, again=True)


def test_a_verification_counts_for_its_own_submission_alone(copy, lab, board, forge):
    folder = copy("patches")
    verification = score_submission(folder, lab.data)
    forge.edit(folder, lambda raw: raw.update(title="A larger model"))
    target = place(board, folder, verification)
    with pytest.raises(FormatError, match="/submission: is of .*, beside it lies"):
        load_entries(board)
    text = json.loads((target / VERIFICATION_NAME).read_bytes())
    (target / VERIFICATION_NAME).write_text(json.dumps({**text, "tier": "certified"}))
    with pytest.raises(FormatError, match="/tier: Input should be"):
        load_entries(board)


def test_the_same_answers_in_other_bytes_under_another_name_are_a_copy(copy, forge, lab, board):
    original = copy("maps", "original")
    place(board, original, score_submission(original, lab.data))
    thief = copy("maps", "thief")
    for run in range(3):
        for split in ("val", "test"):
            path = thief / f"seed{run}" / split / "predictions.h5"
            with h5py.File(path, "r+") as file:
                file.attrs.modify("model", np.bytes_("mine"))
            forge.restate(thief, run, split)
    forge.edit(thief, lambda raw: raw.update(team="Others", title="Our discovery"))
    entries = load_entries(board)
    assert score_submission(thief, lab.data).tier == "scored"  # by itself nothing is wrong with it
    with pytest.raises(FormatError, match="the content is that of 'A small model' by Fenland Water Lab"):
        score_submission(thief, lab.data, entries)


def untrain(raw):
    """Say of a packed model that nothing was trained."""
    raw["model"]["trained"] = False
    for run in raw["runs"]:
        for split, record in run["records"].items():
            record = {**record, "model": {**record["model"], "trained": False}}
            del record["id"]
            run["records"][split] = make_result(**record).model_dump(mode="json")


@pytest.mark.parametrize("learned", [True, False])
def test_a_copy_is_found_unless_neither_model_learned_anything(copy, forge, lab, board, learned):
    original, thief = copy("maps", "original"), copy("maps", "thief")
    forge.edit(thief, untrain)
    if not learned:
        forge.edit(original, lambda raw: (untrain(raw), raw.update(team="Others")))
    place(board, original, score_submission(original, lab.data))
    if learned:
        with pytest.raises(FormatError, match="the content is that of 'A small model' by Fenland Water Lab"):
            score_submission(thief, lab.data, load_entries(board))
    else:
        assert score_submission(thief, lab.data, load_entries(board)).tier == "scored"


def test_the_share_of_equal_pixels_leaves_out_what_neither_answers(copy, forge):
    one, other = copy("maps", "one"), copy("maps", "other")

    def change(ids, chunks, about):
        chunks[0][0][:] = 255

    for folder in (one, other):
        forge.rewrite(folder, 0, "test", change)
    path = one / "seed0" / "test" / "predictions.h5"
    pixels = 8 * 32 * 32 - 32 * 32

    def flip(ids, chunks, about):
        chunks[1][0][0, :7] ^= 1

    forge.rewrite(other, 0, "test", flip)
    share = equal_share(Predictions(path), Predictions(other / "seed0" / "test" / "predictions.h5"))
    assert share == pytest.approx(1 - 7 / pixels)
    assert (
        score.MIN_EQUAL == 0.995
        and score.OTHER_TOLERANCE == 0.002
        and score.HEADLINE_TOLERANCE == {"harmonization": 0.02}
    )


@pytest.mark.parametrize(
    "invented, forgotten, match",
    [
        (15, 15, None),
        (30, 30, r"99.267\d% of the predictions come out equal, 99.5% are needed"),
        (38, 0, r"iou 0\.\d+ from the weights, 0\.\d+ from the submitted predictions; 0.002 is allowed"),
    ],
)
def test_predictions_made_anew_may_differ_by_the_protocols_tolerance(copy, forge, lab, invented, forgotten, match):
    """Water invented and water forgotten on as many dry pixels leaves the IoU as it is, but not the pixels."""
    submitted, made = copy("maps", "submitted"), copy("maps", "made")
    source = lab.data / "maps" / "1.0.0"
    truth = {i: s.read("mask", n) for s in open_split(source, "test")[1] for n, i in enumerate(s.chip_ids)}

    def start(ids, chunks, about):  # the truth, with forty dry pixels of the first chip called water
        for number, chip_id in enumerate(ids):
            chunks[number][0][:] = truth[chip_id] == 1
        dry = np.argwhere(truth[ids[0]] == 0)
        chunks[0][0][tuple(dry[:40].T)] = 1

    def change(ids, chunks, about):
        start(ids, chunks, about)
        dry = np.argwhere(truth[ids[0]] == 0)
        chunks[0][0][tuple(dry[:forgotten].T)] = 0
        chunks[0][0][tuple(dry[40 : 40 + invented].T)] = 1

    forge.rewrite(submitted, 0, "test", start)
    forge.rewrite(made, 0, "test", change)
    record = read_submission(submitted / SUBMISSION_NAME).runs[0].records["test"]
    paths = [folder / "seed0" / "test" / "predictions.h5" for folder in (submitted, made)]
    headline = score.figures_of(score.score(paths[0], source, "test"))[0]["iou"].value
    verified = VerifiedSplit(prediction_content_sha256=None, headline=headline)
    if match is None:
        found = compare_again(verified, record, *paths, source, "/runs/0")
        assert found.again == headline and found.equal_share == pytest.approx(1 - 30 / 8192)
    else:
        with pytest.raises(FormatError, match=match):
            compare_again(verified, record, *paths, source, "/runs/0")
