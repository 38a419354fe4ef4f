"""Harmonized maps beside what they were made from, as one picture: ``python -m tidemark.models.l8_figure``."""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..datasets import raster
from ..datasets.files import write_atomic
from ..errors import InputError
from .reflectance_cog import NODATA, SCALE

COLOURS = {"true": (3, 2, 1), "false": (4, 3, 2)}  # bands from 1: red, green, blue; nir, red, green
STRETCH = (2, 98)  # percentiles of the first column, by row and channel
GAP_PX, TITLE_PX = 4, 16
NO_DATA_RGB = 235


def side_by_side(
    rows: Sequence[Sequence[Path]],
    titles: Sequence[str],
    out: Path,
    *,
    centre: tuple[float, float] | None = None,
    size: int = 192,
    colours: str = "false",
    zoom: int = 1,
) -> Path:
    """Draw a crop of several reflectance files of the same ground, one row a scene; every row has one stretch.

    Args:
        rows: files of ``predict``, as many in each row as there are titles.
        titles: of the columns.
        out: PNG of 256 colours.
        centre: of the crop in the CRS of the files; by default that of the first one.
        size: pixels of the crop a side; ``zoom``: how many times each is drawn.
        colours: ``true`` or ``false`` (nir, red, green).

    Raises:
        InputError: rows of another length, unknown colours, or a crop outside a file.
    """
    from PIL import Image, ImageDraw

    if colours not in COLOURS:
        raise InputError(f"no colours {colours!r}", hint=f"there is {', '.join(COLOURS)}")
    if any(len(row) != len(titles) for row in rows):
        raise InputError(f"{len(titles)} titles, and rows of {', '.join(str(len(row)) for row in rows)} files")
    step = size * zoom + GAP_PX
    picture = Image.new("RGB", (step * len(titles) - GAP_PX, TITLE_PX + step * len(rows) - GAP_PX), "white")
    draw = ImageDraw.Draw(picture)
    for column, title in enumerate(titles):
        draw.text((column * step + 2, 2), title, fill="black")
    for number, row in enumerate(rows):
        crops = [_crop(path, centre, size, COLOURS[colours]) for path in row]
        known = crops[0][:, (crops[0] != NODATA).all(0)]
        if not known.size:
            raise InputError("no data in the crop", where=row[0])
        low, high = np.percentile(known * SCALE, STRETCH, axis=1)
        for column, crop in enumerate(crops):
            part = (crop * SCALE - low[:, None, None]) / np.maximum(high - low, 1e-4)[:, None, None]
            pixels = np.where(crop == NODATA, NO_DATA_RGB, np.clip(part * 255, 0, 255)).astype(np.uint8)
            image = Image.fromarray(np.moveaxis(pixels, 0, -1)).resize((size * zoom,) * 2, Image.Resampling.NEAREST)
            picture.paste(image, (column * step, TITLE_PX + number * step))
    buffer = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    write_atomic(out, buffer.getvalue())
    return out


def _crop(path: Path, centre: tuple[float, float] | None, size: int, bands: tuple[int, ...]) -> np.ndarray:
    with raster.open_raster(path) as file:
        x, y = centre or file.xy(file.height // 2, file.width // 2)
        row, column = file.index(x, y)
        window = (row - size // 2, column - size // 2, size, size)
        return raster.read_window(file, window, bands, NODATA).astype(np.float32)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tidemark.models.l8_figure", description=__doc__)
    parser.add_argument("column", nargs="+", metavar="TITLE=FOLDER", help="folder of reflectance files, one a scene")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--centre", type=float, nargs=2, metavar=("X", "Y"), help="of the crop, in the files' CRS")
    parser.add_argument("--size", type=int, default=192, help="pixels of the crop a side")
    parser.add_argument("--zoom", type=int, default=1)
    parser.add_argument("--colours", default="false", choices=sorted(COLOURS))
    given = parser.parse_args()
    columns = [text.partition("=")[::2] for text in given.column]
    names = sorted(path.name for path in Path(columns[0][1]).glob("*_10m.tif"))
    rows = [[Path(folder) / name for _, folder in columns] for name in names]
    centre = tuple(given.centre) if given.centre else None
    print(
        side_by_side(
            rows, [t for t, _ in columns], given.out, centre=centre, size=given.size, colours=given.colours,
            zoom=given.zoom,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
