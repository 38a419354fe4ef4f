"""What the networks themselves cost: records of ``tidemark bench model``, listed on the page and set against scores.

A record stands for every row of the same model and arguments. What is drawn and sorted by is the ratio to the reference
U-Net, which is measured in turns in the same processes and so does not feel what else the machine does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..benchmark.record_parts import ModelRef
from ..benchmark.speed_record import SpeedRecord, SpeedRow, read_speed_record
from ..errors import FormatError, InputError

MAX_RECORDS = 1000
STARTING_VALUES = frozenset({"encoder_weights"})  # arguments that cost nothing


@dataclass(frozen=True)
class Network:
    """One row of one record: a model with its arguments on one class of devices."""

    record: SpeedRecord
    row: SpeedRow

    @property
    def label(self) -> str:
        """Model and arguments in words."""
        arguments = (f"{key} {_plain(value)}" for key, value in sorted(self.record.arguments.items()))
        return ", ".join([self.record.model, *arguments])

    @property
    def ratio(self) -> float:
        """Rate over that of the reference U-Net."""
        return self.row.reference_ratio.median

    @property
    def place(self) -> str:
        """What its rate may be compared within: device, threads, precision, and the chips."""
        row, (bands, height, width), target = self.row, self.record.chip, self.record.target
        threads = f"{row.threads} thread{'s' if row.threads > 1 else ''}"
        chips = f"{bands} bands of {height} × {width} pixels"
        if target:
            chips += f" and the panchromatic one to {target[0]} of {target[1]} × {target[2]}"
        return f"{row.device}, {threads}, {row.name}, {chips}"

    def is_of(self, model: ModelRef) -> bool:
        """Whether a row of a table has this network."""
        return model.name == self.record.model and _cost(model.arguments) == _cost(self.record.arguments)


def load_networks(folder: str | Path) -> list[Network]:
    """All fp32 rows of the records in a folder that have a reference, by place and then the fastest first.

    Raises:
        InputError: no such folder, or too many files.
        FormatError: a file that is no record of ``bench model``, or a quick one, which measures nothing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("no folder of speed records here", where=folder, hint="tidemark bench model NAME --out FILE")
    paths = sorted(folder.glob("*.json"))
    if len(paths) > MAX_RECORDS:
        raise InputError(f"{len(paths)} records, over the limit of {MAX_RECORDS}", where=folder)
    found = []
    for path in paths:
        record = read_speed_record(path)
        if record.kind != "model" or record.quick:
            what = "a quick record, which measures nothing" if record.quick else f"a record of bench {record.kind}"
            raise FormatError(what, where=path, hint="tidemark bench model NAME --out FILE")
        found += [Network(record, row) for row in record.rows if row.precision == "fp32" and row.reference_ratio]
    return sorted(found, key=lambda n: (n.place, -n.ratio, n.label))


def by_place(networks: Iterable[Network]) -> list[tuple[str, list[Network]]]:
    """Networks in groups whose rates may be compared."""
    groups: dict[str, list[Network]] = {}
    for network in networks:
        groups.setdefault(network.place, []).append(network)
    return list(groups.items())


def matched(networks: Sequence[Network], models: Sequence[ModelRef]) -> list[tuple[str, list[tuple[int, Network]]]]:
    """By place, the numbers of the models that have a network there; only places with two and more."""
    found = []
    for place, members in by_place(networks):
        pairs = [(i, n) for i, model in enumerate(models) for n in members if model.trained and n.is_of(model)]
        if len({i for i, _ in pairs}) > 1:
            found.append((place, pairs))
    return found


def _cost(arguments: dict) -> dict:
    return {key: value for key, value in arguments.items() if key not in STARTING_VALUES}


def _plain(value: object) -> str:
    return "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
