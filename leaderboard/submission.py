"""Read, make and write ``submission.json``, and what lies beside it on the board.

It comes from strangers: sizes are bounded, ids are content hashes, and every fault is named by its JSON pointer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from ..benchmark import records
from ..datasets.files import write_atomic
from ..datasets.spec import Strict, canonical_json, describe_validation
from ..errors import FormatError
from .schema import Submission, Verification, Withdrawn

SUBMISSION_NAME, VERIFICATION_NAME, WITHDRAWN_NAME = "submission.json", "verification.json", "withdrawn.json"
SCHEMA_VERSION = (1, 0)
MAX_SUBMISSION_BYTES = 8 << 20
MAX_NOTE_BYTES = 1 << 20  # verification.json, withdrawn.json
MAX_DEPTH = 32
MIN_SEEDS = 3
SPLITS = ("val", "test")
HOUSE = "Tidemark"

Form = TypeVar("Form", bound=Strict)
Fault = Callable[..., FormatError]


def submission_id(submission: Submission) -> str:
    """sha256 of the canonical JSON of all fields but ``id`` that differ from their default; records by their ids."""
    plain = submission.model_dump(mode="json", exclude={"id": True, "runs": {"__all__": {"records"}}})
    plain = {key: value for key, value in plain.items() if key not in _DEFAULTS or value != _DEFAULTS[key]}
    for run, submitted in zip(plain["runs"], submission.runs, strict=True):
        run["records"] = {split: record.id for split, record in submitted.records.items()}
    return hashlib.sha256(canonical_json(plain)).hexdigest()


_DEFAULTS = {"config_hash": None, "artifacts": None, "supersedes": [], "note": ""}


def make_submission(**fields: Any) -> Submission:
    """A submission with its id computed. Raises FormatError with the JSON pointer of the first fault."""
    version = ".".join(map(str, SCHEMA_VERSION))
    head = {"format": "tidemark-submission", "schema_version": version, "id": "0" * 64}
    draft = _validated(Submission, json.loads(canonical_json(_plain({**head, **fields}))), "submission")
    made = draft.model_copy(update={"id": submission_id(draft)})
    check_consistent(made, "submission")
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, Strict):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def write_submission(path: str | Path, submission: Submission) -> None:
    """Write a submission atomically as canonical JSON."""
    write_atomic(path, canonical_json(submission))


def read_submission(path: str | Path) -> Submission:
    """Read and check a submission (schema, id, and that its parts fit together).

    Raises:
        FormatError: the JSON pointer of the first fault.
    """
    return parse_submission(_read(path, MAX_SUBMISSION_BYTES), where=path)


def parse_submission(data: bytes, where: object = None) -> Submission:
    """The same from bytes."""
    raw = parse_json(data, MAX_SUBMISSION_BYTES, where)
    version = str(raw.get("schema_version", ""))[:16] if isinstance(raw, dict) else ""
    major, _, minor = version.partition(".")
    if major.isdecimal() and minor.isdecimal() and (int(major), int(minor)) > SCHEMA_VERSION:
        needs = f"written by a newer version: needs schema >= {version}, this one reads {SCHEMA_VERSION[0]}.x"
        raise FormatError(needs, where=where, hint="upgrade tidemark")
    submission = _validated(Submission, raw, where)
    for number, run in enumerate(submission.runs):
        for split in run.records:
            _check_record(raw["runs"][number]["records"][split], f"/runs/{number}/records/{split}", where)
    if submission.id != (found := submission_id(submission)):
        raise FormatError(
            f"/id: the content has the id {found[:16]}…, stated is {submission.id[:16]}…",
            where=where,
            hint="the submission was edited after packing; pack it again",
        )
    check_consistent(submission, where)
    return submission


def _check_record(raw: Any, pointer: str, where: object) -> None:
    """A record by itself, its id above all, with the pointer to its place in the submission."""
    try:
        records.parse_result(raw)
    except FormatError as error:
        inner = error.what if error.what.startswith("/") else f": {error.what}"
        raise FormatError(f"{pointer}{inner}", where=where, hint=error.hint) from None


def read_verification(path: str | Path, submission: Submission) -> Verification:
    """The verification beside a submission. Raises FormatError when it is of another one."""
    return _note(Verification, path, submission)


def read_withdrawn(path: str | Path, submission: Submission) -> Withdrawn:
    """The withdrawal beside a submission. Raises FormatError when it is of another one."""
    return _note(Withdrawn, path, submission)


def make_withdrawn(submission: Submission, reason: str) -> Withdrawn:
    """The note that takes a submission off the ranking. Raises FormatError for an empty or too long reason."""
    head = {"format": "tidemark-withdrawal", "schema_version": "1.0"}
    return _validated(Withdrawn, {**head, "submission": submission.id, "reason": reason}, "withdrawn")


def _note(kind: type[Form], path: str | Path, submission: Submission) -> Form:
    note = _validated(kind, parse_json(_read(path, MAX_NOTE_BYTES), MAX_NOTE_BYTES, path), path)
    if note.submission != submission.id:
        raise FormatError(
            f"/submission: is of {note.submission[:16]}…, beside it lies {submission.id[:16]}…",
            where=path,
            hint="it counts for the submission that it was written for, no other",
        )
    return note


def check_consistent(submission: Submission, where: object = None) -> None:
    """Refuse a submission whose parts contradict each other; each fault has its JSON pointer."""

    def fault(pointer: str, what: str, hint: str | None = None) -> FormatError:
        return FormatError(f"{pointer}: {what}", where=where, hint=hint)

    model, data = submission.model, submission.dataset
    if not model.trained and any(run.weights for run in submission.runs):
        raise fault("/model/trained", "false, but there are weights", "a model with weights is a trained one")
    seeds = [run.seed for run in submission.runs]
    for number, seed in enumerate(seeds):
        if seed in seeds[:number]:
            raise fault(f"/runs/{number}/seed", f"seed {seed} is repeated", "each seed is one run of its own")
    if model.trained and len(seeds) < MIN_SEEDS:
        raise fault(
            "/runs", f"{len(seeds)} seeds of a trained model, at least {MIN_SEEDS} are needed", "train more seeds"
        )
    if model.trained and not submission.training_data:
        raise fault("/training_data", "a trained model must declare its training data")
    for number, run in enumerate(submission.runs):
        at = f"/runs/{number}"
        splits = submission.runs[0].records.keys()
        if run.records.keys() != splits or run.predictions.keys() != splits or not splits & set(SPLITS):
            raise fault(
                f"{at}/records", f"needs records and predictions of {' and '.join(SPLITS)}, alike for all seeds"
            )
        if (run.weights is None) != (run.config is None):
            raise fault(f"{at}/config", "weights and config.json go together")
        for split, record in run.records.items():
            stated = {
                "dataset/name": (data.name, record.dataset.name),
                "dataset/version": (data.version, record.dataset.version),
                "dataset/content_sha256": (data.content_sha256, record.dataset.content_sha256),
                "dataset/split": (split, record.dataset.split),
                "model/name": (model.name, record.model.name),
                "model/arguments": (model.arguments, record.model.arguments),
                "model/label": (model.label, record.model.label),
                "model/trained": (model.trained, record.model.trained),
                "model/weights_sha256": (run.weights and run.weights.sha256, record.model.weights_sha256),
                "seed": (run.seed, record.seed),
                "config_hash": (submission.config_hash, record.config_hash),
                "predictions_sha256": (run.predictions[split].sha256, record.predictions_sha256),
            }
            for key, (expected, found) in stated.items():
                if expected != found:
                    what = f"expected {_short(expected)}, found {_short(found)}"
                    raise fault(
                        f"{at}/records/{split}/{key}", what, "all records are of one configuration and its files"
                    )
    for pointer, file in submission.files.items():
        if file.path != (expected := artifact_path(pointer, seeds)):
            raise fault(f"{pointer}/path", f"expected {expected}, found {file.path[:100]}")
    if model.trained:
        _refuse_repeated(submission, fault)


def _refuse_repeated(submission: Submission, fault: Fault) -> None:
    """A trained model gives other weights and other predictions for every seed."""
    seen: dict[tuple[str, str], int] = {}
    for pointer, file in submission.files.items():
        number, what = int(pointer.split("/")[2]), pointer.split("/", 3)[3]
        first = seen.setdefault((what, file.sha256), number)
        if first != number and what != "config":
            seeds = [submission.runs[n].seed for n in (first, number)]
            raise fault(
                f"{pointer}/sha256",
                f"seed {seeds[1]} has the same {what.replace('/', ' of ')} as seed {seeds[0]}",
                "a seed is repeated under another number",
            )


def artifact_path(pointer: str, seeds: Sequence[int]) -> str:
    """Where an artefact must lie: ``seed0/model.safetensors``, ``seed0/config.json``, ``seed0/val/predictions.h5``."""
    _, _, number, what, *split = pointer.split("/")
    folder = f"seed{seeds[int(number)]}"
    names = {"weights": "model.safetensors", "config": "config.json"}
    return f"{folder}/{split[0]}/predictions.h5" if split else f"{folder}/{names[what]}"


def parse_json(data: bytes, limit: int, where: object = None) -> Any:
    """JSON without NaN, infinities, repeated keys, lone surrogates, deep nesting or more than ``limit`` bytes."""
    if len(data) > limit:
        raise FormatError(f"{len(data)} bytes or more, over the limit of {limit}", where=where)
    try:
        raw = json.loads(data, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_once)
        json.dumps(raw, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not valid JSON ({error})"[:300], where=where) from None
    if (depth := _depth(raw)) > MAX_DEPTH:
        raise FormatError(f"nested {depth} levels deep, over the limit of {MAX_DEPTH}", where=where)
    return raw


def submission_schema() -> dict[str, Any]:
    """JSON Schema of ``submission.json``."""
    return Submission.model_json_schema()


def _validated(kind: type[Form], raw: Any, where: object) -> Form:
    try:
        return kind.model_validate_json(json.dumps(raw), strict=True)  # "1" is no integer, true is no number
    except ValidationError as error:
        raise FormatError(describe_validation(error)[:500], where=where) from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not acceptable ({error})"[:300], where=where) from None


def _read(path: str | Path, limit: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise FormatError(f"cannot be read ({error.strerror})", where=path, hint="run tidemark submit pack") from None


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is not finite")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        repeated = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the key {repeated[:80]!r} repeats")
    return found


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            item
            for node in level
            if isinstance(node, dict | list)
            for item in (node.values() if isinstance(node, dict) else node)
        ]
    return depth


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
