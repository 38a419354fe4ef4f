"""Simulated raw scenes: Sentinel-1-like backscatter with true water polygons, and products of the four systems."""

from __future__ import annotations

from ..._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {"simulate_scenes": ".write", "simulate_scene": ".scenes", "SceneInfo": ".scenes", "simulate_product": ".products"},
)
