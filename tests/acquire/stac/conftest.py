"""A STAC API and an archive of files on this machine, answering as the real services do.

Forms of the replies, as documented or published by:
    USGS items (landsat-c2l2-sr, landsat-c2l1): tests/data/LC09_L2SP_092068_20230607_20230609_02_T1_SR.json of
        github.com/stac-utils/stac-asset (STAC 1.0.0; proj:epsg; assets blue to swir22, qa_pixel, MTL.json, each with an
        ``alternate`` S3 location; ids of surface reflectance end in ``_SR``).
    Earth Search items (sentinel-2-c1-l2a): S2B_T38XNF_20250422T091553_L2A in the tests of
        github.com/philvarner/stac-factory (assets blue to swir22, nir08 for B8A, scl; s2:product_uri; file extension).
    Planetary Computer items (sentinel-1-rtc): datasets/sentinel-1-rtc of github.com/microsoft/planetary-computer-tasks
        (sat:orbit_state, sar:instrument_mode, sar:polarizations; assets vv, vh of gamma0, no data -32768), with the
        answer of its SAS endpoint ``/api/sas/v1/token/{collection}`` (token, msft:expiry).
    Paging: STAC API - Item Search 1.0.0: a ``next`` link with method POST and a whole body (stac-server, Earth Search),
        or with a token that is merged into it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from shapely.geometry import box, mapping, shape

SAS = "sv=2021-06-08&se=2099-01-01T00%3A00%3A00Z&sr=c&sp=rl&sig=c2VjcmV0"
COLLECTIONS = ("landsat-c2l2-sr", "landsat-c2l1", "sentinel-2-c1-l2a", "sentinel-1-rtc")
CONFORMS = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search",
            "https://api.stacspec.org/v1.0.0/collections"]  # fmt: skip


@dataclass
class Service:
    """What the server has, and how it misbehaves.

    ``faults``: path prefix -> answers to give first, (status, headers, body) each.
    ``page``: a function of (features, body, url) that makes another page than the usual.
    ``signed``: prefixes of files that ask for the signature. ``seen``: (method, path with query) of every request.
    """

    url: str
    items: list[dict] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    faults: dict[str, list[tuple[int, dict, bytes]]] = field(default_factory=dict)
    signed: tuple[str, ...] = ()
    page: object = None
    merge: bool = False
    seen: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: Path, name: str) -> str:
        """Serve a file; returns its URL."""
        self.files[f"/files/{name}"] = path
        return f"{self.url}/files/{name}"

    def count(self, text: str) -> int:
        """Requests whose path holds a text."""
        return sum(text in path for _, path in self.seen)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.answer({})

    def do_POST(self):
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, body):
        service, parts = self.server.service, urlsplit(self.path)
        service.seen.append((self.command, self.path))
        for prefix, waiting in service.faults.items():
            if parts.path.startswith(prefix) and waiting:
                status, headers, text = waiting.pop(0)
                return self.reply(text, status, **headers)
        if parts.path == "/":
            return self.json(landing(service.url))
        if parts.path == "/search":
            query = {k: v[0] for k, v in parse_qs(parts.query).items()}
            return self.json(search_page(service, body or query), "application/geo+json")
        if parts.path.startswith("/collections/"):
            name = parts.path.rsplit("/", 1)[-1]
            return self.json(collection(name)) if name in COLLECTIONS else self.reply(b'{"code":"NotFound"}', 404)
        if parts.path == "/token":
            return self.json({"msft:expiry": "2099-01-01T00:00:00Z", "token": SAS})
        if parts.path in service.files:
            if any(parts.path.startswith(p) for p in service.signed) and parts.query != SAS:
                return self.reply(b"<Error><Code>PublicAccessNotPermitted</Code></Error>", 409)
            return self.file(service.files[parts.path])
        return self.reply(b'{"code":"NotFound"}', 404)

    def json(self, value, kind="application/json"):
        self.reply(json.dumps(value).encode(), 200, **{"Content-Type": kind})

    def file(self, path):
        size, asked = path.stat().st_size, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        headers = {"ETag": f'"{path.stat().st_mtime_ns:x}-{size:x}"', "Accept-Ranges": "bytes"}
        first, last = (int(asked[1]), min(int(asked[2] or size - 1), size - 1)) if asked else (0, size - 1)
        with open(path, "rb") as opened:
            opened.seek(first)
            data = opened.read(last - first + 1)
        if asked:
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        self.reply(data, 206 if asked else 200, **headers)

    def reply(self, data, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def landing(url):
    links = [
        {"rel": "self", "type": "application/json", "href": url},
        {"rel": "root", "type": "application/json", "href": url},
        {"rel": "data", "type": "application/json", "href": f"{url}/collections"},
        {"rel": "search", "type": "application/geo+json", "href": f"{url}/search", "method": "GET"},
        {"rel": "search", "type": "application/geo+json", "href": f"{url}/search", "method": "POST"},
    ]
    return {"type": "Catalog", "stac_version": "1.0.0", "id": "local", "title": "A local STAC API",
            "description": "Serves simulated products", "conformsTo": CONFORMS, "links": links}  # fmt: skip


def collection(name):
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["2013-01-01T00:00:00Z", None]]}}
    return {"type": "Collection", "stac_version": "1.0.0", "id": name, "description": name, "license": "proprietary",
            "extent": extent, "links": []}  # fmt: skip


def search_page(service, body):
    """One page: what a body with collections, bbox, datetime, limit and next or token asks for."""
    start, end = (datetime.datetime.fromisoformat(part) for part in body["datetime"].split("/"))
    area, matching = box(*body["bbox"]), []
    for item in service.items:
        when = datetime.datetime.fromisoformat(item["properties"]["datetime"])
        if item["collection"] in body["collections"] and start <= when <= end:
            if shape(item["geometry"]).intersects(area):
                matching.append(item)
    matching.sort(key=lambda item: item["properties"]["datetime"], reverse=True)
    if service.page is not None:
        return service.page(matching, body, service.url)
    first, limit = int(body.get("next", body.get("token", 0))), int(body.get("limit", 10))
    links = [{"rel": "self", "href": f"{service.url}/search"}]
    if first + limit < len(matching):
        token = {"token" if service.merge else "next": str(first + limit)}
        links.append({"rel": "next", "method": "POST", "href": f"{service.url}/search", "merge": service.merge,
                      "type": "application/geo+json", "body": token if service.merge else body | token})  # fmt: skip
    shown = matching[first : first + limit]
    return {"type": "FeatureCollection", "stac_version": "1.0.0", "numberMatched": len(matching),
            "numberReturned": len(shown), "features": shown, "links": links}  # fmt: skip


@pytest.fixture
def service():
    """A running service with nothing in it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *args: None  # a client that hangs up is part of the tests
    server.service = Service(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server.service
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def config(service, tmp_path):
    """A configuration whose every service is the local one."""
    host = urlsplit(service.url).netloc
    names = {
        "usgs": {"landsat-l2": "landsat-c2l2-sr", "landsat-l1": "landsat-c2l1"},
        "earth-search": {"sentinel-2": "sentinel-2-c1-l2a"},
        "planetary-computer": {"sentinel-1": "sentinel-1-rtc"},
    }
    services = {n: {"url": service.url, "collections": c, "hosts": [host]} for n, c in names.items()}
    services["planetary-computer"]["sign"] = {"url": f"{service.url}/token", "hosts": [host]}
    path = tmp_path / "local.yaml"
    path.write_text(yaml.safe_dump({"services": services}))
    return path


def footprint(raster_path):
    with rasterio.open(raster_path) as dataset:
        return transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds), dataset.crs.to_epsg()


def item(name, collection_name, when, bounds, properties, assets):
    return {"type": "Feature", "stac_version": "1.0.0", "id": name, "collection": collection_name, "bbox": list(bounds),
            "geometry": mapping(box(*bounds)), "properties": {"datetime": when, **properties}, "assets": assets,
            "links": []}  # fmt: skip


L8_ASSETS = {"blue": "SR_B2", "green": "SR_B3", "red": "SR_B4", "nir08": "SR_B5", "swir16": "SR_B6", "swir22": "SR_B7",
             "qa_pixel": "QA_PIXEL"}  # fmt: skip
S2_ASSETS = {"blue": "B02", "green": "B03", "red": "B04", "nir08": "B8A", "swir16": "B11", "swir22": "B12",
             "scl": "SCL"}  # fmt: skip


def landsat_item(service, folder, cloud=None):
    """The item of a Level-1 or Level-2 folder, its files served below the archive's path."""
    level1 = "_L1" in folder.name
    mtl = json.loads((folder / f"{folder.name}_MTL.json").read_text())["LANDSAT_METADATA_FILE"]
    attributes = mtl["IMAGE_ATTRIBUTES"]
    files = {"pan": "B8.TIF"} if level1 else {asset: f"{band}.TIF" for asset, band in L8_ASSETS.items()}
    files["MTL.json"] = "MTL.json"
    place = f"collection02/level-{1 if level1 else 2}/standard/oli-tirs/{folder.name}"
    assets = {}
    for asset, ending in files.items():
        name = f"{folder.name}_{ending}"
        url = service.add(folder / name, f"{place}/{name}")
        s3 = {"storage:platform": "AWS", "storage:requester_pays": True, "href": f"s3://usgs-landsat/{place}/{name}"}
        kind = "application/json" if asset == "MTL.json" else "image/vnd.stac.geotiff; cloud-optimized=true"
        assets[asset] = {"href": url, "type": kind, "roles": ["data"], "alternate": {"s3": s3}}
    bounds, epsg = footprint(next(folder.glob("*_B8.TIF" if level1 else "*_SR_B2.TIF")))
    properties = {
        "eo:cloud_cover": float(attributes["CLOUD_COVER"]) if cloud is None else cloud, "platform": "LANDSAT_8",
        "instruments": ["OLI", "TIRS"], "landsat:wrs_path": attributes["WRS_PATH"], "proj:epsg": epsg,
        "landsat:wrs_row": attributes["WRS_ROW"], "landsat:collection_category": "T1",
        "view:sun_elevation": float(attributes["SUN_ELEVATION"]),
    }  # fmt: skip
    when = f"{attributes['DATE_ACQUIRED']}T10:23:41.862538Z"
    name, collection_name = (folder.name, "landsat-c2l1") if level1 else (f"{folder.name}_SR", "landsat-c2l2-sr")
    return item(name, collection_name, when, bounds, properties, assets)


def sentinel2_item(service, folder, cloud=1.0):
    """The item of a SAFE folder with GeoTIFF bands, its files named as Earth Search names them."""
    parts = folder.name.removesuffix(".SAFE").split("_")
    name = f"{parts[0]}_{parts[5]}_{parts[2]}_L2A"
    assets = {}
    for asset, band in S2_ASSETS.items():
        path = next(folder.glob(f"GRANULE/*/IMG_DATA/*/*_{band}_*.tif"))
        url = service.add(path, f"sentinel-2-c1-l2a/{name}/{band}.tif")
        assets[asset] = {"href": url, "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                         "roles": ["data"], "file:size": path.stat().st_size,
                         "file:checksum": "1220" + hashlib.sha256(path.read_bytes()).hexdigest()}  # fmt: skip
    bounds, epsg = footprint(path)
    properties = {
        "eo:cloud_cover": cloud, "platform": "sentinel-2a", "proj:epsg": epsg,
        "s2:product_uri": folder.name, "s2:processing_baseline": f"{parts[3][1:3]}.{parts[3][3:]}",
        "grid:code": f"MGRS-{parts[5][1:]}",
    }  # fmt: skip
    day = datetime.datetime.strptime(parts[2], "%Y%m%dT%H%M%S")
    return item(name, "sentinel-2-c1-l2a", f"{day.isoformat()}.024000Z", bounds, properties, assets)


def write_raster(path, array, epsg, west, north, step, nodata=None):
    """A tiled GeoTIFF of one band."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", dtype=array.dtype, count=1, height=array.shape[0], width=array.shape[1],
        crs=f"EPSG:{epsg}", transform=from_origin(west, north, step, step), tiled=True, blockxsize=64, blockysize=64,
        compress="deflate", nodata=nodata,
    ) as dataset:  # fmt: skip
        dataset.write(array, 1)
    return path


def metadata_text(date, path_row="199030", cloud="3.10"):
    return json.dumps({"LANDSAT_METADATA_FILE": {
        "IMAGE_ATTRIBUTES": {"DATE_ACQUIRED": date, "CLOUD_COVER": cloud, "WRS_PATH": path_row[:3],
                             "WRS_ROW": path_row[3:], "SUN_ELEVATION": "60.1"},
        "LEVEL1_RADIOMETRIC_RESCALING": {"REFLECTANCE_MULT_BAND_8": "2.0000E-05",
                                         "REFLECTANCE_ADD_BAND_8": "-0.100000"},
    }})  # fmt: skip


@pytest.fixture
def small_archive(service, tmp_path):
    """One pair of 5.4 km in zone 31: a Sentinel-2 product and Landsat of the next day, random numbers."""
    rng, root = np.random.default_rng(4), tmp_path / "archive"
    west, north = 399_960.0, 4_900_020.0
    product = root / "S2A_MSIL2A_20210705T105031_N0500_R051_T31TDJ_20210705T135229.SAFE"
    for band, step in {"B02": 10, "B03": 10, "B04": 10, "B8A": 20, "B11": 20, "B12": 20, "SCL": 20}.items():
        size = 5400 // step
        kind = np.uint8 if band == "SCL" else np.uint16
        pixels = rng.integers(1, 12 if band == "SCL" else 3000, (size, size)).astype(kind)
        path = product / f"GRANULE/L2A_T31TDJ/IMG_DATA/R{step}m/T31TDJ_20210705T105031_{band}_{step}m.tif"
        write_raster(path, pixels, 32631, west, north, step)
    level2 = root / "LC08_L2SP_199030_20210706_20210713_02_T1"
    for band in L8_ASSETS.values():
        pixels = rng.integers(7000, 12000, (220, 220)).astype(np.uint16)
        write_raster(level2 / f"{level2.name}_{band}.TIF", pixels, 32631, west - 15 - 600, north + 15 + 600, 30, 0)
    level1 = root / "LC08_L1TP_199030_20210706_20210713_02_T1"
    pan = rng.integers(7000, 12000, (440, 440)).astype(np.uint16)
    write_raster(level1 / f"{level1.name}_B8.TIF", pan, 32631, west - 7.5 - 600, north + 7.5 + 600, 15, 0)
    for folder in (level1, level2):
        (folder / f"{folder.name}_MTL.json").write_text(metadata_text("2021-07-06"))
    service.items += [landsat_item(service, level2), landsat_item(service, level1), sentinel2_item(service, product)]
    return root


@pytest.fixture
def archive_tools():
    """The functions that make items of folders, for tests that fill the service themselves."""
    return {"landsat": landsat_item, "sentinel2": sentinel2_item, "item": item, "raster": write_raster,
            "footprint": footprint}  # fmt: skip
