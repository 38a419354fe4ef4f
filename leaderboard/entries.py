"""What stands on the board: submissions, and the house's own records, in one form for the ranking and the page."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..benchmark.records import Result, read_result
from ..datasets.spec import canonical_json
from ..errors import FormatError, InputError
from .schema import Submission, Tier, Verification
from .submission import (
    HOUSE,
    SUBMISSION_NAME,
    VERIFICATION_NAME,
    WITHDRAWN_NAME,
    read_submission,
    read_verification,
    read_withdrawn,
)

MAX_FILES = 100_000


@dataclass(frozen=True)
class BoardEntry:
    """One configuration on one data set version: all of its seeds and splits.

    Attributes:
        id: the submission's id; of a house row the ids of its records, joined by commas, hashed nowhere.
        path: folder of the submission, or that of the house row's first record.
        results: one record per seed and split.
        tier: ``claimed``, ``scored`` or ``reproduced``; house rows are scored: the harness counted their predictions.
        submission, verification: None for house rows; verification also for claimed submissions.
        superseded_by: id of the submission that replaces this one.
        withdrawn: the reason, where it was taken back.
    """

    id: str
    path: Path
    team: str
    results: tuple[Result, ...]
    tier: Tier
    submission: Submission | None = None
    verification: Verification | None = None
    superseded_by: str | None = None
    withdrawn: str | None = None

    @property
    def house(self) -> bool:
        """Whether it is one of the project's own rows."""
        return self.submission is None

    @property
    def active(self) -> bool:
        """Neither withdrawn nor replaced."""
        return self.superseded_by is None and self.withdrawn is None

    @property
    def ranked(self) -> bool:
        """Active, and its integers were computed by the harness from its predictions."""
        return self.active and self.tier != "claimed"

    def of_split(self, split: str) -> tuple[Result, ...]:
        """The records of one split, one per seed, in the order of the seeds."""
        found = [r for r in self.results if r.dataset.split == split]
        return tuple(sorted(found, key=lambda r: (r.seed is None, r.seed or 0)))


def load_entries(folders: str | Path | Iterable[str | Path]) -> list[BoardEntry]:
    """All submissions and house rows below some folders (or in single files of records).

    Args:
        folders: searched recursively for ``submission.json`` (with ``verification.json`` and ``withdrawn.json`` beside
            it) and, in folders without one, for plain records: every ``result.json``, or where a folder given has none,
            every ``.json``.

    Returns:
        House rows first, then submissions by time and id; nothing is left out, see ``active`` and ``ranked``.

    Raises:
        FormatError: a file that is not acceptable, an id that occurs twice.
        InputError: a path that is not there.
    """
    paths = [folders] if isinstance(folders, str | Path) else list(folders)
    submissions: list[BoardEntry] = []
    plain: list[tuple[Path, Result]] = []
    for path in map(Path, paths):
        if not path.exists():
            raise InputError("no such file or folder", where=path, hint="the board lies in a clone of the repository")
        found = [path] if path.is_file() else sorted(path.rglob("*.json"))
        if len(found) > MAX_FILES:
            raise InputError(f"{len(found)} files, over the limit of {MAX_FILES}", where=path)
        places = {file.parent for file in found if file.name == SUBMISSION_NAME}
        submissions += [_submitted(place) for place in sorted(places)]
        rest = [f for f in found if not any(place in places for place in f.parents)]
        plain += [(f, read_result(f)) for f in [f for f in rest if f.name == "result.json"] or rest]
    _refuse_repeated(submissions)
    submissions.sort(key=lambda entry: (entry.submission.submitted, entry.id))
    return _house_rows(plain) + [replace(e, superseded_by=_replacement(e, submissions)) for e in submissions]


def plain_team(name: str) -> str:
    """A team's name without case, extra spaces and letters of other widths: what tells teams apart."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def same_team(a: str, b: str) -> bool:
    """Whether two names are of one team."""
    return plain_team(a) == plain_team(b)


def _replacement(entry: BoardEntry, submissions: list[BoardEntry]) -> str | None:
    """The newest submission of the same team that supersedes this one; a claim replaces nothing but a claim."""
    newer = [
        e.id
        for e in submissions
        if entry.id in e.submission.supersedes
        and e.withdrawn is None
        and same_team(e.team, entry.team)
        and (e.tier != "claimed" or entry.tier == "claimed")
    ]
    return newer[-1] if newer else None


def _submitted(folder: Path) -> BoardEntry:
    submission = read_submission(folder / SUBMISSION_NAME)
    verification = withdrawn = None
    if (folder / VERIFICATION_NAME).exists():
        verification = read_verification(folder / VERIFICATION_NAME, submission)
    if (folder / WITHDRAWN_NAME).exists():
        withdrawn = read_withdrawn(folder / WITHDRAWN_NAME, submission).reason
    return BoardEntry(
        id=submission.id,
        path=folder,
        team=submission.team,
        results=submission.results,
        tier="claimed" if verification is None else verification.tier,
        submission=submission,
        verification=verification,
        withdrawn=withdrawn,
    )


def _refuse_repeated(submissions: list[BoardEntry]) -> None:
    seen: dict[str, Path] = {}
    for entry in submissions:
        if (first := seen.setdefault(entry.id, entry.path)) != entry.path:
            raise FormatError(f"the submission {entry.id[:16]}… lies at {first} too", where=entry.path)


def _house_rows(plain: list[tuple[Path, Result]]) -> list[BoardEntry]:
    groups: dict[bytes, dict[str, tuple[Path, Result]]] = {}
    for path, result in plain:
        groups.setdefault(configuration(result), {}).setdefault(result.id, (path, result))
    rows = []
    for members in groups.values():
        results = tuple(result for _, result in members.values())
        first = next(iter(members.values()))[0]
        rows.append(BoardEntry(",".join(members), first.parent, HOUSE, results, "scored"))
    return rows


def configuration(result: Result) -> bytes:
    """What the seeds and splits of one row share: data, model, arguments, recipe."""
    return canonical_json(
        {
            "content_sha256": result.dataset.content_sha256,
            "version": result.dataset.version,
            "model": result.model.name,
            "arguments": result.model.arguments,
            "recipe": result.model.label if result.config_hash is None else result.config_hash,
        }
    )
