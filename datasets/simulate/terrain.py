"""Fractal terrain, the lakes that fill its depressions and the rivers that drain it.

Sources:
    Spectral synthesis: D. Saupe, "Algorithms for random fractals", in "The Science of Fractal Images" (1988), ch. 2.
    Depression filling and flow directions in one pass: R. Barnes, C. Lehman, D. Mulla, "Priority-flood", Computers
        and Geosciences 62 (2014), doi 10.1016/j.cageo.2013.04.024.
    River width 7.2 * Q^0.5 m: K. M. Andreadis et al., "A simple global river bankfull width and depth database",
        Water Resources Research 49 (2013), doi 10.1002/wrcr.20440.
"""

from __future__ import annotations

import heapq

import numpy as np
from scipy import fft, ndimage

RUNOFF_M3_S_KM2 = 0.01  # 315 mm a year, about the global mean over land
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def fractal(rng: np.random.Generator, size: int, exponent: float, outer_px: float | None = None) -> np.ndarray:
    """A random field with the power spectrum f^-exponent, mean 0 and standard deviation 1.

    Args:
        rng: source of the noise.
        size: side in pixels.
        exponent: 2H + 2 for a surface of Hurst exponent H (terrain: 3 to 4); larger is smoother.
        outer_px: wavelengths above it carry no more power than it does; none by default.

    Returns:
        (size, size) float32.
    """
    side = fft.next_fast_len(size + size // 4, real=True)  # the spectrum is periodic: a part of it is not
    noise = rng.standard_normal((side, side), dtype=np.float32)
    frequency = np.hypot(fft.fftfreq(side)[:, None], fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    lowest = 0 if outer_px is None else 1 / outer_px
    amplitude = np.maximum(frequency, lowest) ** (-exponent / 2)
    field = fft.irfft2(fft.rfft2(noise) * amplitude.astype(np.float32), (side, side))[:size, :size]
    return ((field - field.mean()) / field.std()).astype(np.float32)


def drain(height_m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill every depression to its spill level, water leaving over the last row alone.

    Returns:
        filled: (H, W) water level that a rain without end would reach.
        receiver: (H*W,) flat index of the cell that each cell drains to; outlets drain to themselves.
        order: (H*W,) flat indices from the outlets upstream.
    """
    rows, columns = height_m.shape
    level = height_m.astype(float).ravel().tolist()
    receiver = [-1] * (rows * columns)
    order: list[int] = []
    heap = [(level[i], i) for i in range((rows - 1) * columns, rows * columns)]
    for _, cell in heap:
        receiver[cell] = cell
    heapq.heapify(heap)
    while heap:
        here, cell = heapq.heappop(heap)
        order.append(cell)
        row, column = divmod(cell, columns)
        for down, right in NEIGHBOURS:
            if 0 <= row + down < rows and 0 <= column + right < columns:
                other = cell + down * columns + right
                if receiver[other] < 0:
                    receiver[other] = cell
                    level[other] = max(level[other], here)
                    heapq.heappush(heap, (level[other], other))
    return np.array(level).reshape(rows, columns), np.array(receiver), np.array(order)


def accumulate(receiver: np.ndarray, order: np.ndarray, supply: np.ndarray) -> np.ndarray:
    """Flow through each cell: its own supply and that of all cells upstream."""
    flow = supply.astype(float).ravel().tolist()
    targets = receiver.tolist()
    for cell in reversed(order.tolist()):
        if targets[cell] != cell:
            flow[targets[cell]] += flow[cell]
    return np.array(flow)


def lakes(height_m: np.ndarray, coarse_m: np.ndarray, filled_m: np.ndarray, share: float, least_px: int) -> np.ndarray:
    """Water in the deepest depressions, their levels lowered together until ``share`` of the scene is covered.

    Args:
        height_m: (H, W) terrain.
        coarse_m: (h, w) its block means, and filled_m their filled surface; H is a multiple of h.
        share: share of the scene to cover, reached where the depressions are deep enough.
        least_px: smaller lakes and islands are dropped.

    Returns:
        (H, W) bool.
    """
    factor = height_m.shape[0] // coarse_m.shape[0]
    depth = filled_m - coarse_m
    drop = max(float(np.quantile(depth, 1 - share)), 0.3)
    level = np.where(depth > 0, filled_m - drop, -np.inf)
    water = np.repeat(np.repeat(level, factor, 0), factor, 1) > height_m
    return drop_small(water, least_px)


def rivers(
    receiver: np.ndarray,
    flow_km2: np.ndarray,
    grid: tuple[int, int],
    factor: int,
    rng: np.random.Generator,
    pixel_m: float,
    least_km2: float,
) -> np.ndarray:
    """Channels where enough water flows, meandering off the grid's directions, as wide as their discharge makes them.

    Args:
        receiver: (h*w,) from ``drain`` on the coarse grid.
        flow_km2: (h*w,) upstream area.
        grid: (h, w).
        factor: pixels of the scene per coarse cell.
        rng: source of the meanders.
        pixel_m: pixel of the scene.
        least_km2: upstream area where a channel begins.

    Returns:
        (h*factor, w*factor) bool.
    """
    import shapely
    from rasterio import features

    rows, columns = grid
    cells = np.flatnonzero(flow_km2 >= least_km2)
    out = np.zeros((rows * factor, columns * factor), np.uint8)
    if not len(cells):
        return out.astype(bool)
    points = np.stack(np.divmod(np.arange(rows * columns), columns), 1) + 0.5
    points += np.stack([1.2 * fractal(rng, max(grid), 3.4, 24)[:rows, :columns].ravel() for _ in range(2)], 1)
    donors = np.zeros((rows * columns, 3))
    for _ in range(4):  # the mean with what flows in and out rounds the corners of eight directions
        donors[:] = 0
        np.add.at(donors, receiver[cells], np.column_stack([points[cells], np.ones(len(cells))]))
        upstream = np.where(donors[:, 2:] > 0, donors[:, :2] / np.maximum(donors[:, 2:], 1), points)
        points = (points + upstream + points[receiver]) / 3
        points[:columns, 0], points[-columns:, 0] = 0, rows  # what comes from outside, or leaves, meets the border
    width_m = 7.2 * np.sqrt(RUNOFF_M3_S_KM2 * flow_km2[cells])
    ends = np.stack([points[cells], points[receiver[cells]]], 1)[:, :, ::-1] * factor
    channels = shapely.buffer(shapely.linestrings(ends), np.maximum(width_m / 2, 0.6 * pixel_m) / pixel_m)
    features.rasterize(channels, out=out, default_value=1)
    return out.astype(bool)


def drop_small(mask: np.ndarray, least_px: int) -> np.ndarray:
    """The mask without connected parts, and without holes, of fewer than ``least_px`` pixels."""
    for _ in range(2):
        labels, _ = ndimage.label(mask)
        large = np.bincount(labels.ravel()) >= least_px
        large[0] = False
        mask = ~large[labels]  # the complement: holes next, and back to the mask in the second round
    return mask
