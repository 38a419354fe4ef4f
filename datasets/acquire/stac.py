"""Searches of STAC APIs: pystac-client speaks the protocol over our session, and every item is checked.

A catalogue is a stranger: pages may never end, repeat or be huge, and an item may lack what it must have. A malformed
item is left out and named; a service that does not answer as STAC says ends the search.
"""

from __future__ import annotations

import datetime
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import requests
from shapely.errors import ShapelyError
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry
from shapely.validation import make_valid

from ...errors import ArchiveError, InputError, TidemarkError
from .answers import NotThereError, fetch_bytes
from .hosts import Services, without_query

PAGE_ITEMS = 100
MAX_ITEMS = 20_000
MAX_PAGES = 2_000  # a service may give fewer items a page than it is asked for
MAX_PAGE_BYTES = 64 << 20  # a page of 100 Landsat items has 2 MB
MAX_ASSETS = 200
Bounds = tuple[float, float, float, float]  # west, south, east, north in degrees
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class Scene:
    """An item of a catalogue that has what we read.

    Attributes:
        id: of letters, digits, ``.``, ``_`` and ``-``.
        time: of acquisition, UTC.
        footprint: in degrees.
        cloud_percent: of the whole scene, None where the catalogue has none.
        epsg: of the pixels' grid, None where the catalogue does not tell.
        properties: as delivered.
        assets: name -> URL.
        sizes: name -> bytes, where the catalogue tells (``file:size``).
        checksums: name -> multihash in hexadecimal, where it tells (``file:checksum``).
    """

    id: str
    time: datetime.datetime
    footprint: BaseGeometry
    cloud_percent: float | None
    epsg: int | None
    properties: dict[str, Any]
    assets: dict[str, str]
    sizes: dict[str, int]
    checksums: dict[str, str]

    @property
    def day(self) -> datetime.date:
        """Date of acquisition, UTC."""
        return self.time.date()

    def share_of(self, area: BaseGeometry) -> float:
        """Share of an area (degrees) that the footprint covers."""
        return self.footprint.intersection(area).area / area.area


def parse_bbox(text: str) -> BaseGeometry:
    """``west,south,east,north`` in degrees as a rectangle. Raises InputError."""
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError("not west,south,east,north", where=f"--bbox {text[:100]}") from None
    if not (-180 <= west < 180 and -90 <= south < north <= 90 and -180 < east <= 180):
        raise InputError("outside of -180,-90,180,90 or without height", where=f"--bbox {text[:100]}")
    if west >= east:
        raise InputError(
            "west is not left of east", where=f"--bbox {text[:100]}", hint="split it where it crosses 180 degrees"
        )
    return box(west, south, east, north)


def parse_days(start: str, end: str) -> tuple[datetime.date, datetime.date]:
    """First and last day of a search. Raises InputError."""
    try:
        first, last = datetime.date.fromisoformat(start), datetime.date.fromisoformat(end)
    except ValueError:
        raise InputError(f"not two dates as 2021-07-05: {start[:40]!r}, {end[:40]!r}") from None
    if first > last:
        raise InputError(f"the first day {first} is after the last {last}")
    return first, last


def search(
    services: Services,
    service: str,
    collection: str,
    area: BaseGeometry,
    days: tuple[datetime.date, datetime.date],
    session: requests.Session,
) -> tuple[list[Scene], list[str]]:
    """Everything that a catalogue has over an area within days, sorted by time and id.

    Args:
        services: which hosts may be asked.
        service: its name in the configuration.
        collection: our name of the collection.
        area: a rectangle in degrees.
        days: first and last.
        session: made by ``open_session``.

    Returns:
        The scenes, and for each malformed item a line that names it and its fault.

    Raises:
        InputError: a host that is not on the list, more than ``MAX_ITEMS`` items or ``MAX_PAGES`` pages.
        ArchiveError: the service does not answer, or not as STAC says.
    """
    url, theirs = services.service(service).url, services.collection(service, collection)
    found: dict[str, Scene] = {}
    seen: set[str] = set()
    malformed: list[str] = []
    for number, page in enumerate(_pages(url, theirs, area.bounds, days, session), 1):
        items = [item for item in page if isinstance(item, dict)]
        ids = {str(item.get("id"))[:200] for item in items}
        if ids <= seen:
            raise ArchiveError(
                f"the pages go in circles after {len(seen)} items", where=without_query(url), hint="try again later"
            )
        seen |= ids
        if len(seen) > MAX_ITEMS or number > MAX_PAGES:
            raise InputError(
                f"more than {MAX_ITEMS} items or {MAX_PAGES} pages",
                where=theirs,
                hint="ask for a smaller area or fewer days",
            )
        for item in items:
            try:
                scene = read_item(item)
            except ValueError as error:
                malformed.append(f"{str(item.get('id'))[:80]}: {error}")
                continue
            if scene.footprint.intersects(area) and days[0] <= scene.day <= days[1]:
                found[scene.id] = scene
    return sorted(found.values(), key=lambda s: (s.time, s.id)), malformed


def _pages(url: str, collection: str, bounds: Bounds, days: Sequence[datetime.date], session: requests.Session):
    """The items of one page after the other. A search without any asks whether the collection exists."""
    try:
        from pystac_client import Client
        from pystac_client.exceptions import APIError
    except ImportError:
        raise InputError("pystac-client is not installed", hint="pip install 'tidemark[acquire]'") from None
    empty = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about conformance classes that we do not need
            client = Client.open(url, stac_io=_api_io(session))
            when = f"{days[0]}T00:00:00Z/{days[1]}T23:59:59Z"
            found = client.search(collections=[collection], bbox=list(bounds), datetime=when, limit=PAGE_ITEMS)
        for page in found.pages_as_dicts():
            empty = False
            yield page["features"]
        known = not empty or _exists(client, collection)
    except TidemarkError:
        raise
    except APIError as error:
        raise ArchiveError(f"no answer to a search ({str(error)[:200]})", where=without_query(url)) from None
    except Exception as error:  # whatever pystac makes of what is not STAC
        raise ArchiveError(
            f"does not answer as a STAC API ({type(error).__name__}: {str(error)[:200]})", where=without_query(url)
        ) from None
    if not known:
        raise ArchiveError(f"has no collection {collection}", where=without_query(url), hint="see configs/acquire.yaml")


def _exists(client, collection: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return client.get_collection(collection) is not None
    except NotThereError:
        return False


def _api_io(session: requests.Session):
    from pystac_client.stac_api_io import StacApiIO

    class OurWire(StacApiIO):
        """Requests through our session: listed hosts only, tried again, of bounded size."""

        def request(self, href, method=None, headers=None, parameters=None):
            method = (method or "GET").upper()
            body = {"json": parameters} if method == "POST" else {"params": parameters}
            # a link's own headers are not sent: nothing that we ask needs them
            return fetch_bytes(str(href), session, method, max_bytes=MAX_PAGE_BYTES, **body).decode("utf-8")

    return OurWire(max_retries=None)


def read_item(item: dict[str, Any]) -> Scene:
    """A checked item. Raises ValueError with what is wrong."""
    name, properties, assets = item.get("id"), item.get("properties"), item.get("assets")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise ValueError("no usable id")
    if not isinstance(properties, dict) or not isinstance(assets, dict) or len(assets) > MAX_ASSETS:
        raise ValueError("no properties or assets")
    try:
        footprint = make_valid(shape(item.get("geometry")))
        time = datetime.datetime.fromisoformat(str(properties.get("datetime") or properties.get("start_datetime")))
    except (ShapelyError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ValueError(f"no geometry ({type(error).__name__})") from None
    except ValueError as error:
        raise ValueError(f"no geometry or time ({error})"[:200]) from None
    if footprint.is_empty or not all(math.isfinite(v) for v in footprint.bounds) or not footprint.area:
        raise ValueError("an empty geometry")
    cloud = properties.get("eo:cloud_cover")
    if cloud is not None and (not isinstance(cloud, int | float) or isinstance(cloud, bool) or not 0 <= cloud <= 100):
        raise ValueError(f"eo:cloud_cover {str(cloud)[:40]!r}")
    entries = {n: a for n, a in assets.items() if isinstance(a, dict) and isinstance(a.get("href"), str)}
    utc = time.replace(tzinfo=datetime.UTC) if time.tzinfo is None else time.astimezone(datetime.UTC)
    return Scene(
        id=name, time=utc, footprint=footprint, cloud_percent=None if cloud is None else float(cloud),
        epsg=_epsg(properties), properties=properties, assets={n: a["href"] for n, a in entries.items()},
        sizes={n: a["file:size"] for n, a in entries.items() if type(a.get("file:size")) is int},
        checksums={n: a["file:checksum"] for n, a in entries.items() if isinstance(a.get("file:checksum"), str)},
    )  # fmt: skip


def _epsg(properties: dict[str, Any]) -> int | None:
    """Projection extension: ``proj:epsg`` up to version 1, ``proj:code`` from version 2 on."""
    code = str(properties.get("proj:code") or properties.get("proj:epsg") or "").removeprefix("EPSG:")
    return int(code) if code.isdecimal() and len(code) < 7 else None
