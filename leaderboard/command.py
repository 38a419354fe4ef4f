"""``tidemark submit``: pack, check, score, reproduce, and the board's housekeeping. Heavy imports wait for the call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .entries import BoardEntry
    from .schema import Submission

submit_app = typer.Typer(no_args_is_help=True, help="Submit a model to the leaderboard, and verify submissions.")

BOARD = Path(__file__).parent / "submissions"
Packed = Annotated[Path, typer.Argument(help="A folder that `submit pack` made.")]
DataRoot = Annotated[Path, typer.Option("--data", help="Where data sets lie.")]
Board = Annotated[Path, typer.Option("--board", help="The board's folder of submissions and records.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


@submit_app.command()
def pack(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of one configuration, scored on val and test.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    title: Annotated[str, typer.Option(help="What is new, in a line.")],
    team: Annotated[str, typer.Option(help="Who submits.")],
    contact: Annotated[str, typer.Option(help="An email address or an https:// page; it is public.")],
    licence: Annotated[str, typer.Option(help="Of weights and predictions, such as CC-BY-4.0.")],
    training_data: Annotated[list[str] | None, typer.Option(help="All data learned from; once for each.")] = None,
    artifacts: Annotated[str | None, typer.Option(help="owner/name@commit on the hub, or an https:// URL.")] = None,
    supersedes: Annotated[list[str] | None, typer.Option(help="Id of a submission that this one replaces.")] = None,
    note: Annotated[str, typer.Option(help="Anything else that readers should know.")] = "",
) -> None:
    """Collect the seeds of one configuration into a folder with submission.json."""
    from .pack import pack

    submission = pack(
        runs,
        out,
        title=title,
        team=team,
        contact=contact,
        licence=licence,
        training_data=training_data or [],
        artifacts=artifacts,
        supersedes=supersedes or [],
        note=note,
    )
    _describe(submission)
    print(f"packed in {out}; next: upload it, then tidemark submit locate {out} PLACE")


@submit_app.command()
def locate(
    folder: Packed, place: Annotated[str, typer.Argument(help="owner/name@commit on the hub, or an https:// URL.")]
) -> None:
    """State where the artefacts were uploaded to; the submission gets its final id."""
    from .pack import locate

    print(f"artefacts at {place}; id {locate(folder, place).id}")


@submit_app.command()
def check(
    folder: Packed,
    data: Annotated[Path | None, typer.Option("--data", help="Where data sets lie: compares every chip.")] = None,
    board: Board = BOARD,
) -> None:
    """Check schema, sizes, hashes, weights, predictions and chips, and whether the board would take it."""
    from .artifacts import check_folder
    from .statement import check_statement
    from .submission import SUBMISSION_NAME

    submission = check_folder(folder, data)
    _describe(submission)
    print(
        "files, hashes, weights and predictions are in order" + ("" if data else " (chips counted; compare by --data)")
    )
    if submission.artifacts is None:
        print(f"not ready for the board: upload the folder, then tidemark submit locate {folder} PLACE")
        return
    check_statement(submission, _others(board, submission), where=folder / SUBMISSION_NAME)
    print("the board takes it")


@submit_app.command()
def add(folder: Packed, board: Board = BOARD) -> None:
    """Copy submission.json to where it belongs on the board."""
    import shutil

    from .statement import check_statement
    from .submission import SUBMISSION_NAME, read_submission

    submission = read_submission(folder / SUBMISSION_NAME)
    check_statement(submission, _others(board, submission), where=folder / SUBMISSION_NAME)
    place = board / submission.folder
    place.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / SUBMISSION_NAME, place / SUBMISSION_NAME)
    print(place / SUBMISSION_NAME)


@submit_app.command()
def score(folder: Packed, data: DataRoot = Path("data"), board: Board = BOARD) -> None:
    """Recompute every integer and figure from the predictions: tier scored, where the submission is on the board."""
    _verify(folder, data, board, again=False, device="cpu")


@submit_app.command()
def reproduce(folder: Packed, data: DataRoot = Path("data"), board: Board = BOARD, device: Device = "auto") -> None:
    """Also make the predictions anew from the weights: tier reproduced, where the submission is on the board."""
    _verify(folder, data, board, again=True, device=device)


@submit_app.command()
def schema() -> None:
    """Print the JSON Schema of submission.json."""
    import json

    from .submission import submission_schema

    print(json.dumps(submission_schema(), indent=1, sort_keys=True))


@submit_app.command()
def withdraw(
    folder: Annotated[Path, typer.Argument(help="Any folder with its submission.json.")],
    reason: Annotated[str, typer.Option(help="Why; it is public.")],
    board: Board = BOARD,
) -> None:
    """Take a submission off the ranking; its record stays on the board."""
    from ..datasets.files import write_atomic
    from ..datasets.spec import canonical_json
    from ..errors import InputError
    from .submission import SUBMISSION_NAME, WITHDRAWN_NAME, make_withdrawn, read_submission

    submission = read_submission(folder / SUBMISSION_NAME)
    place = board / submission.folder
    if not (place / SUBMISSION_NAME).is_file():
        raise InputError("the submission is not on this board", where=place, hint="name its folder by --board")
    write_atomic(place / WITHDRAWN_NAME, canonical_json(make_withdrawn(submission, reason)))
    print(place / WITHDRAWN_NAME)


@submit_app.command()
def freeze(
    board: Board = BOARD,
    anew: Annotated[bool, typer.Option("--anew", help="Replace what is frozen already.")] = False,
) -> None:
    """Freeze the best trivial row of every table: the zero of its skill."""
    from .entries import load_entries
    from .skill import FROZEN_PATH, freeze

    for line in freeze(load_entries(board), anew=anew):
        print(line)
    print(FROZEN_PATH)


def _verify(folder: Path, data: Path, board: Path, again: bool, device: str) -> None:
    from ..datasets.files import write_atomic
    from ..datasets.spec import canonical_json
    from .score import score_submission
    from .submission import SUBMISSION_NAME, VERIFICATION_NAME, read_submission

    submission = read_submission(folder / SUBMISSION_NAME)
    verification = score_submission(folder, data, _others(board, submission), again=again, device=device)
    for run in verification.runs:
        for split, found in run.splits.items():
            line = f"seed {run.seed}, {split}: {_figure(found.headline)}, every integer and figure equal"
            if again:
                line += f"; made anew {_figure(found.again)}, {found.equal_share:.3%} of the predictions equal"
            print(line)
    place = board / submission.folder
    if not (place / SUBMISSION_NAME).is_file():
        print(f"would be {verification.tier}; it is not on this board, so nothing was written")
        return
    write_atomic(place / VERIFICATION_NAME, canonical_json(verification))
    print(f"{verification.tier}: {place / VERIFICATION_NAME}")


def _others(board: Path, submission: Submission) -> list[BoardEntry]:
    from .entries import load_entries

    return [entry for entry in load_entries(board) if entry.id != submission.id]


def _describe(submission: Submission) -> None:
    seeds, data = ", ".join(str(run.seed) for run in submission.runs), submission.dataset
    print(f"{submission.title} by {submission.team}")
    print(f"{submission.model.label} on {data.name} {data.version}, seeds {seeds}; id {submission.id}")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
