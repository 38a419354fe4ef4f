"""PALSAR granules with the DSWE of the nearest date that will do, and the files that they need.

The folder becomes what the ``alos-dswe`` builder reads: ``alos/AP_…/``, ``dswe/L…_DSWE/``, ``gfc/``, ``hand/``.
"""

from __future__ import annotations

import csv
import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
import shapely

from ...errors import ArchiveError, InputError, TidemarkError
from ..dswe import MAX_DAYS
from . import dswe, stac, tiles
from .asf import GRANULE, Granule
from .hosts import Services
from .items import Item
from .pair_rule import Choice, choose
from .ranges import open_remote
from .report import Decision
from .session import LoginError
from .stac import Scene

UNREAD = "not looked at"
MAX_LIST_BYTES = 64 << 20
_TILE = re.compile(r"L[TEC]0[45789]_CU_\d{6}_\d{8}_\d{8}_\d{2}")


@dataclass(frozen=True)
class Pair:
    """A granule, the DSWE scenes that are to be mosaicked under it, and how it was decided."""

    granule: Granule
    scenes: tuple[Scene, ...]
    choice: Choice | None  # None: taken from a list, without looking
    reason: str = ""

    @property
    def accepted(self) -> bool:
        """Whether its files are to be fetched."""
        return not self.reason

    @property
    def unread(self) -> bool:
        """Whether the archive failed, so that another run may decide."""
        return self.reason.startswith(UNREAD)

    @property
    def decision(self) -> Decision:
        """Its line in the report; ``granule`` and ``tiles`` of it make a list for ``--from-list``."""
        shown = self.choice.measured if self.choice else None
        valid, water = shown.shares if shown else (None, None)
        names = {
            "granule": self.granule.name,
            "date": self.granule.time.date().isoformat(),
            "dswe_date": self.choice.date.isoformat() if self.choice and self.choice.date else None,
            "tiles": " ".join(tile_name(scene) for scene in self.scenes),
            "cloud_share": shown.cloud if shown else None,
            "valid_share": valid,
            "water_share": water,
        }
        return Decision(names, self.accepted, self.reason, self.granule.footprint, self.granule.bytes)


def tile_name(scene: Scene) -> str:
    """``LE07_CU_018010_20070710_20210502_02``."""
    return dswe.file_name(scene)["tile"]


def decide(
    granules: Sequence[Granule],
    services: Services,
    session: requests.Session,
    progress: Callable[[int, int, str], None] | None = None,
    open_tile: dswe.Opener | None = None,
) -> tuple[list[Pair], list[str]]:
    """Look for the DSWE of each granule and apply the pair rule, from windows of the archive's files.

    Args:
        granules: of ``asf.search``.
        services: the archives.
        session: of ``open_session``.
        progress: called with granules done, all, and the next one's name.
        open_tile: instead of range requests through ``session``.

    Returns:
        A pair, taken or refused, for every granule, and a line for every malformed item of the catalogue.

    Raises:
        LoginError: the archive's files ask for a login; nothing could be decided.
        ArchiveError: the catalogue does not answer.
    """
    pairs, malformed = [], []
    open_tile = open_tile or (lambda url: open_remote(url, session))
    for number, granule in enumerate(granules):
        if progress is not None:
            progress(number, len(granules), granule.name)
        dates, bad = _scenes(granule, services, session)
        malformed += bad
        try:
            choice = choose(
                granule.time.date(), dates, lambda some, g=granule: dswe.measure(some, g.footprint, open_tile)
            )
        except LoginError:
            raise
        except TidemarkError as error:  # one unreadable tile costs one granule
            failed = isinstance(error, ArchiveError)
            pairs.append(Pair(granule, (), None, f"{UNREAD if failed else 'DSWE cannot be read'}: {error}"))
            continue
        pairs.append(Pair(granule, choice.tiles, choice, choice.reason))
    return pairs, malformed


def from_list(
    listed: Mapping[str, Sequence[str]], granules: Sequence[Granule], services: Services, session: requests.Session
) -> tuple[list[Pair], list[str]]:
    """The pairs of a list as they stand there, without the pair rule; what the archives lack is refused."""
    known = {granule.name: granule for granule in granules}
    pairs, malformed = [], [f"{name}: not in ASF's catalogue" for name in listed if name not in known]
    for name, wanted in listed.items():
        if name not in known:
            continue
        dates, bad = _scenes(known[name], services, session)
        malformed += bad
        found = {tile_name(scene): scene for scenes in dates.values() for scene in scenes}
        missing = [tile for tile in wanted if tile not in found]
        reason = f"not in the USGS catalogue: {' '.join(missing)}" if missing else ""
        pairs.append(Pair(known[name], tuple(found[t] for t in wanted if t in found), None, reason))
    return pairs, malformed


def read_list(path: Path) -> dict[str, list[str]]:
    """Granule -> names of DSWE tiles from a CSV with the columns ``granule`` and ``tiles`` (separated by spaces).

    Where there is a column ``accepted``, only rows with ``yes`` count: the report of a run is such a list.

    Raises:
        InputError: no such file, a missing column, or a name that is none; with the line.
    """
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise InputError(f"over {MAX_LIST_BYTES} bytes", where=path)
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not a readable CSV ({error})", where=path) from None
    listed: dict[str, list[str]] = {}
    for line, row in enumerate(rows, 2):
        if not {"granule", "tiles"} <= set(row):
            raise InputError("needs the columns granule and tiles", where=path)
        if (row.get("accepted") or "yes") != "yes":
            continue
        granule, names = (row["granule"] or "").strip(), (row["tiles"] or "").split()
        bad = next((name for name in names if not _TILE.fullmatch(name)), None)
        if not GRANULE.fullmatch(granule) or not names or bad:
            fault = "no DSWE tile" if not bad and GRANULE.fullmatch(granule) else repr((bad or granule)[:80])
            hint = "such as AP_15742_FBD_F0290_RT1 and LE07_CU_018010_20070710_20210502_02"
            raise InputError(f"line {line}: not a granule with its tiles: {fault}", where=path, hint=hint)
        listed[granule] = names
    if not listed:
        raise InputError("names no pair", where=path)
    return listed


def _scenes(
    granule: Granule, services: Services, session: requests.Session
) -> tuple[dict[datetime.date, list[Scene]], list[str]]:
    """DSWE within the days of the rule that meets the footprint, by date."""
    day, around = granule.time.date(), datetime.timedelta(days=MAX_DAYS)
    box = shapely.box(*granule.footprint.bounds)
    scenes, malformed = stac.search(services, dswe.SERVICE, "dswe", box, (day - around, day + around), session)
    return dswe.by_date([scene for scene in scenes if scene.footprint.intersects(granule.footprint)]), malformed


def items_of(pairs: Sequence[Pair], services: Services) -> tuple[list[Item], list[Item]]:
    """What the taken pairs need: SAR and DSWE, and the tiles of the global layers; each file once.

    A tile of a global layer that the archive lacks is open sea.
    """
    wanted = [pair for pair in pairs if pair.accepted]
    own = {item.path: item for pair in wanted for item in (pair.granule.item, *map(dswe.item_of, pair.scenes))}
    boxes = [tiles.bounds(pair.granule.footprint) for pair in wanted]
    ancillary = []
    for service, names in (("gfc", tiles.gfc_tiles), ("hand", tiles.hand_tiles)):
        url = services.service(service).url
        for name in tiles.tiles_of(boxes, names):
            ancillary.append(Item(f"{url}/{name}", f"{service}/{name}", product=name[: -len(".tif")], archive=service))
    return list(own.values()), ancillary
