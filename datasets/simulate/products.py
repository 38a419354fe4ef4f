"""Simulated products of one of the four systems, as its archives deliver them.

What makes real scenes hard is meant to be in them: speckle, wind, layover and shadow, dark sand, mixed pixels, clouds
and their shadows, misregistration, errors of the atmospheric correction, rough polygons. Not in them: geometry along
the flight path, flooded vegetation, ice on lakes, boats and bridges, reflectance that changes with the view angle, thin
cirrus, and any class of ground that ``world.py`` and ``ice.py`` do not list.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ... import __version__
from ...errors import InputError
from ..files import write_atomic
from .rasters import NOTICE

# product: module, function, smallest and largest size, multiple of the size, size by default
PRODUCTS: dict[str, tuple[str, str, int, int, int, int]] = {
    "alos-dswe": (".alos_dswe", "simulate_alos_dswe", 128, 4096, 1, 1024),
    "tibet-water": (".tibet", "simulate_tibet_water", 128, 4096, 1, 1024),
    "polar-ice": (".polar", "simulate_polar_ice", 128, 4096, 1, 1024),
    "l8s2": (".l8s2", "simulate_l8s2", 128, 2560, 2, 768),  # its ground has four times as many pixels
}
# Each on ground of its own, of l8s2 a 100 km square.
MAX_SCENES = {"alos-dswe": 72, "tibet-water": 72, "polar-ice": 72, "l8s2": 120}


def refuse_options(**given) -> None:
    """Raise InputError for options that are set (true) but do not apply to products."""
    unread = [f"--{name}" for name, value in given.items() if value not in (None, False)]
    if unread:
        raise InputError(
            f"{', '.join(unread)} does not apply to a product", hint="leave it out, or leave out --product"
        )


def simulate_product(
    product: str, out: str | Path, seed: int = 0, scenes: int = 4, size: int | None = None, wide: bool = False
) -> list[Path]:
    """Write simulated raw scenes of a system in its archives' folders, names, types and metadata.

    The same arguments give the same bytes, and a scene does not depend on how many others there are. Beside them
    ``simulation.json`` says that they are simulated, and from what; builders mark their data sets by it.

    Args:
        product: alos-dswe, tibet-water, polar-ice or l8s2.
        out: an empty or missing folder.
        seed: every draw derives from it.
        scenes: how many scenes (pairs of scenes for alos-dswe and l8s2).
        size: side in pixels of the product's own grid (12.5 m, 10 m, 40 m, 10 m); 2048 takes
            about 1 GiB of memory, for l8s2 4 GiB.
        wide: of tibet-water: lakes, and dark sand that looks like them, broader than a chip.

    Returns:
        The files or folders of the scenes.

    Raises:
        InputError: an unknown product, a number outside its range, a folder that holds something.
        StorageError: the folder is not writable or full.
    """
    if product not in PRODUCTS:
        raise InputError(f"no such product: {product}", hint=f"one of {', '.join(PRODUCTS)}")
    module, function, least, most, multiple, default = PRODUCTS[product]
    size = default if size is None else size
    most_scenes = MAX_SCENES[product]
    if not 1 <= scenes <= most_scenes or seed < 0:
        raise InputError(f"scenes must be 1 to {most_scenes} and the seed not negative, found {scenes} and {seed}")
    if not least <= size <= most or size % multiple:
        raise InputError(f"size must be {least} to {most} and a multiple of {multiple}, found {size}")
    if wide and product != "tibet-water":
        raise InputError("wide ground is there for tibet-water alone", where=product)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("not an empty folder", where=out, hint="name a new one")
    make: Callable[..., list[Path]] = getattr(import_module(module, __package__), function)
    facts = {
        "notice": NOTICE,
        "product": product,
        "tidemark": __version__,
        "seed": seed,
        "scenes": scenes,
        "size": size,
    }
    options = {"wide": True} if wide else {}
    write_atomic(out / "simulation.json", json.dumps(facts | options, indent=1) + "\n")
    return make(out, seed=seed, scenes=scenes, size=size, **options)
