"""ALOS PALSAR of the Alaska Satellite Facility: granules with both polarizations, terrain-corrected at 12.5 m.

``asf_search`` asks NASA's Common Metadata Repository; its session keeps our rules (``session.py``), and its reports of
errors to a host of its own are switched off.
"""

from __future__ import annotations

import datetime
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import requests
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from ...errors import ArchiveError, InputError, TidemarkError
from .answers import connection_error, status_error
from .hosts import Services, origin, without_query
from .items import Item
from .session import Patience, guard

SERVICE = "asf"
GRANULE = re.compile(r"AP_(?P<orbit>\d{5})_FBD_F(?P<frame>\d{4})_RT1")
_MD5 = re.compile(r"[0-9a-f]{32}")
LOOKED_UP = 200  # products of one request


@dataclass(frozen=True)
class Granule:
    """One PALSAR scene as the archive offers it.

    Attributes:
        name: ``AP_15742_FBD_F0290_RT1``, of the zip and of the folder in it.
        product: the archive's identifier.
        time: start of acquisition, UTC.
        footprint: in degrees.
        url: of the zip.
        bytes, md5: of the zip, where the catalogue states them.
    """

    name: str
    product: str
    time: datetime.datetime
    footprint: BaseGeometry
    url: str
    bytes: int | None
    md5: str | None

    @property
    def item(self) -> Item:
        """The zip."""
        checksum = f"md5:{self.md5}" if self.md5 else None
        return Item(self.url, f"alos/{self.name}.zip", self.bytes, checksum, self.product, SERVICE)


def search(
    services: Services,
    area: BaseGeometry,
    days: tuple[datetime.date, datetime.date],
    patience: Patience | None = None,
) -> tuple[list[Granule], list[str]]:
    """All granules that meet an area (degrees), sorted by time and name, and a line for each that is malformed.

    Raises:
        ArchiveError: the archive does not answer as it should, or not with everything.
    """
    start = datetime.datetime.combine(days[0], datetime.time(), datetime.UTC)
    end = datetime.datetime.combine(days[1], datetime.time(23, 59, 59), datetime.UTC)
    found, malformed = _ask(services, patience, intersectsWith=area.envelope.wkt, start=start, end=end)
    return [g for g in found if g.footprint.intersects(area) and days[0] <= g.time.date() <= days[1]], malformed


def look_up(
    services: Services, names: Sequence[str], patience: Patience | None = None
) -> tuple[list[Granule], list[str]]:
    """The granules of these names (``AP_15742_FBD_F0290_RT1``). Raises as ``search``."""
    products = []
    for name in dict.fromkeys(names):
        parts = GRANULE.fullmatch(name)
        if parts is None:
            raise InputError("not the name of a PALSAR granule", where=name[:80], hint="like AP_15742_FBD_F0290_RT1")
        products.append(f"ALPSRP{parts['orbit']}{parts['frame']}-RTC_HI_RES")
    found, malformed = [], []
    for first in range(0, len(products), LOOKED_UP):
        some, bad = _ask(services, patience, product_list=products[first : first + LOOKED_UP])
        found += some
        malformed += bad
    return [g for g in found if g.name in set(names)], malformed


def _ask(services: Services, patience: Patience | None, **query: Any) -> tuple[list[Granule], list[str]]:
    try:
        import asf_search
    except ImportError:
        raise InputError("asf_search is not installed", hint="pip install 'tidemark[acquire]'") from None
    asf_search.REPORT_ERRORS = False
    logging.getLogger("asf_search").setLevel(logging.CRITICAL)  # what it would print, our errors say
    service = services.service(SERVICE)
    session = guard(asf_search.ASFSession(), services, patience)
    session.hooks["response"].append(_refuse)
    options = asf_search.ASFSearchOptions(
        host=origin(service.url),
        session=session,
        platform=asf_search.PLATFORM.ALOS,
        beamMode=asf_search.BEAMMODE.FBD,
        processingLevel=asf_search.PRODUCT_TYPE.RTC_HIGH_RES,
    )
    try:
        results = asf_search.search(opts=options, **query)
    except TidemarkError:
        raise
    except requests.JSONDecodeError:
        raise ArchiveError("the answer is no JSON", where=without_query(service.url)) from None
    except requests.RequestException as error:
        raise connection_error(error, service.url) from None
    except Exception as error:  # its own errors, and whatever it makes of an answer in another form
        text = f"the search failed ({type(error).__name__}: {error})"[:300]
        raise ArchiveError(text, where=without_query(service.url)) from None
    if not results.searchComplete:
        raise ArchiveError("the search ended before all results were there", where=without_query(service.url))
    granules: dict[str, Granule] = {}
    malformed = []
    for product in results:
        try:
            granule = read_product(product)
        except ValueError as error:
            malformed.append(f"{str(product.properties.get('fileID'))[:80]}: {error}")
            continue
        if granule is not None:
            granules[granule.name] = granule
    return sorted(granules.values(), key=lambda g: (g.time, g.name)), malformed


def _refuse(answer: requests.Response, **options: Any) -> None:
    """Say what a refusal means; asf_search would try again by itself after ours."""
    if answer.status_code >= 400:
        raise status_error(answer, answer.connection)


def read_product(product: Any) -> Granule | None:
    """A result of ``asf_search``; None where it is another kind of product. Raises ValueError where it is malformed."""
    properties = product.properties
    polarization = set(re.findall("HH|HV|VH|VV", str(properties.get("polarization") or "HH+HV")))
    if properties.get("beamModeType") not in (None, "FBD") or not {"HH", "HV"} <= polarization:
        return None
    url = str(properties.get("url") or "")
    name = without_query(url).rsplit("/", 1)[-1].removesuffix(".zip")
    if not GRANULE.fullmatch(name) or not url.startswith(("https://", "http://")):
        raise ValueError(f"no zip of a granule ({without_query(url)})")
    try:
        time = datetime.datetime.fromisoformat(str(properties["startTime"]))
        footprint = shape(product.geometry)
        size = None if properties.get("bytes") is None else int(float(properties["bytes"]))
    except (KeyError, TypeError, AttributeError, ShapelyError, OverflowError) as error:
        raise ValueError(f"without its time, place or length ({type(error).__name__})") from None
    if footprint.is_empty or not footprint.is_valid or (size is not None and size < 0):
        raise ValueError("its place or length makes no sense")
    md5 = str(properties.get("md5sum") or "").lower()
    return Granule(
        name, str(properties.get("fileID")), time, footprint, url, size, md5 if _MD5.fullmatch(md5) else None
    )
