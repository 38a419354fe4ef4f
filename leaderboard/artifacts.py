"""The artefacts of a submission on disk: only the files that it names, as it names them, and readable as what they are.

Nothing here is executed: weights are safetensors of a registry model, predictions are guarded HDF5, the rest is JSON.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..datasets.files import sha256_file
from ..datasets.reader import open_split
from ..datasets.spec import MANIFEST_NAME, load_manifest
from ..errors import FormatError, InputError
from ..models.fetch import PICKLES, WEIGHTS_NAME, pickle_refused
from ..models.predictions import NODATA, Predictions
from .schema import Submission
from .submission import SUBMISSION_NAME, read_submission

MAX_FOLDER_BYTES = 50 << 30
MAX_ENTRIES = 1000


def check_folder(folder: str | Path, data_root: str | Path | None = None) -> Submission:
    """Check a packed submission: statement, file names, sizes, hashes, weights and predictions.

    Args:
        folder: as ``pack`` makes it.
        data_root: folder of all data sets; None: chips are counted but not compared with the data set's.

    Raises:
        FormatError: the first fault, with its file or JSON pointer.
        WeightsError: weights that cannot be loaded, or that are of another model.
        InputError: the data set is not below ``data_root``.
    """
    folder = Path(folder)
    found = _walk(folder)
    if SUBMISSION_NAME not in found:
        raise FormatError(f"no {SUBMISSION_NAME} here", where=folder, hint="make it with `tidemark submit pack`")
    submission = read_submission(folder / SUBMISSION_NAME)
    _check_files(folder, submission, found)
    source = None if data_root is None else data_folder(submission, data_root)
    for number, run in enumerate(submission.runs):
        if run.weights is not None:
            _check_weights((folder / run.weights.path).parent, submission, number)
        for split, file in run.predictions.items():
            _check_predictions(folder / file.path, submission, split, run.records[split].chips, source)
    return submission


def data_folder(submission: Submission, data_root: str | Path) -> Path:
    """The version folder of the submission's data set.

    Raises:
        InputError: it is not there.
        FormatError: other data under the same name and version.
    """
    data = submission.dataset
    folder = Path(data_root) / data.name / data.version
    if not (folder / MANIFEST_NAME).is_file():
        raise InputError(
            "the data set is not there", where=folder, hint=f"build or pull {data.name} {data.version}, or name --data"
        )
    content = load_manifest(folder).content_sha256
    if content != data.content_sha256:
        raise FormatError(
            f"/dataset/content_sha256: {data.name} {data.version} has {content[:16]}…, the submission states "
            f"{data.content_sha256[:16]}…",
            where=folder,
            hint="results on other data do not belong in this table",
        )
    return folder


def prediction_content(predictions: Predictions) -> str | None:
    """sha256 over the chips and the answers given, whatever the file's bytes: chips in sorted order.

    Two models that give one answer everywhere are no copies of each other: then there is no digest.
    """
    digest, answers = hashlib.sha256(), set()
    for chip_id in sorted(predictions.chip_ids):
        array = np.ascontiguousarray(predictions.read(chip_id)[0])
        digest.update(f"{chip_id} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array)
        if len(answers) < 2:
            answers.update(
                np.unique(array[~np.isnan(array)] if array.dtype.kind == "f" else array[array != NODATA]).tolist()
            )
    return digest.hexdigest() if len(answers) > 1 else None


def weights_content(path: Path) -> str:
    """sha256 over the tensors of a safetensors file by name, whatever else its header says."""
    import torch
    from safetensors.torch import load_file

    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(path, device="cpu").items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _walk(folder: Path) -> dict[str, int]:
    """Sizes of all files below a folder by relative path. Raises FormatError for links and other oddities."""
    if folder.is_symlink() or not folder.is_dir():
        raise FormatError("is not a folder", where=folder, hint="give the folder that `tidemark submit pack` made")
    found = dict(_files(folder, ""))
    total = sum(found.values())
    if total > MAX_FOLDER_BYTES:
        raise FormatError(f"{total} bytes, over the limit of {MAX_FOLDER_BYTES}", where=folder)
    return found


def _files(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for count, entry in enumerate(sorted(entries, key=lambda e: e.name)):
            name, status = f"{prefix}{entry.name}", entry.stat(follow_symlinks=False)
            if count >= MAX_ENTRIES or name.count("/") > 4:
                raise FormatError("more files or deeper folders than any submission has", where=folder)
            if stat.S_ISDIR(status.st_mode):
                yield from _files(folder / entry.name, f"{name}/")
            elif stat.S_ISREG(status.st_mode):
                yield name, status.st_size
            else:
                kind = "a link" if stat.S_ISLNK(status.st_mode) else "no regular file"
                raise FormatError(f"is {kind}", where=folder / entry.name, hint="put the file itself there")


def _check_files(folder: Path, submission: Submission, found: dict[str, int]) -> None:
    files = {file.path: (pointer, file) for pointer, file in submission.files.items()}
    for name in sorted(found.keys() - files.keys() - {SUBMISSION_NAME}):
        if Path(name).suffix in PICKLES:
            raise pickle_refused(folder / name)
        raise FormatError("a file that the submission does not name", where=folder / name, hint="take it out")
    for name, (pointer, file) in files.items():
        if name not in found:
            raise FormatError(f"{pointer}: the file is missing", where=folder / name)
        if found[name] != file.bytes:
            raise FormatError(f"{pointer}/bytes: expected {file.bytes}, found {found[name]}", where=folder / name)
        if (digest := sha256_file(folder / name)) != file.sha256:
            raise FormatError(
                f"{pointer}/sha256: expected {file.sha256[:16]}…, found {digest[:16]}…",
                where=folder / name,
                hint="the file was changed after packing",
            )


def _check_weights(folder: Path, submission: Submission, number: int) -> None:
    from ..models.weights import STARTING_ARGS, from_pretrained

    pretrained, record = from_pretrained(folder), next(iter(submission.runs[number].records.values()))
    arguments = {key: value for key, value in submission.model.arguments.items() if key not in STARTING_ARGS}
    stated = {
        "model": (submission.model.name, pretrained.name),
        "arguments": (arguments, pretrained.args),
        "parameters": (record.model.parameters, sum(p.numel() for p in pretrained.model.parameters())),
    }
    for key, (expected, found) in stated.items():
        if expected != found:
            raise FormatError(
                f"/runs/{number}/weights: another {key.rstrip('s')}: expected {expected}, found {found}"[:400],
                where=folder / WEIGHTS_NAME,
            )


def _check_predictions(path: Path, submission: Submission, split: str, chips: int, source: Path | None) -> None:
    predictions, data = Predictions(path), submission.dataset
    stated = {
        "data set": (data.name, predictions.dataset),
        "data set version": (data.version, predictions.version),
        "content_sha256": (data.content_sha256, predictions.content_sha256),
        "split": (split, predictions.split),
    }
    for what, (expected, found) in stated.items():
        if expected != found:
            raise FormatError(f"predictions for another {what}: expected {expected}, found {found}", where=path)
    if len(predictions.chip_ids) != chips:
        raise FormatError(f"{len(predictions.chip_ids)} chips, its record has {chips}", where=path)
    if source is not None:
        manifest, shards = open_split(source, split)
        predictions.check(manifest, split, [chip for shard in shards for chip in shard.chip_ids])
