"""The maintainers' side: recompute every figure from the predictions, and the predictions from the weights.

What was found becomes ``verification.json`` beside the ``submission.json`` *on the board*, never among the submitter's
files; it names the submission's id and alone decides the tier.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import configs
from ..benchmark.evaluate import figures_of, record_fields, score
from ..benchmark.records import HEADLINE, Harness, Result
from ..errors import FormatError, InputError
from ..models.predictions import PREDICTIONS_NAME, Predictions
from ..models.runs import Provenance, RunInfo, dataset_of, provenance, write_run
from .artifacts import check_folder, data_folder, prediction_content, weights_content
from .entries import BoardEntry
from .schema import Submission, SubmittedRun, Verification, VerifiedRun, VerifiedSplit

# PROTOCOL.md, tiers: how far predictions made anew may be from the submitted ones.
MIN_EQUAL = 0.995
HEADLINE_TOLERANCE = {"harmonization": 0.02}  # dB of PSNR
OTHER_TOLERANCE = 0.002
VALUE_TOLERANCE = 0.002  # reflectance
BATCH_SIZE = 8  # chips, when predictions are made anew
CLOSE = 1e-9  # figures from the same integers, on another processor


def score_submission(
    folder: str | Path,
    data_root: str | Path,
    board: Sequence[BoardEntry] = (),
    *,
    again: bool = False,
    device: str = "auto",
) -> Verification:
    """Verify a packed submission; nothing is written.

    Args:
        folder: with all artefacts, as ``pack`` makes it.
        data_root: folder of all data sets.
        board: what stands there already; predictions or weights of another submission under another digest are found.
        again: also make the predictions anew from the weights (tier ``reproduced``).
        device: where that runs, see ``find_device``.

    Raises:
        FormatError: the first integer or figure that is not what the predictions give, a copy, predictions that do not
            come out again.
        TidemarkError: everything that ``check_folder`` refuses.
    """
    folder = Path(folder)
    submission = check_folder(folder, data_root)
    source = data_folder(submission, data_root)
    if again and any(run.weights is None for run in submission.runs):
        raise InputError(
            "there are no weights to make the predictions from", where=folder, hint="such a submission stays scored"
        )
    runs = tuple(
        _verify_run(folder, submission, n, source, device if again else None) for n in range(len(submission.runs))
    )
    _refuse_copies(submission, runs, board)
    own = provenance("cpu")
    return Verification(
        format="tidemark-verification",
        schema_version="1.0",
        submission=submission.id,
        tier="reproduced" if again else "scored",
        dataset=next(iter(submission.runs[0].records.values())).dataset,
        harness=Harness(version=own.tidemark, git_commit=own.git_commit, dirty=own.dirty),
        device=_device(device) if again else own.device,
        runs=runs,
    )


def _device(device: str) -> str:
    from ..models.device import find_device

    return provenance(find_device(device).type).device


def _verify_run(folder: Path, submission: Submission, number: int, source: Path, device: str | None) -> VerifiedRun:
    run, splits = submission.runs[number], {}
    for split, file in run.predictions.items():
        record, at = run.records[split], f"/runs/{number}/records/{split}"
        metrics = check_record(record, folder / file.path, source, at)
        headline = metrics[HEADLINE[record.task]]
        verified = VerifiedSplit(
            prediction_content_sha256=prediction_content(Predictions(folder / file.path)), headline=headline
        )
        if device is not None:
            with tempfile.TemporaryDirectory() as place:
                made = _predict_again(folder, submission, run, split, source, Path(place), device)
                verified = compare_again(verified, record, folder / file.path, made, source, at)
        splits[split] = verified
    weights = None if run.weights is None else weights_content(folder / run.weights.path)
    return VerifiedRun(seed=run.seed, weights_content_sha256=weights, splits=splits)


def check_record(record: Result, predictions: Path, source: Path, pointer: str = "") -> dict[str, float | None]:
    """Score predictions and compare with a record: every integer equal, every figure but for the last digits.

    Returns:
        the metrics recomputed.

    Raises:
        FormatError: the JSON pointer of the first difference, with what was stated and found.
    """
    fields = record_fields(score(predictions, source, record.dataset.split))
    del fields["confusion_sha256"]  # of a file that is not submitted
    found = record.model_copy(update=fields).model_dump(mode="json", include=set(fields))
    stated = record.model_dump(mode="json", include=set(fields))
    for side in (found, stated):
        del side["dataset"]["manifest_sha256"]  # the same data may lie there in another codec
    order = {unit["id"]: number for number, unit in enumerate(found["units"])}
    numbers = sorted(range(len(stated["units"])), key=lambda n: order.get(stated["units"][n]["id"], len(order)))
    if [stated["units"][n]["id"] for n in numbers] != list(order):
        what = f"not the units of {record.dataset.name} {record.dataset.split}"
        raise FormatError(f"{pointer}/units: {what}", where=predictions)
    for n, unit in zip(numbers, found.pop("units"), strict=True):
        _compare(stated["units"][n], unit, f"{pointer}/units/{n}", predictions)
    for key, value in found.items():
        _compare(stated[key], value, f"{pointer}/{key}", predictions)
    return {key: metric.value for key, metric in fields["metrics"].items()}


def _compare(stated: Any, found: Any, pointer: str, where: Path) -> None:
    if isinstance(stated, dict) and isinstance(found, dict) and stated.keys() == found.keys():
        for key in stated:
            _compare(stated[key], found[key], f"{pointer}/{key}", where)
    elif isinstance(stated, list) and isinstance(found, list) and len(stated) == len(found):
        for number, (a, b) in enumerate(zip(stated, found, strict=True)):
            _compare(a, b, f"{pointer}/{number}", where)
    elif isinstance(stated, float) and isinstance(found, float):
        if abs(stated - found) > CLOSE * max(1.0, abs(found)):
            raise _differs(stated, found, pointer, where)
    elif stated != found:
        raise _differs(stated, found, pointer, where)


def _differs(stated: Any, found: Any, pointer: str, where: Path) -> FormatError:
    if isinstance(stated, dict) and isinstance(found, dict):
        stated, found = (sorted(a.keys() - b.keys()) for a, b in ((stated, found), (found, stated)))
        return FormatError(
            f"{pointer}: {stated} stated but not recomputed, {found} recomputed but not stated", where=where
        )
    return FormatError(
        f"{pointer}: {json.dumps(stated)[:80]} stated, {json.dumps(found)[:80]} recomputed from the predictions",
        where=where,
        hint="the record is not of these predictions",
    )


def _refuse_copies(submission: Submission, runs: Sequence[VerifiedRun], board: Sequence[BoardEntry]) -> None:
    """The same pixels or tensors in other bytes: digests of content, not of files."""
    seen: dict[str, int] = {}
    for run in runs:
        if run.weights_content_sha256 and seen.setdefault(run.weights_content_sha256, run.seed) != run.seed:
            first = seen[run.weights_content_sha256]
            raise FormatError(
                f"seed {run.seed} has the tensors of seed {first}",
                where=submission.id[:16],
                hint="a seed is repeated under another number",
            )
    for entry in board:
        if entry.verification is None or entry.id == submission.id or entry.id in submission.supersedes:
            continue
        if not (submission.model.trained or entry.submission.model.trained):
            continue  # what learns nothing gives everybody the same answers
        known = {digest for _, digest in _contents(entry.verification.runs)}
        for pointer, digest in _contents(runs):
            if digest in known:
                raise FormatError(
                    f"{pointer}: the content is that of {entry.submission.title!r} by {entry.team} ({entry.id[:16]}…)",
                    where=submission.id[:16],
                    hint="a copied submission is refused",
                )


def _contents(runs: Sequence[VerifiedRun]) -> list[tuple[str, str]]:
    found = []
    for number, run in enumerate(runs):
        if run.weights_content_sha256 is not None:
            found.append((f"/runs/{number}/weights", run.weights_content_sha256))
        found += [
            (f"/runs/{number}/predictions/{key}", split.prediction_content_sha256)
            for key, split in run.splits.items()
            if split.prediction_content_sha256 is not None
        ]
    return found


def _predict_again(
    folder: Path, submission: Submission, run: SubmittedRun, split: str, source: Path, place: Path, device: str
) -> Path:
    """Predictions of a split by the registry's model with the submitted weights, through a run folder of its own."""
    from ..datasets.spec import load_manifest
    from ..models.inference import predict_split

    record, weights = run.records[split], place / "weights"
    weights.mkdir(parents=True)
    for file in (run.weights, run.config):
        shutil.copyfile(folder / file.path, weights / Path(file.path).name)
    info = RunInfo(
        dataset=dataset_of(load_manifest(source), source.parents[1]),
        model=submission.model.name,
        arguments=submission.model.arguments,
        trained=True,
        seed=run.seed,
        weights_sha256=run.weights.sha256,
        train_seconds=0,
        provenance=Provenance(
            tidemark="", git_commit=None, dirty=None, packages={}, device="", threads=0, command=record.command
        ),
    )
    write_run(place, info, configs.dump(configs.make_config({}, [])))  # nothing of the submitter's recipe is needed
    made = place / split / PREDICTIONS_NAME
    return predict_split(place, split, device=device, batch_size=BATCH_SIZE, folder=source, out=made)


def compare_again(
    verified: VerifiedSplit, record: Result, submitted: Path, made: Path, source: Path, pointer: str
) -> VerifiedSplit:
    """The predictions made anew against the submitted ones, by PROTOCOL.md's tolerance.

    Returns:
        ``verified`` with what was found. Raises FormatError: another headline, or too few equal predictions.
    """
    metrics, _ = figures_of(score(made, source, record.dataset.split))
    again, share = metrics[HEADLINE[record.task]].value, equal_share(Predictions(submitted), Predictions(made))
    tolerance = HEADLINE_TOLERANCE.get(record.task, OTHER_TOLERANCE)
    if (again is None) != (verified.headline is None) or (
        again is not None and abs(again - verified.headline) > tolerance
    ):
        raise FormatError(
            f"{pointer}: {HEADLINE[record.task]} {again} from the weights, {verified.headline} from the submitted "
            f"predictions; {tolerance} is allowed",
            where=submitted,
            hint="the weights are not those that made the predictions",
        )
    if share < MIN_EQUAL:
        raise FormatError(
            f"{pointer}: {share:.4%} of the predictions come out equal, {MIN_EQUAL:.1%} are needed",
            where=submitted,
            hint="the weights are not those that made the predictions",
        )
    return verified.model_copy(update={"again": again, "equal_share": share})


def equal_share(one: Predictions, other: Predictions) -> float:
    """Share of pixels (patches) of the same class, or of values within 0.002; where both hold no answer none counts.

    Both must be of the same chips. Raises FormatError where their shapes differ.
    """
    equal = total = 0
    for chip_id in one.chip_ids:
        a, b = one.read(chip_id)[0], other.read(chip_id)[0]
        if a.shape != b.shape:
            raise FormatError(f"chip {chip_id}: shape {b.shape}, expected {a.shape}", where=other.path)
        if a.dtype.kind == "f":
            known = np.isfinite(a) | np.isfinite(b)
            with np.errstate(invalid="ignore"):
                same = np.abs(a.astype(np.float64) - b.astype(np.float64)) <= VALUE_TOLERANCE
        else:
            known, same = (a != 255) | (b != 255), a == b
        equal, total = equal + int(np.count_nonzero(same & known)), total + int(np.count_nonzero(known))
    return equal / total if total else 1.0
