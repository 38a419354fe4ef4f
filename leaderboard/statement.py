"""What the board asks of a submission's statement, without its artefacts: plain words, the right data, no copy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ..benchmark.records import Result
from ..benchmark.scores import check_figures
from ..errors import FormatError
from .entries import BoardEntry, same_team
from .schema import Submission
from .submission import HOUSE, SPLITS

_MARKUP = re.compile(r"<[A-Za-z/!?]|&#|&[A-Za-z]+;|javascript:", re.IGNORECASE)
_HIDDEN = re.compile(  # controls, what Unicode lets a renderer ignore, separators of lines, and letters that are blank
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)


def check_statement(
    submission: Submission, board: Sequence[BoardEntry], *, where: object = None, now: datetime | None = None
) -> None:
    """Check a submission against the board, without its artefacts.

    Args:
        submission: has passed ``parse_submission``.
        board: what stands there already.
        now: the time that ``submitted`` may not be after; None: the clock's.

    Raises:
        FormatError: the JSON pointer of the first fault.
    """

    def fault(pointer: str, what: str, hint: str | None = None) -> FormatError:
        return FormatError(f"{pointer}: {what}", where=where, hint=hint)

    for pointer, text in _texts(submission.model_dump(mode="json")):
        if found := _MARKUP.search(text):
            raise fault(pointer, f"markup ({found[0]!r}) in a text", "write plain text")
        if found := _HIDDEN.search(text):
            raise fault(pointer, f"an invisible character (U+{ord(found[0]):04X}) in a text", "write plain text")
    named = {"/title": submission.title, "/team": submission.team, "/model/label": submission.model.label}
    named |= {f"/training_data/{number}": line for number, line in enumerate(submission.training_data)}
    for pointer, text in named.items():
        if not text.strip():
            raise fault(pointer, "is blank")
    if same_team(submission.team, HOUSE):
        raise fault("/team", f"{HOUSE} is the project's own name", "give your own")
    if datetime.fromisoformat(submission.submitted) > (now or datetime.now(UTC)) + timedelta(days=1):
        raise fault("/submitted", f"{submission.submitted} is in the future")
    if submission.artifacts is None:
        raise fault("/artifacts", "nobody can fetch the artefacts", "upload them, then `tidemark submit locate`")
    _check_new(submission, board, fault)
    _check_data(submission, board, fault)
    for number, run in enumerate(submission.runs):
        for split, record in run.records.items():
            try:
                check_figures(record)
            except FormatError as error:
                raise fault(f"/runs/{number}/records/{split}{error.what.partition(': ')[0]}", *_rest(error)) from None


def _rest(error: FormatError) -> tuple[str, str | None]:
    return error.what.partition(": ")[2], error.hint


def _check_new(submission: Submission, board: Sequence[BoardEntry], fault: Any) -> None:
    """Refuse what stands on the board already, under whatever name, and taking the place of another team's row."""
    others = {entry.id: entry for entry in board if entry.submission is not None}
    if submission.id in others:
        raise fault("/id", f"the submission {submission.id[:16]}… is on the board already")
    for number, old in enumerate(submission.supersedes):
        if old not in others:
            raise fault(f"/supersedes/{number}", f"no submission {old[:16]}… on the board")
        if not same_team(others[old].team, submission.team):
            raise fault(f"/supersedes/{number}", f"{old[:16]}… is of another team")
        if others[old].submission.dataset.name != submission.dataset.name:
            raise fault(f"/supersedes/{number}", f"{old[:16]}… is for another data set")
    for entry in others.values():
        if same_team(entry.team, submission.team) and entry.submission.contact != submission.contact:
            hint = "give the contact of your earlier submissions, or another team"
            raise fault("/contact", f"the team {entry.team!r} is on the board with another contact", hint)
    own: dict[str, str] = {}
    for pointer, file in submission.files.items():
        if not pointer.endswith("/config"):
            own[file.sha256] = f"{pointer}/sha256"
    for entry in board:
        if entry.id in submission.supersedes:
            continue
        for result in entry.results:
            for what, digest in (("predictions", result.predictions_sha256), ("weights", result.model.weights_sha256)):
                if digest in own:
                    name = entry.submission.title if entry.submission else result.model.label
                    raise fault(
                        own[digest],
                        f"these {what} are those of {name!r} by {entry.team} ({(entry.id)[:16]}…)",
                        "a copied submission is refused; your own earlier one can be named in supersedes",
                    )


def _check_data(submission: Submission, board: Sequence[BoardEntry], fault: Any) -> None:
    """The records must be of the data that the house's records of this version and split are of, label for label."""
    data = submission.dataset
    known = {
        result.dataset.split: result
        for entry in board
        if entry.house
        for result in entry.results
        if (result.dataset.name, result.dataset.version) == (data.name, data.version)
    }
    needed = set(SPLITS) & known.keys()
    if not needed:
        raise fault("/dataset/version", f"the board has no table for {data.name} {data.version}")
    if missing := sorted(needed - submission.runs[0].records.keys()):
        raise fault("/runs/0/records", f"nothing on {' and '.join(missing)}, which the board's rows are scored on")
    for number, run in enumerate(submission.runs):
        for split, record in run.records.items():
            if split not in known:
                what = f"the board has no table for this split of {data.name} {data.version}"
                raise fault(f"/runs/{number}/records/{split}", what, f"submit {' and '.join(sorted(needed))} alone")
            for key, stated, expected in _same_data(record, known[split]):
                if stated != expected:
                    raise fault(
                        f"/runs/{number}/records/{split}/{key}",
                        f"found {_short(stated)}, the board's {data.name} {data.version} has {_short(expected)}",
                    )


def _same_data(record: Result, known: Result) -> Iterator[tuple[str, Any, Any]]:
    """(pointer, stated, expected) of everything that the data alone decide."""
    for key in ("name", "version", "content_sha256", "title", "simulated", "licence", "split"):
        yield f"dataset/{key}", getattr(record.dataset, key), getattr(known.dataset, key)
    yield "task", record.task, known.task
    for key in ("classes", "bands"):
        yield key, getattr(record, key), getattr(known, key)
    yield "chips", record.chips, known.chips
    units = {unit.id: unit for unit in known.units}
    yield "units", sorted(unit.id for unit in record.units), sorted(units)
    for number, unit in enumerate(record.units):
        yield f"units/{number}/pixels", unit.pixels, units[unit.id].pixels
        truth = [[sum(row) for row in one.confusion] for one in (unit, units[unit.id])]
        yield f"units/{number}/confusion (pixels by true class)", *truth


def _texts(value: Any, pointer: str = "") -> Iterator[tuple[str, str]]:
    """Every string of a JSON value, keys too, with its pointer."""
    if isinstance(value, str):
        yield pointer, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield pointer, key
            yield from _texts(item, f"{pointer}/{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(item, f"{pointer}/{number}")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:120]}…"
