"""The record of ``tidemark bench model|end-to-end|scene``: one model, one figure, a row for each precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, ValidationError

from ..datasets.files import write_atomic
from ..datasets.spec import Count, Name, Sha256, Strict, canonical_json, describe_validation
from ..errors import FormatError
from .record_parts import Harness, MetricKey, Positive, Speed, Words, small_json

MAX_BYTES = 4 << 20
PRECISIONS = ("fp32", "bf16")
# PROTOCOL: a precision counts only at this share of its own fp32 headline, or within so many dB of its PSNR.
GATE_SHARE = 0.99
GATE_PSNR_DB = 0.1


class Gate(Strict):
    """Whether a precision may count: its headline on a split beside that of the same weights in plain fp32."""

    metric: MetricKey
    dataset: Words
    split: Words
    fp32: float
    value: float

    @property
    def passed(self) -> bool:
        """At least 99 % of the fp32 headline; a PSNR at most 0.1 dB below."""
        if self.metric == "psnr":
            return self.value >= self.fp32 - GATE_PSNR_DB
        return self.value >= GATE_SHARE * self.fp32


class SpeedRow(Speed):
    """One precision, compiled or not; ``samples`` holds each process's chips per second.

    ``compile_s`` is the first call of the compiled model, with a cold cache, and is no part of the rates.
    """

    compiled: bool = False
    compile_s: Positive | None = None
    samples: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=1000)]
    gate: Gate | None = None

    @property
    def name(self) -> str:
        """``fp32``, ``bf16``, ``fp32 compiled``, …"""
        return f"{self.precision} compiled" if self.compiled else self.precision


class Timed(Strict):
    """How long was timed in each process: iterations and seconds; both for the warm-up, either for the rest."""

    warm_up: tuple[Count, float]
    timed: tuple[Count, float]
    turns: Annotated[int, Field(ge=1, le=1000)]


class SpeedRecord(Strict):
    """``tidemark bench``'s JSON. ``weights_sha256`` None: random weights, which cost the same time as trained ones.

    ``chip`` is bands, height and width of the network's image; ``target`` those of the reflectance that is answered on
    a grid of its own (the panchromatic band is a second input then), None for classes.
    """

    schema_version: Literal["1.0"] = "1.0"
    kind: Literal["model", "end-to-end", "scene"]
    quick: bool
    model: Name
    arguments: Annotated[dict[Words, JsonValue], AfterValidator(small_json)] = {}
    weights_sha256: Sha256 | None
    data: Words
    chip: Annotated[tuple[Count, ...], Field(min_length=3, max_length=3)]
    target: Annotated[tuple[Count, ...], Field(min_length=3, max_length=3)] | None = None
    cache: Words | None = None
    timing: Timed
    rows: Annotated[tuple[SpeedRow, ...], Field(min_length=1, max_length=16)]
    left_out: Annotated[dict[Words, Words], Field(max_length=16)] = {}
    harness: Harness
    packages: Annotated[dict[Words, Words], Field(max_length=100)] = {}
    command: Annotated[str, Field(max_length=4000)] = ""


def write_speed_record(path: str | Path, record: SpeedRecord) -> None:
    """Write a record atomically as canonical JSON."""
    write_atomic(path, canonical_json(record))


def read_speed_record(path: str | Path) -> SpeedRecord:
    """Read a record. Raises FormatError with the JSON pointer of the first fault."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FormatError(f"cannot read the record ({error.strerror})", where=path, hint="run tidemark bench") from None
    if len(data) > MAX_BYTES:
        raise FormatError(f"over the limit of {MAX_BYTES} bytes for a record", where=path)
    try:
        raw: Any = json.loads(data)
        return SpeedRecord.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise FormatError(describe_validation(error), where=path) from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not valid JSON ({error})", where=path) from None
