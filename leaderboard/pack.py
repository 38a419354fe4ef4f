"""From finished runs to a folder that can be submitted: ``submission.json`` and the artefacts that it names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..benchmark.records import RESULT_NAME, Result, read_result
from ..datasets.files import sha256_file, storage_error
from ..datasets.spec import load_manifest
from ..errors import FormatError, InputError
from ..models.fetch import CONFIG_NAME, WEIGHTS_NAME
from ..models.predictions import PREDICTIONS_NAME
from ..models.runs import RunInfo, read_run
from .artifacts import check_folder
from .schema import FileRef, Submission
from .submission import SPLITS, SUBMISSION_NAME, make_submission, read_submission, write_submission


def pack(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    title: str,
    team: str,
    contact: str,
    licence: str,
    training_data: Sequence[str] = (),
    artifacts: str | None = None,
    supersedes: Sequence[str] = (),
    note: str = "",
) -> Submission:
    """Collect runs of one configuration, one per seed, into a new folder.

    Args:
        runs: run folders, each scored on ``val`` and ``test`` (``<run>/<split>/result.json`` and its predictions), or
            on the one of them that its data set has.
        out: the folder to make; it appears whole or not at all.
        title, team, contact, licence, training_data, artifacts, supersedes, note: see ``schema.Submission``.

    Returns:
        what was written as ``<out>/submission.json``; ``out`` has passed ``check_folder``.

    Raises:
        FormatError: a run that is not scored, runs of different configurations, or a statement that is not acceptable.
        InputError: ``out`` is there already.
        StorageError: the disk refuses.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("is there already", where=out, hint="give a new folder")
    found = sorted(((Path(run), *_read(Path(run))) for run in runs), key=lambda run: run[1].seed)
    if not found:
        raise InputError("no runs to pack", hint="give the folders that `tidemark train` printed")
    _one_configuration(found)
    temporary = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    try:
        submission = make_submission(
            submitted=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            title=title,
            team=team,
            contact=contact,
            licence=licence,
            training_data=list(training_data),
            **_shared(_any(found[0][2])),
            artifacts=artifacts,
            supersedes=list(supersedes),
            note=note,
            runs=[_copy(*run, temporary) for run in found],
        )
        write_submission(temporary / SUBMISSION_NAME, submission)
        check_folder(temporary)
        if out.exists():
            out.rmdir()
        os.replace(temporary, out)
    except OSError as error:
        raise storage_error(error, out) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return submission


def locate(folder: str | Path, artifacts: str) -> Submission:
    """State where the artefacts of a packed folder lie; its ``submission.json`` gets a new id.

    Raises:
        FormatError: no place that can be cited (see ``schema.Submission.artifacts``), or no submission there.
    """
    path = Path(folder) / SUBMISSION_NAME
    fields = {name: getattr(old, name) for old in [read_submission(path)] for name in type(old).model_fields}
    del fields["id"]
    submission = make_submission(**{**fields, "artifacts": artifacts})
    write_submission(path, submission)
    return submission


def _read(run: Path) -> tuple[RunInfo, dict[str, Result]]:
    """A run and its records by split, each of the predictions that lie beside it."""
    info, results = read_run(run), {}
    if info.seed is None:
        raise FormatError("states no seed", where=run, hint="give each run a seed of its own")
    for split in _splits(info):
        path = run / split / RESULT_NAME
        if not path.is_file():
            raise FormatError(f"not scored on {split}", where=run, hint=f"tidemark evaluate {run} --split {split}")
        results[split] = read_result(path)
        predictions = path.with_name(PREDICTIONS_NAME)
        if not predictions.is_file() or sha256_file(predictions) != results[split].predictions_sha256:
            again = f"tidemark evaluate {run} --split {split}"
            raise FormatError("the predictions are not those that were scored", where=predictions, hint=again)
    return info, results


def _splits(info: RunInfo) -> list[str]:
    """Those of val and test that the run's data set has; both where it does not lie here any more."""
    try:
        manifest = load_manifest(info.dataset.folder)
    except FormatError:
        return list(SPLITS)
    return [split.name for split in manifest.splits if split.name in SPLITS and split.chips] or list(SPLITS)


def _any(results: dict[str, Result]) -> Result:
    return next(iter(results.values()))


def _shared(result: Result) -> dict[str, Any]:
    """What the seeds of one configuration have in common."""
    return {
        "dataset": result.dataset.model_dump(include={"name", "version", "content_sha256"}),
        "model": result.model.model_dump(include={"name", "arguments", "label", "trained"}),
        "config_hash": result.config_hash,
    }


def _one_configuration(found: Sequence[tuple[Path, RunInfo, dict[str, Result]]]) -> None:
    first = _shared(_any(found[0][2]))
    for path, _, results in found[1:]:
        for key, value in _shared(_any(results)).items():
            if value != first[key]:
                raise FormatError(
                    f"its {key.replace('_', ' ')} is not that of {found[0][0]}",
                    where=path,
                    hint="a submission holds the seeds of one configuration",
                )


def _copy(run: Path, info: RunInfo, results: dict[str, Result], out: Path) -> dict[str, Any]:
    """Copy one run's artefacts below ``out`` and describe them."""
    folder = f"seed{info.seed}"
    fields: dict[str, Any] = {"seed": info.seed, "records": results, "predictions": {}}
    if info.weights_sha256 is not None:
        fields["weights"] = _file(run / "weights" / WEIGHTS_NAME, out, f"{folder}/{WEIGHTS_NAME}")
        fields["config"] = _file(run / "weights" / CONFIG_NAME, out, f"{folder}/{CONFIG_NAME}")
    for split in results:
        name = f"{folder}/{split}/{PREDICTIONS_NAME}"
        fields["predictions"][split] = _file(run / split / PREDICTIONS_NAME, out, name)
    return fields


def _file(source: Path, out: Path, name: str) -> FileRef:
    if not source.is_file():
        raise FormatError("the file is missing", where=source, hint="train or evaluate the run again")
    target = out / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copyfile(source, target)
    return FileRef(path=name, bytes=target.stat().st_size, sha256=sha256_file(target))
