"""The archives of alos-dswe on this machine, over a patch of ground that the tests make.

Forms of the replies, as documented or published by:
    CMR ``granules.umm_json``: CMR Search API (cmr.earthdata.nasa.gov/search/site/docs/search/api.html: hits, took,
        items of meta and umm, CMR-Search-After for paging) with UMM-G 1.6 (git.earthdata.nasa.gov/projects/EMFD). The
        attributes and values of a PALSAR product are those of ALPSRP111041130-RTC_HI_RES in the tests of
        github.com/asfadmin/Discovery-asf_search (tests/yml_tests/test_ASFSearchResults.py).
    STAC of the USGS: landsatlook.usgs.gov/stac-server; items of landsat-c2l3-dswe have an asset ``inwam`` below
        /level-3/collection02/DSWE/{year}/CU/{hhh}/{vvv}/{product}/ and multihashes in ``file:checksum``.
    Global Forest Change on Google's storage, with x-goog-hash; HAND on S3: plain HTTP.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import json
import zipfile
from dataclasses import dataclass, field
from types import SimpleNamespace
from urllib.parse import parse_qs

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.warp import transform_geom

ALBERS = "+proj=aea +lat_1=29.5 +lat_2=45.5 +lat_0=23 +lon_0=-96 +x_0=0 +y_0=0 +datum=WGS84 +units=m"
SAR_PX, DSWE_PX = 160, 120  # 2 km of SAR, 3.6 km of DSWE around it
WEST, NORTH = 762_000.09375, 3_930_000.40625  # EPSG:32615, 90.1 W 35.5 N


def geotiff(pixels: np.ndarray, crs: str, transform: tuple, **options) -> bytes:
    profile = {"driver": "GTiff", "count": 1, "height": pixels.shape[0], "width": pixels.shape[1], "crs": crs,
               "dtype": pixels.dtype, "transform": rasterio.Affine(*transform), "tiled": True, "blockxsize": 64,
               "blockysize": 64, "compress": "deflate"} | options  # fmt: skip
    with rasterio.MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(pixels, 1)
        return bytes(memory.getbuffer())


def footprint(index: int) -> shapely.Polygon:
    west = WEST + 12_000 * index
    box = shapely.box(west, NORTH - 12.5 * SAR_PX, west + 12.5 * SAR_PX, NORTH)
    return shapely.geometry.shape(transform_geom("EPSG:32615", "EPSG:4326", shapely.geometry.mapping(box)))


@dataclass
class World:
    """The local archives and what they hold: ``granules`` (UMM items), ``items`` (STAC) and the server's files."""

    archive: object
    granules: list[dict] = field(default_factory=list)
    items: list[dict] = field(default_factory=list)
    searches: list[dict] = field(default_factory=list)
    page: int = 2

    def add_granule(self, index: int, day: str, **changed) -> str:
        """A granule with its zip; returns its name."""
        name = f"AP_{7439 + index:05d}_FBD_F{700 + 10 * index:04d}_RT1"
        grid = (12.5, 0, WEST + 12_000 * index, 0, -12.5, NORTH)
        sar = np.full((SAR_PX, SAR_PX), 0.05, np.float32)
        members = {
            f"{name}_HH.tif": geotiff(sar, "EPSG:32615", grid),
            f"{name}_HV.tif": geotiff(sar / 4, "EPSG:32615", grid),
            f"{name}.dem.tif": geotiff(np.full((SAR_PX, SAR_PX), 90, np.int16), "EPSG:32615", grid),
            f"{name}.iso.xml": f"<a><gml:beginPosition>{day}T16:47:59Z</gml:beginPosition></a>".encode(),
        }
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in members.items():
                if member not in changed.get("without", ()):
                    archive.writestr(f"{name}/{member}", data)
        url = self.archive.put(f"/RTC_HI_RES/A3/{name}.zip", packed.getvalue(), kind="application/zip")
        self.granules.append(umm(name, day, footprint(index), url, packed.getvalue()) if "umm" not in changed else {})
        return name

    def add_dswe(self, index: int, day: str, codes: np.ndarray | None = None, tile: str = "018010", **changed) -> str:
        """A DSWE tile around a granule: by default a fifth is water; returns its name."""
        if codes is None:
            codes = np.zeros((DSWE_PX, DSWE_PX), np.uint8)
            codes[:, ::5] = 1
        date = day.replace("-", "")
        name = f"LE07_CU_{tile}_{date}_20210502_02"
        x, y = footprint(index).centroid.coords[0]
        (x,), (y,) = rasterio.warp.transform("EPSG:4326", ALBERS, [x], [y])
        grid = (30, 0, round(x / 30) * 30 - 15 * DSWE_PX, 0, -30, round(y / 30) * 30 + 15 * DSWE_PX)
        data = geotiff(codes, ALBERS, grid, nodata=255)
        place = f"/level-3/collection02/DSWE/{date[:4]}/CU/{tile[:3]}/{tile[3:]}/{name}_DSWE/{name}_INWAM.TIF"
        url = self.archive.put(place, data, kind="image/tiff")
        box = shapely.box(grid[2], grid[5] - 30 * DSWE_PX, grid[2] + 30 * DSWE_PX, grid[5])
        outline = shapely.geometry.shape(transform_geom(ALBERS, "EPSG:4326", shapely.geometry.mapping(box)))
        item = stac_item(name, day, outline, url, data)
        item["assets"]["inwam"] |= changed
        self.items.append(item)
        return name

    def add_layers(self) -> None:
        """The tiles of the global layers; those of HAND east of 90 W do not exist, as over the sea."""
        pixels = np.full((8, 8), 20, np.uint8)
        data = geotiff(pixels, "EPSG:4326", (0.5, 0, -92, 0, -0.5, 37))
        digest = base64.b64encode(hashlib.md5(data).digest()).decode()
        for name in ("40N_090W", "40N_100W"):
            path = f"/gfc/Hansen_GFC-2020-v1.8_first_{name}.tif"
            self.archive.put(path, data, kind="image/tiff", headers={"x-goog-hash": f"crc32c=n03x6A==, md5={digest}"})
        data = geotiff(pixels.astype(np.float32), "EPSG:4326", (0.5, 0, -92, 0, -0.5, 37), nodata=np.nan)
        self.archive.put("/hand/Copernicus_DSM_COG_10_N35_00_W091_00_HAND.tif", data, kind="image/tiff")

    def search_cmr(self, handler, body: bytes) -> None:
        asked = {key: values for key, values in parse_qs(body.decode()).items()}
        self.searches.append(asked)
        found = [
            item for item in self.granules
            if "granule_ur[]" not in asked or item["umm"]["GranuleUR"] in asked["granule_ur[]"]
        ]  # fmt: skip
        first = int(json.loads(handler.headers.get("CMR-Search-After") or "[0]")[0])
        reply = {"hits": len(found), "took": 5, "items": found[first : first + self.page]}
        headers = {"Content-Type": "application/vnd.nasa.cmr.umm_results+json;version=1.6.6; charset=utf-8"}
        if first + self.page < len(found):
            headers["CMR-Search-After"] = json.dumps([first + self.page])
        headers["CMR-Hits"] = str(len(found))
        handler.reply(200, json.dumps(reply).encode(), headers)

    def search_stac(self, handler, body: bytes) -> None:
        asked = json.loads(body)
        start, end = (datetime.datetime.fromisoformat(t) for t in asked["datetime"].split("/"))
        area = shapely.box(*asked["bbox"])
        found = [
            item for item in self.items
            if shapely.geometry.shape(item["geometry"]).intersects(area)
            and start <= datetime.datetime.fromisoformat(item["properties"]["datetime"]) <= end
        ]  # fmt: skip
        reply = {"type": "FeatureCollection", "features": found, "links": [], "numberMatched": len(found)}
        handler.reply(200, json.dumps(reply).encode(), {"Content-Type": "application/geo+json"})


def umm(name: str, day: str, outline: shapely.Polygon, url: str, data: bytes) -> dict:
    orbit, frame = name[3:8], name[14:18]
    scene = f"ALPSRP{orbit}{frame}"
    attributes = {
        "ASF_PLATFORM": "ALOS", "ASCENDING_DESCENDING": "ASCENDING", "BEAM_MODE": "FBD", "BEAM_MODE_TYPE": "FBD",
        "BYTES": f"{len(data)}.0", "FARADAY_ROTATION": "0.456056", "FRAME_NUMBER": str(int(frame)),
        "GRANULE_TYPE": "ALOS_PALSAR_SCENE", "GROUP_ID": scene, "INSAR_STACK_ID": "1486384",
        "MD5SUM": hashlib.md5(data).hexdigest(), "OFF_NADIR_ANGLE": "34.3", "PATH_NUMBER": "166",
        "PROCESSING_TYPE": "RTC_HI_RES", "CENTER_LAT": "35.5", "CENTER_LON": "-90.1",
    }  # fmt: skip
    points = [{"Longitude": x, "Latitude": y} for x, y in outline.exterior.coords]
    return {
        "meta": {
            "concept-type": "granule", "concept-id": f"G{1200000000 + int(orbit)}-ASF", "revision-id": 3,
            "native-id": f"{scene}-RTC_HI_RES", "collection-concept-id": "C1206487504-ASF", "provider-id": "ASF",
            "format": "application/echo10+xml", "revision-date": "2021-02-10T01:02:03.456Z",
        },
        "umm": {
            "GranuleUR": f"{scene}-RTC_HI_RES",
            "CollectionReference": {"ShortName": "ALOS_PSR_RTC_HIGH", "Version": "1"},
            "DataGranule": {
                "DayNightFlag": "Unspecified", "ProductionDateTime": "2015-03-14T01:23:11Z",
                "Identifiers": [{"Identifier": scene, "IdentifierType": "ProducerGranuleId"}],
            },
            "TemporalExtent": {
                "RangeDateTime": {"BeginningDateTime": f"{day}T16:47:59Z", "EndingDateTime": f"{day}T16:48:07Z"}
            },
            "SpatialExtent": {
                "HorizontalSpatialDomain": {"Geometry": {"GPolygons": [{"Boundary": {"Points": points}}]}}
            },
            "OrbitCalculatedSpatialDomains": [{"OrbitNumber": int(orbit)}],
            "Platforms": [{"ShortName": "ALOS", "Instruments": [{"ShortName": "PALSAR"}]}],
            "RelatedUrls": [{"URL": url, "Type": "GET DATA"}],
            "AdditionalAttributes": [
                *({"Name": key, "Values": [value]} for key, value in attributes.items()),
                {"Name": "POLARIZATION", "Values": ["HH", "HV"]},
            ],
            "MetadataSpecification": {
                "URL": "https://cdn.earthdata.nasa.gov/umm/granule/v1.6.6", "Name": "UMM-G", "Version": "1.6.6",
            },
        },
    }  # fmt: skip


def stac_item(name: str, day: str, outline: shapely.Polygon, url: str, data: bytes) -> dict:
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": f"{name}_DSWE", "collection": "landsat-c2l3-dswe",
        "bbox": list(outline.bounds), "geometry": shapely.geometry.mapping(outline), "links": [],
        "stac_extensions": ["https://stac-extensions.github.io/file/v2.1.0/schema.json"],
        "properties": {"datetime": f"{day}T16:30:00.000Z", "eo:cloud_cover": 12.5, "platform": "LANDSAT_7"},
        "assets": {
            "inwam": {
                "href": url, "type": "image/vnd.stac.geotiff; cloud-optimized=true", "file:size": len(data),
                "title": "Interpreted Layer with All Masking Applied", "roles": ["data"],
                "file:checksum": "1340" + hashlib.sha512(data).hexdigest(),
            }
        },
    }  # fmt: skip


@pytest.fixture
def world(archive) -> World:
    """Empty archives, ready to be filled."""
    made = World(archive)
    archive.answers["/search/granules.umm_json"] = made.search_cmr
    landing = {
        "type": "Catalog", "stac_version": "1.0.0", "id": "stac-server", "description": "local",
        "conformsTo": ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search",
                       "https://api.stacspec.org/v1.0.0/collections"],
        "links": [
            {"rel": "root", "href": f"{archive.url}/stac-server"},
            {"rel": "self", "href": f"{archive.url}/stac-server"},
            {"rel": "data", "href": f"{archive.url}/stac-server/collections"},
            {"rel": "search", "method": "GET", "type": "application/geo+json",
             "href": f"{archive.url}/stac-server/search"},
            {"rel": "search", "method": "POST", "type": "application/geo+json",
             "href": f"{archive.url}/stac-server/search"},
        ],
    }  # fmt: skip
    archive.put("/stac-server", json.dumps(landing).encode(), kind="application/json")
    collection = {
        "type": "Collection", "stac_version": "1.0.0", "id": "landsat-c2l3-dswe", "description": "DSWE", "links": [],
        "license": "proprietary",
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
    }  # fmt: skip
    archive.put("/stac-server/collections/landsat-c2l3-dswe", json.dumps(collection).encode(), kind="application/json")
    archive.answers["/stac-server/search"] = made.search_stac
    return made


@pytest.fixture
def config(archive, write_config):
    """The configuration that names the local archives."""
    return write_config(
        asf={"url": archive.url, "hosts": []},
        usgs={"url": f"{archive.url}/stac-server", "collections": {"dswe": "landsat-c2l3-dswe"}, "hosts": []},
        gfc={"url": f"{archive.url}/gfc", "hosts": []},
        hand={"url": f"{archive.url}/hand", "hosts": []},
    )


@pytest.fixture
def forms():
    """How the archives describe a granule (``umm``) and a DSWE tile (``stac_item``)."""
    return SimpleNamespace(umm=umm, stac_item=stac_item)
