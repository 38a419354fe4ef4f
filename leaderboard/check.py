"""What a pull request may add to the board: new files ``submission.json``, each whole, honest in form and no copy.

The pull request is read as git objects and never checked out; nothing of it is executed or fetched. The code that runs
here is the base branch's. In a checkout of the base: ``python -m tidemark.leaderboard.check --base main --head REF``.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..benchmark.records import Result
from ..benchmark.scores import check_figures
from ..errors import FormatError, InputError, TidemarkError
from .entries import BoardEntry, load_entries, same_team
from .schema import Submission
from .submission import HOUSE, MAX_SUBMISSION_BYTES, SPLITS, SUBMISSION_NAME, parse_submission

BOARD = "leaderboard/submissions"
MAX_NEW = 10  # submissions in one pull request
_NAME = r"[a-z0-9][a-z0-9_.-]{0,63}"
_PLACE = re.compile(rf"{BOARD}/{_NAME}/v\d{{1,6}}/{_NAME}/[0-9a-f]{{64}}/{SUBMISSION_NAME}")
_MARKUP = re.compile(r"<[A-Za-z/!?]|&#|&[A-Za-z]+;|javascript:", re.IGNORECASE)
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]")


@dataclass(frozen=True)
class Change:
    """One changed path of a pull request: git's status letter, the new mode and the new object."""

    status: str
    mode: str
    blob: str
    path: str


def check_pull_request(base: str, head: str, repository: str | Path = ".") -> tuple[list[Submission], list[str]]:
    """Check what ``head`` adds to ``base``.

    Returns:
        the new submissions that are acceptable, and one line per fault. Both empty: the board is not touched.

    Raises:
        InputError: no such revisions.
    """
    base, head = (
        _git(repository, "rev-parse", "--verify", "--end-of-options", f"{r}^{{commit}}") for r in (base, head)
    )
    changes = list(_changes(repository, base.strip(), head.strip()))
    if not any(change.path.startswith(f"{BOARD}/") for change in changes):
        return [], []
    faults = [fault for change in changes if (fault := _path_fault(change))]
    new = [change for change in changes if not _path_fault(change)]
    if len(new) > MAX_NEW:
        return [], [*faults, f"{len(new)} submissions at once, at most {MAX_NEW} are taken"]
    board, accepted = _board(repository, base.strip()), []
    for change in new:
        try:
            submission = _submission(repository, change)
            check_statement(submission, board, where=change.path)
        except TidemarkError as error:
            faults.append(str(error))
            continue
        accepted.append(submission)
        board.append(
            BoardEntry(submission.id, Path(change.path), submission.team, submission.results, "claimed", submission)
        )
    return accepted, faults


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
            if split in known:
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


def _path_fault(change: Change) -> str | None:
    path = json.dumps(change.path)[:300]
    if change.status != "A":
        words = {"M": "changed", "D": "deleted", "T": "changed in kind"}.get(
            change.status, f"changed ({change.status})"
        )
        return f"{path}: {words}; what stands on the board stays, a pull request only adds"
    if not _PLACE.fullmatch(change.path):
        return f"{path}: not a place for a submission; only {BOARD}/<dataset>/v<major>/<model>/<id>/{SUBMISSION_NAME}"
    if change.mode != "100644":
        return f"{path}: mode {change.mode}, a plain file has 100644; no links and no programs"
    return None


def _submission(repository: str | Path, change: Change) -> Submission:
    size = int(_git(repository, "cat-file", "-s", change.blob))
    if size > MAX_SUBMISSION_BYTES:
        raise FormatError(f"{size} bytes, over the limit of {MAX_SUBMISSION_BYTES}", where=change.path)
    submission = parse_submission(_git_bytes(repository, "cat-file", "blob", change.blob), where=change.path)
    if change.path != (expected := f"{BOARD}/{submission.folder}/{SUBMISSION_NAME}"):
        raise FormatError(f"belongs at {expected}", where=change.path)
    return submission


def _changes(repository: str | Path, base: str, head: str) -> Iterator[Change]:
    options = (
        "--raw",
        "-z",
        "--no-renames",
        "--no-abbrev",
        "--no-ext-diff",
        "--no-textconv",
        "--ignore-submodules=none",
    )
    fields = _git(repository, "diff", *options, f"{base}...{head}").split("\0")
    for meta, path in zip(fields[:-1:2], fields[1::2], strict=True):
        _, mode, _, blob, status = meta.removeprefix(":").split(" ")
        yield Change(status, mode, blob, path)


def _board(repository: str | Path, base: str) -> list[BoardEntry]:
    """The board as the base has it, whatever is checked out."""
    if not _git(repository, "ls-tree", base, "--", f"{BOARD}/"):
        return []
    archive = _git_bytes(repository, "archive", "--format=tar", base, "--", BOARD)
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
        return load_entries(Path(folder) / BOARD)


def _git(repository: str | Path, *arguments: str) -> str:
    return _git_bytes(repository, *arguments).decode("utf-8", "replace")


def _git_bytes(repository: str | Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(repository), "--no-pager", "-c", "core.quotePath=off", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        what = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise InputError(f"git {arguments[0]}: {what[-1] if what else done.returncode}", where=repository)
    return done.stdout


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:120]}…"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what a pull request adds, or one line per fault; 0 when it may be merged, 2 when not."""
    parser = argparse.ArgumentParser(prog="python -m tidemark.leaderboard.check", description=main.__doc__)
    parser.add_argument("--base", required=True, help="the branch that the pull request is for")
    parser.add_argument("--head", required=True, help="the pull request's commit")
    parser.add_argument("--repository", default=".", help="a clone that has both")
    given = parser.parse_args(arguments)
    try:
        accepted, faults = check_pull_request(given.base, given.head, given.repository)
    except TidemarkError as error:
        accepted, faults = [], [str(error)]
    for submission in accepted:
        seeds = ", ".join(str(run.seed) for run in submission.runs)
        print(f"{submission.folder}: {submission.title!r} by {submission.team!r}, seeds {seeds}: claimed")
    for fault in faults:
        print(f"refused: {fault}", file=sys.stderr)
    if not accepted and not faults:
        print("no submission in this pull request")
    return 2 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
