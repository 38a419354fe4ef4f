"""What ``tidemark acquire alos-dswe`` does, with its words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import requests
import shapely
from shapely.geometry.base import BaseGeometry

from ...errors import ArchiveError, InputError, PartialResultError, TidemarkError
from . import alos_dswe, asf, report, stac
from .alos_dswe import Pair
from .answers import NotThereError
from .hosts import load_services
from .items import Fetched, Item
from .ledger import Ledger, hold
from .session import open_session
from .transport import Progress, check_room, fetch, remote_bytes
from .unpack import unpack

NEEDED = ("_HH.tif", "_HV.tif", ".dem.tif", ".iso.xml")
SHOWN = 5


def read_area(text: str) -> BaseGeometry:
    """``west,south,east,north`` in degrees, or the outline of all features of a vector file. Raises InputError."""
    path = Path(text)
    if not path.exists():
        return stac.parse_bbox(text)
    import geopandas
    import pyogrio

    try:
        frame = geopandas.read_file(path)
        area = frame.to_crs("EPSG:4326").geometry.union_all()
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError) as error:
        raise InputError(f"no area in it ({str(error)[:200]})", where=path, hint="a GeoPackage or GeoJSON") from None
    if area.is_empty or not area.area:
        raise InputError("no area in it", where=path, hint="polygons are wanted")
    return area


def acquire_alos_dswe(
    out: Path,
    *,
    aoi: str | None = None,
    start: str | None = None,
    end: str | None = None,
    listed: Path | None = None,
    dry_run: bool = False,
    jobs: int = 4,
    max_bytes: int | None = None,
    config: Path | None = None,
    looking: Callable[[], AbstractContextManager[Callable[[int, int, str], None] | None]] = nullcontext,
    progress: Callable[[], AbstractContextManager[Progress | None]] = nullcontext,
) -> list[Pair]:
    """Find pairs over an area and between two dates (or take those of a list), report them, fetch what is missing.

    Beside the products lie ``alos-dswe.csv`` with every granule and why it was refused, and ``alos-dswe.png``.

    ``looking`` and ``progress`` open the bars of the two parts of the work.

    Raises:
        InputError, ConfigError: wrong usage, a host that is not on the list.
        ArchiveError, StorageError: a search or the disk failed.
        PartialResultError: some files did not come; run it again.
    """
    services = load_services(config)
    session = open_session(services)
    if listed is not None:
        wanted = alos_dswe.read_list(listed)
        granules, malformed = asf.look_up(services, list(wanted))
        pairs, more = alos_dswe.from_list(wanted, granules, services, session)
        area = shapely.union_all([g.footprint for g in granules]).envelope
    elif aoi and start and end:
        area, days = read_area(aoi), stac.parse_days(start, end)
        granules, malformed = asf.search(services, area, days)
        print(f"{len(granules)} PALSAR granules")
        with looking() as step:
            pairs, more = alos_dswe.decide(granules, services, session, step)
    else:
        raise InputError("what is wanted?", hint="--aoi, --start and --end, or --from-list")
    for line in [*malformed, *more][:SHOWN]:
        print(f"  left out: {line}")
    if len(malformed) + len(more) > SHOWN:
        print(f"  and {len(malformed) + len(more) - SHOWN} more")
    decisions = [pair.decision for pair in pairs]
    report.write_csv(out / "alos-dswe.csv", decisions)
    if pairs:
        report.write_map(out / "alos-dswe.png", decisions, area, "ALOS PALSAR with DSWE")
    print(report.summary(decisions))
    print(out / "alos-dswe.csv")
    with hold(out):
        ledger = Ledger(out)
        own, ancillary = alos_dswe.items_of(pairs, services)
        todo, absent = _with_sizes(ledger.missing([*own, *ancillary]), session, jobs)
        here = len(own) + len(ancillary) - len(todo) - len(absent)
        size = sum(item.bytes or 0 for item in todo)
        absence = f", {len(absent)} tiles do not exist (sea)" if absent else ""
        print(f"{len(todo)} files to fetch, {report.human_bytes(size)}; {here} are here{absence}")
        if dry_run:
            for item in todo:
                print(f"{report.human_bytes(item.bytes) if item.bytes is not None else 'unknown':>12}  {item.path}")
            return pairs
        with progress() as bar:
            failed = _fetch(todo, out, session, ledger, jobs, max_bytes, bar)
    if failed:
        raise _partial(failed, out)
    if unread := [pair for pair in pairs if pair.unread]:
        first = f"{len(unread)} granules could not be looked at, first {unread[0].granule.name}: {unread[0].reason}"
        raise PartialResultError(first, where=out, hint="run it again")
    return pairs


def _with_sizes(items: Sequence[Item], session: requests.Session, jobs: int) -> tuple[list[Item], list[str]]:
    """The items with the lengths that the archives state, and the tiles of global layers that do not exist."""

    def ask(item: Item) -> Item | None:
        if item.bytes is not None:
            return item
        try:
            return dataclasses.replace(item, bytes=remote_bytes(item.url, session))
        except NotThereError:
            if item.archive in ("gfc", "hand"):
                return None
            return item
        except ArchiveError:  # the transfer will say so
            return item

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        asked = list(pool.map(ask, items))
    absent = [item.path for item, found in zip(items, asked, strict=True) if found is None]
    return [item for item in asked if item is not None], absent


def _fetch(
    items: Sequence[Item],
    out: Path,
    session: requests.Session,
    ledger: Ledger,
    jobs: int,
    max_bytes: int | None,
    progress: Progress | None,
) -> dict[str, TidemarkError]:
    check_room(out, 3 * sum(item.bytes or 0 for item in items if item.path.endswith(".zip")))  # zip and content

    def done(fetched: Fetched) -> None:
        if fetched.item.path.endswith(".zip"):
            _unpack(fetched, out, ledger)
        else:
            ledger.add(fetched)

    came, failed = fetch(items, out, session, jobs=jobs, max_bytes=max_bytes, progress=progress, done=done)
    size = report.human_bytes(sum(fetched.bytes for fetched in came))
    print(f"{len(came)} files fetched, {size}")
    return failed


def _unpack(fetched: Fetched, out: Path, ledger: Ledger) -> None:
    """Unpack a granule and remove its zip: what was in it is in the ledger."""
    path = out / fetched.item.path
    files = unpack(path, path.parent, out)
    missing = [path.stem + end for end in NEEDED if not any(f.path.endswith(path.stem + end) for f in files)]
    if missing:
        raise InputError(f"lacks {', '.join(missing)}", where=path)
    ledger.add(fetched, files)
    path.unlink()


def _partial(failed: dict[str, TidemarkError], out: Path) -> PartialResultError:
    listed = "; ".join(f"{path}: {error}" for path, error in sorted(failed.items())[:SHOWN])
    more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
    return PartialResultError(f"{len(failed)} files did not come: {listed}{more}", where=out, hint="run it again")
