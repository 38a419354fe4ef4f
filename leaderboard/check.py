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
from pathlib import Path

from ..errors import FormatError, InputError, TidemarkError
from .entries import BoardEntry, load_entries
from .schema import Submission
from .statement import check_statement
from .submission import MAX_SUBMISSION_BYTES, SUBMISSION_NAME, parse_submission

BOARD = "leaderboard/submissions"
MAX_NEW = 10  # submissions in one pull request
_NAME = r"[a-z0-9][a-z0-9_.-]{0,63}"
_PLACE = re.compile(rf"{BOARD}/{_NAME}/v\d{{1,6}}/{_NAME}/[0-9a-f]{{64}}/{SUBMISSION_NAME}")


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
