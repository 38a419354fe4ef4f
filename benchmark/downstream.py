"""What harmonization is good for: NDVI and its series over two sensors, and parcels found by what Sentinel-2 taught.

Everything happens on simulated farmland (``datasets.simulate.l8s2_series``) whose parcels are known and which both
sensors see on the same days, so that what Sentinel-2 would have seen instead of Landsat-8 is known as well. Landsat's
products go through ``predict``, as anybody's would. The unit of inference is the location.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from . import reflectance
from .boundary import boundary_counts, boundary_f1
from .metrics import none, ratio
from .uncertainty import Estimate, estimate

RED, NIR = 2, 3
ROWS = ("nearest", "bilinear", "bicubic")
REFERENCE = "bicubic"
SENTINEL2 = "Sentinel-2"


@dataclass(frozen=True)
class Settings:
    """How much is simulated and trained; ``seed`` draws the ground, ``seeds`` are those of the parcel networks."""

    seed: int = 77
    size: int = 240
    train: int = 8
    test: int = 12
    dates: int = 5
    steps: int = 500
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class Location:
    """Test ground: ``s2`` and each of ``l8`` float32 (D, 6, H, W), ``parcels`` uint8 (H, W)."""

    s2: NDArray
    l8: Mapping[str, NDArray]
    parcels: NDArray


def ndvi(images: NDArray) -> NDArray[np.float64]:
    """(…, 6, H, W) reflectance to (…, H, W) in -1…1; 0 where both bands together are too dark to tell."""
    red, nir = (images[..., band, :, :].astype(np.float64) for band in (RED, NIR))
    whole = nir + red
    return np.divide(nir - red, whole, out=np.zeros_like(whole), where=np.abs(whole) > reflectance.INDEX_MIN_SUM).clip(
        -1, 1
    )


def bright(images: NDArray) -> NDArray[np.bool_]:
    """(…, 6, H, W) to (…, H, W): where red and near infrared suffice for an index."""
    return np.abs(images[..., RED, :, :] + images[..., NIR, :, :]) > reflectance.INDEX_MIN_SUM


def same_day_sums(location: Location, name: str) -> NDArray[np.float64]:
    """(8,) sums of Sentinel-2's NDVI against Landsat's of the same day, all days together.

    As those of ``reflectance.chip_sums``: number; sums, squares and product of both; absolute and squared error, where
    Sentinel-2 is not too dark to tell.
    """
    used = bright(location.s2)
    t, p = ndvi(location.s2)[used], ndvi(location.l8[name])[used]
    return np.array([t.size, *(v.sum() for v in (t, p, t * t, p * p, t * p, np.abs(p - t), np.square(p - t)))])


def series_sums(location: Location, name: str) -> NDArray[np.float64]:
    """Sums of the two series in which the sensors take turns, (2 + 6,).

    First the number of triplets and their squared noise: a date's NDVI against the line between its neighbours'
    (Vermote et al. 2009, doi 10.1109/TGRS.2008.2005977; the dates are evenly spaced). Then number, sums, squares and
    product of Sentinel-2's and the neighbouring date's Landsat NDVI. Pixels that Sentinel-2 sees too dark are left out.
    """
    s2 = ndvi(location.s2)
    l8 = s2 if name == SENTINEL2 else ndvi(location.l8[name])
    keep = bright(location.s2).all(0)
    s2, l8 = s2[:, keep], l8[:, keep]
    noise = [np.square(middle[1:-1] - (outer[:-2] + outer[2:]) / 2) for middle, outer in ((s2, l8), (l8, s2))]
    t, p = np.concatenate([s2[:-1], s2[1:]]), np.concatenate([l8[1:], l8[:-1]])
    pair = [float(v) for v in (t.size, t.sum(), p.sum(), (t * t).sum(), (p * p).sum(), (t * p).sum())]
    return np.array([sum(n.size for n in noise), sum(n.sum() for n in noise), *pair])


def series_noise(sums: NDArray) -> NDArray[np.float64]:
    """Root mean squared noise of a series from (…, 8)."""
    return np.sqrt(ratio(sums[..., 1], sums[..., 0]))


def parcel_counts(truth: NDArray, found: NDArray) -> NDArray[np.float64]:
    """(3 + 4,): true positives, false positives, false negatives; and those of the boundary (2 px)."""
    hit = np.count_nonzero((truth == 1) & (found == 1))
    counts = [hit, np.count_nonzero(found == 1) - hit, np.count_nonzero(truth == 1) - hit]
    return np.array([*counts, *boundary_counts(truth, found)], np.float64)


def parcel_iou(counts: NDArray) -> NDArray[np.float64]:
    """Intersection over union of the insides of parcels from (…, 7)."""
    return ratio(counts[..., 0], counts[..., :3].sum(-1))


def parcel_boundary(counts: NDArray) -> NDArray[np.float64]:
    """Boundary F1 from (…, 7)."""
    return boundary_f1(counts[..., 3:])


def gain(value: Callable[[NDArray], NDArray]) -> Callable[[NDArray], NDArray]:
    """``value`` of the first half of the sums minus that of the second, of the same units."""

    def difference(sums: NDArray) -> NDArray:
        half = sums.shape[-1] // 2
        return value(sums[..., :half]) - value(sums[..., half:])

    return difference


def score(tables: Mapping[str, Mapping[str, NDArray]]) -> dict[str, dict[str, Estimate]]:
    """Every figure of every row with its interval over locations, and what it gains over bicubic.

    Args:
        tables: ``same_day``, ``series`` and ``parcels``: by row the sums (S, U, K), S seeds and U locations.
    """
    figures = {
        "ndvi_r": ("same_day", reflectance.index_correlation, (-1, 1)),
        "ndvi_rmse": ("same_day", reflectance.index_rmse, (0, 2)),
        "ndvi_bias": ("same_day", reflectance.index_bias, (-2, 2)),
        "series_noise": ("series", series_noise, (0, 2)),
        "series_r": ("series", lambda sums: reflectance.index_correlation(sums[..., 2:]), (-1, 1)),
        "parcel_iou": ("parcels", parcel_iou, (0, 1)),
        "parcel_boundary_f1": ("parcels", parcel_boundary, (0, 1)),
    }
    found: dict[str, dict[str, Estimate]] = {}
    for key, (table, value, bounds) in figures.items():
        for row, sums in tables[table].items():
            own = found.setdefault(row, {})
            own[key] = estimate(sums, value, bounds=bounds)
            if row != REFERENCE:
                both = np.concatenate([sums, tables[table][REFERENCE]], -1)
                own[f"{key}_gain"] = estimate(both, gain(value), bounds=(-2, 2))
    return found


def as_markdown(found: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Three tables: NDVI of the same day, the alternating series, parcels."""
    parts = [
        ("NDVI, same day", ("ndvi_r", "ndvi_rmse", "ndvi_bias")),
        ("NDVI, sensors in turns", ("series_noise", "series_r")),
        ("Parcels", ("parcel_iou", "parcel_boundary_f1")),
    ]
    lines = []
    for title, keys in parts:
        heads = [h for key in keys for h in (key, *([f"against {REFERENCE}"] if key != "ndvi_bias" else []))]
        lines += [f"| {title} | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
        for row, own in found.items():
            cells = [
                _cell(own.get(name)) for key in keys for name in (key, *([f"{key}_gain"] if key != "ndvi_bias" else []))
            ]
            if any(cells):
                lines.append(f"| {row} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(found: Estimate | None) -> str:
    if found is None:
        return ""
    interval = f" [{found.low:.4f}, {found.high:.4f}]" if found.low is not None else ""
    return f"{found.mean:.4f}{interval}"


def as_json(found: Mapping[str, Mapping[str, Estimate]], settings: Settings, facts: Mapping[str, object]) -> str:
    """The same with every seed's score; null where it is not defined."""
    rows = {
        row: {
            key: {
                "mean": none(e.mean),
                "sd": None if e.sd is None else none(e.sd),
                "low": e.low,
                "high": e.high,
                "seeds": list(map(none, e.seeds)),
            }
            for key, e in own.items()
        }
        for row, own in found.items()
    }
    content = {"settings": asdict(settings), **facts, "rows": rows}
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
