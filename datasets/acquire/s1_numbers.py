"""Which passes over which area a scene number stands for, kept beside the scenes so that a later run adds to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from shapely.geometry.base import BaseGeometry

from ...errors import FormatError
from ..files import write_atomic
from ..spec import Strict
from .s1 import Pass

NAME = "s1_scenes.json"


class Entry(Strict):
    """One scene: its area (west, south, east, north in degrees) and the archive's names of its slices by orbit."""

    number: Annotated[int, Field(ge=1, le=9999)]
    area: tuple[float, float, float, float]
    ascending: tuple[str, ...] = ()
    descending: tuple[str, ...] = ()


class Listing(Strict):
    """The file ``s1_scenes.json``."""

    scenes: tuple[Entry, ...] = ()


def numbered(out: Path, scenes: Sequence[dict[str, Pass]], area: BaseGeometry, first: int) -> tuple[list[int], Listing]:
    """A number for each scene, the one that it has already or the next free one from ``first`` on, and all entries.

    Raises FormatError where ``s1_scenes.json`` is not what this module writes.
    """
    path = out / NAME
    try:
        known = Listing.model_validate_json(path.read_bytes()) if path.is_file() else Listing()
    except (ValidationError, ValueError) as error:
        raise FormatError(
            f"not a list of scenes ({str(error).splitlines()[0][:200]})", where=path, hint="move it away"
        ) from None
    entries = {_key(entry): entry for entry in known.scenes}
    taken = {entry.number for entry in known.scenes}
    numbers = []
    for scene in scenes:
        slices = {orbit: tuple(s.id for s in p.slices) for orbit, p in scene.items()}
        entry = Entry(number=first, area=tuple(round(v, 6) for v in area.bounds), **slices)
        if _key(entry) not in entries:
            number = next(n for n in range(first, 10_000) if n not in taken)
            taken.add(number)
            entries[_key(entry)] = entry.model_copy(update={"number": number})
        numbers.append(entries[_key(entry)].number)
    return numbers, Listing(scenes=tuple(sorted(entries.values(), key=lambda e: e.number)))


def _key(entry: Entry) -> tuple:
    return entry.area, entry.ascending, entry.descending


def write(out: Path, listing: Listing) -> None:
    """Write ``s1_scenes.json``."""
    write_atomic(out / NAME, json.dumps(listing.model_dump(mode="json"), indent=1) + "\n")
