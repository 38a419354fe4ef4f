"""The splits of a data set on a map (``splits.png``), drawn from the bounds of the manifest's scenes alone."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

from PIL import Image, ImageDraw, ImageFont

from .spec import Manifest

MAP_NAME = "splits.png"
COLORS = ("#2f6db5", "#e39a1b", "#b8322a", "#5b8c3e", "#7a4fa3")  # train, val, test, and whatever else there is
WIDTH, HEIGHTS = 900, (320, 760)  # of the map's frame, in pixels; the height follows from the ground
MARGINS = {"left": 70, "top": 76, "right": 24, "bottom": 64}
MARKER = 7  # least side of a scene on the map
STEPS_DEG = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 45)
Box = tuple[float, float, float, float]


def placed_scenes(manifest: Manifest) -> list[tuple[str, Box]]:
    """Split and bounds (west, south, east, north in degrees; east above 180 beyond the antimeridian) of every scene
    whose place is known."""
    boxes = []
    for scene in manifest.scenes:
        if scene.bounds is not None:
            west, south, east, north = scene.bounds
            boxes.append((scene.split, (west, south, east + 360 if east < west else east, north)))
    if boxes and max(b[2] for _, b in boxes) - min(b[0] for _, b in boxes) > 180:
        turned = [(s, (w + 360, so, e + 360, n) if w < 0 else (w, so, e, n)) for s, (w, so, e, n) in boxes]
        if _span(turned) < _span(boxes):  # a group on both sides of the antimeridian
            return turned
    return boxes


def split_map(manifest: Manifest) -> bytes | None:
    """PNG with each scene's bounds in the colour of its split, or None where no scene has a place.

    Longitude is shrunk by the cosine of the middle latitude. The same manifest gives the same bytes.
    """
    boxes = placed_scenes(manifest)
    if not boxes:
        return None
    west, south, east, north = _extent([box for _, box in boxes])
    across = math.cos(math.radians(min(max((south + north) / 2, -80), 80)))
    height = round(min(max(WIDTH * (north - south) / ((east - west) * across), HEIGHTS[0]), HEIGHTS[1]))
    scale = min(WIDTH / ((east - west) * across), height / (north - south))
    # what the frame has left over shows more ground, not stretched ground
    spare_x, spare_y = WIDTH / scale / across - (east - west), height / scale - (north - south)
    west, north = west - spare_x / 2, north + spare_y / 2

    size = MARGINS["left"] + WIDTH + MARGINS["right"], MARGINS["top"] + height + MARGINS["bottom"]
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)

    def at(lon: float, lat: float) -> tuple[float, float]:
        x = MARGINS["left"] + (lon - west) * across * scale
        return x, MARGINS["top"] + (north - lat) * scale

    left, top = at(west, north)
    right, bottom = left + WIDTH, top + height
    draw.rectangle((left, top, right, bottom), fill="#f4f5f3")
    shown = west, north - height / scale, west + WIDTH / scale / across, north
    _graticule(draw, at, shown, (left, top, right, bottom))
    splits = [split.name for split in manifest.splits]
    color_of = {name: COLORS[i % len(COLORS)] for i, name in enumerate(splits)}
    for split in splits:
        for box in (b for s, b in boxes if s == split):
            _scene(draw, at(box[0], box[3]), at(box[2], box[1]), color_of[split])
    draw.rectangle((left, top, right, bottom), outline="#555555", width=1)
    _words(draw, manifest, boxes, color_of, size)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=False)
    return buffer.getvalue()


def _span(boxes: list[tuple[str, Box]]) -> float:
    return max(b[2] for _, b in boxes) - min(b[0] for _, b in boxes)


def _extent(boxes: list[Box]) -> Box:
    """What holds all scenes with a twelfth of air around, at least 0.02 degrees."""
    west, south = min(b[0] for b in boxes), min(b[1] for b in boxes)
    east, north = max(b[2] for b in boxes), max(b[3] for b in boxes)
    air_x, air_y = (max((high - low) / 12, 0.01) for low, high in ((west, east), (south, north)))
    return west - air_x, max(south - air_y, -90.0), east + air_x, min(north + air_y, 90.0)


def _graticule(draw: ImageDraw.ImageDraw, at, extent: Box, frame: Box) -> None:
    west, south, east, north = extent
    font = ImageFont.load_default(13)
    for lon in _lines(west, east, 6):
        x = at(lon, north)[0]
        draw.line((x, frame[1], x, frame[3]), fill="#d3d6d1", width=1)
        wrapped = (lon + 180) % 360 - 180
        draw.text((x, frame[3] + 6), _degrees(wrapped, "WE"), fill="#444444", font=font, anchor="ma")
    for lat in _lines(south, north, 5):
        y = at(west, lat)[1]
        draw.line((frame[0], y, frame[2], y), fill="#d3d6d1", width=1)
        draw.text((frame[0] - 6, y), _degrees(lat, "SN"), fill="#444444", font=font, anchor="rm")


def _lines(low: float, high: float, most: int) -> Iterator[float]:
    step = next((s for s in STEPS_DEG if (high - low) / s <= most), 90)
    return (round(i * step, 6) for i in range(math.ceil(low / step), math.floor(high / step) + 1))


def _degrees(value: float, sides: str) -> str:
    side = "" if value in (0, 180, -180) else sides[value > 0]
    return f"{abs(value):g}°{side}"


def _scene(draw: ImageDraw.ImageDraw, upper_left: tuple, lower_right: tuple, color: str) -> None:
    (x0, y0), (x1, y1), least = upper_left, lower_right, MARKER
    if x1 - x0 < least:
        x0, x1 = (x0 + x1 - least) / 2, (x0 + x1 + least) / 2
    if y1 - y0 < least:
        y0, y1 = (y0 + y1 - least) / 2, (y0 + y1 + least) / 2
    draw.rectangle((x0, y0, x1, y1), fill=color, outline="white", width=1)


def _words(draw: ImageDraw.ImageDraw, manifest: Manifest, boxes: list, color_of: dict[str, str], size: tuple) -> None:
    small, large = (ImageFont.load_default(points) for points in (14, 20))
    x = MARGINS["left"]
    kind = " (simulated)" if manifest.simulated else ""
    draw.text((x, 12), f"{manifest.name} {manifest.version}{kind}", fill="#111111", font=large)
    y = 48
    for split in manifest.splits:
        scenes = sum(name == split.name for name, _ in boxes)
        words = f"{split.name}: {scenes} scenes, {split.chips:,} chips"
        draw.rectangle((x, y, x + 14, y + 14), fill=color_of[split.name])
        draw.text((x + 20, y - 1), words, fill="#111111", font=small)
        x += 44 + draw.textlength(words, font=small)
    note = "Bounds of the scenes, longitude and latitude (WGS84)"
    if missing := len(manifest.scenes) - len(boxes):
        note += f"; {missing} scenes without a known place are not shown"
    place = (MARGINS["left"], size[1] - 26)
    draw.text(place, note, fill="#444444", font=ImageFont.load_default(12))
