"""The form of ``submission.json``, ``verification.json`` and ``withdrawn.json``: strict models of bounded size.

``submission.json`` is what a submitter states, with the result records of every seed and split inside it. Beside it
maintainers put ``verification.json`` (which alone decides the tier) and, where one was taken back, ``withdrawn.json``;
both name the submission's id and fit no other.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from ..benchmark.records import DatasetRef, Harness, Result
from ..datasets.spec import Name, SafePath, Sha256, SplitName, Strict, Version

Tier = Literal["claimed", "scored", "reproduced"]
Seed = Annotated[int, Field(ge=0, le=2**32)]
Text = Annotated[str, Field(min_length=1, max_length=500)]
Contact = Annotated[str, Field(max_length=200, pattern=r"^([^@\s<>\"']+@[^@\s<>\"']+\.[A-Za-z]+|https://[^\s<>\"']+)$")]
Licence = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+() -]{0,99}$")]

_HUB = r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}@[0-9a-f]{40}"
_WEB = r"https://[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:\d{1,5})?(/[\w.~%!$&()*+,;=:@/-]*)?"


def _time(text: str) -> str:
    datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
    return text


Time = Annotated[str, Field(pattern=r"^20[0-9]{2}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z$"), AfterValidator(_time)]


def _place(text: str) -> str:
    if not re.fullmatch(f"{_HUB}|{_WEB}", text, re.ASCII) or ".." in text:
        raise ValueError("must be owner/name@<40 hex digits of a commit> on the Hugging Face hub, or an https:// URL")
    return text


Place = Annotated[str, Field(max_length=500), AfterValidator(_place)]


class FileRef(Strict):
    """One artefact: its path below the submission's folder, its size and its digest."""

    path: SafePath
    bytes: Annotated[int, Field(ge=1, le=2**53)]
    sha256: Sha256


class SubmittedDataset(Strict):
    """The data set version that everything in the submission is for."""

    name: Name
    version: Version
    content_sha256: Sha256


class SubmittedModel(Strict):
    """``name`` and ``arguments`` make a registry model; a foreign model has a name of its own and no weights here."""

    name: Name
    arguments: Annotated[dict[str, JsonValue], Field(max_length=100)] = {}
    label: Annotated[str, Field(min_length=1, max_length=100)]
    trained: bool


class SubmittedRun(Strict):
    """One seed: ``records`` and ``predictions`` by split; ``weights`` and ``config`` go together or are both absent."""

    seed: Seed
    weights: FileRef | None = None
    config: FileRef | None = None
    records: Annotated[dict[SplitName, Result], Field(min_length=1, max_length=8)]
    predictions: Annotated[dict[SplitName, FileRef], Field(min_length=1, max_length=8)]


class Submission(Strict):
    """``submission.json``; ``id`` is the sha256 of everything else.

    ``artifacts`` says where the files lie (nobody fetches them for the check); it may be missing until they are
    uploaded. ``supersedes`` names earlier submissions of the same team that this one replaces.
    """

    format: Literal["tidemark-submission"]
    schema_version: Annotated[str, Field(pattern=r"^\d{1,4}\.\d{1,4}$")]
    id: Sha256
    submitted: Time
    title: Annotated[str, Field(min_length=1, max_length=200)]
    team: Annotated[str, Field(min_length=1, max_length=100)]
    contact: Contact
    licence: Licence
    training_data: Annotated[tuple[Text, ...], Field(max_length=50)]
    dataset: SubmittedDataset
    model: SubmittedModel
    config_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")] | None = None
    artifacts: Place | None = None
    supersedes: Annotated[tuple[Sha256, ...], Field(max_length=20)] = ()
    note: Annotated[str, Field(max_length=2000)] = ""
    runs: Annotated[tuple[SubmittedRun, ...], Field(min_length=1, max_length=20)]

    @property
    def results(self) -> tuple[Result, ...]:
        """All records, seed by seed."""
        return tuple(record for run in self.runs for record in run.records.values())

    @property
    def files(self) -> dict[str, FileRef]:
        """Every artefact by the JSON pointer of its reference."""
        found: dict[str, FileRef] = {}
        for number, run in enumerate(self.runs):
            named = {"weights": run.weights, "config": run.config}
            named |= {f"predictions/{split}": file for split, file in run.predictions.items()}
            found |= {f"/runs/{number}/{key}": file for key, file in named.items() if file is not None}
        return found

    @property
    def folder(self) -> str:
        """Where it lies on the board: ``<dataset>/v<major>/<model>/<id>``."""
        major = self.dataset.version.partition(".")[0]
        return f"{self.dataset.name}/v{major}/{self.model.name}/{self.id}"


class VerifiedSplit(Strict):
    """One file of predictions: the digest of its answers (not of its bytes), and the headline recomputed from it.

    There is no digest where the answer is the same everywhere. ``again`` and ``equal_share`` are of the predictions
    made anew from the weights: their headline, and the share of pixels (patches, values) that came out equal.
    """

    prediction_content_sha256: Sha256 | None
    headline: float | None
    again: float | None = None
    equal_share: Annotated[float, Field(ge=0, le=1)] | None = None


class VerifiedRun(Strict):
    """One seed; ``weights_content_sha256`` is over the tensors alone, None without weights."""

    seed: Seed
    weights_content_sha256: Sha256 | None = None
    splits: Annotated[dict[SplitName, VerifiedSplit], Field(min_length=1, max_length=8)]


class Verification(Strict):
    """``verification.json``: which tier a submission has reached, by whose code and on which device."""

    format: Literal["tidemark-verification"]
    schema_version: Literal["1.0"]
    submission: Sha256
    tier: Literal["scored", "reproduced"]
    dataset: DatasetRef
    harness: Harness
    device: Annotated[str, Field(max_length=500)] = ""
    runs: Annotated[tuple[VerifiedRun, ...], Field(min_length=1, max_length=20)]


class Withdrawn(Strict):
    """``withdrawn.json``: the record stays, the ranking leaves it out."""

    format: Literal["tidemark-withdrawal"]
    schema_version: Literal["1.0"]
    submission: Sha256
    reason: Text
