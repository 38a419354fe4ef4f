"""A demonstration on one real pair: Landsat-8 and Sentinel-2, red, green and blue in 8 bits, ten days apart.

``python -m tidemark.benchmark.real_pair ../shared/data/landsat8-sentinel2-pair`` fits on the left half and scores on
the right one: bicubic, one line per band, and a small network that is added to bicubic. It is no benchmark: one place,
three bands, surface against top-of-atmosphere reflectance, both stretched to 8 bits (divided by 255 here), and no
panchromatic band, for which the mean of the three bands stands in. There is one place, so there is no interval.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from .. import _compat  # noqa: F401  isort: skip
import numpy as np
import torch
from torch import Tensor

from ..datasets.files import write_atomic
from ..datasets.grids import grid_between
from ..datasets.pair_geometry import PairOptions, nearest_pixels, vary
from ..datasets.raster import open_raster
from ..errors import InputError, TidemarkError
from ..models.harmonization.harmonizer import Harmonizer
from ..models.harmonization.losses import HarmonizationLoss
from ..models.harmonization.resample import resample
from ..models.harmonization.rows import line
from ..models.registry import ModelSpec, create_model
from . import reflectance

FILES = ("landsat8_byte.tif", "sentinel2_b432_byte.tif")
LANDSAT_BANDS, BANDS = (4, 3, 2), ("red", "green", "blue")  # SR_B4, SR_B3, SR_B2; B4, B3, B2
GUARD_PX = 96  # between the halves, wider than what the network sees around a pixel
# Close to the cpu profile of the table l8s2-sim, chosen on its validation tiles; nothing was chosen on this pair.
CROP, STEPS, LEARNING_RATE, LOSS = 96, 600, 3e-3, "mixed-gradient"
ARGUMENTS = {"depth": 3, "channels": 16, "residual": True}
MAX_PIXELS = 1 << 25


@dataclass(frozen=True)
class Half:
    """One side of the pair as a batch of one, see ``datasets.pairs``: image, pan, target, valid and the grids."""

    batch: dict[str, Tensor]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the target."""
        return tuple(self.batch["target"].shape[-2:])

    def interpolated(self, mode: str = "bicubic") -> Tensor:
        """(1,3,H,W): the image on the target's grid."""
        return resample(self.batch["image"], self.batch["grid_image"], self.size, mode)

    def answer(self, network: torch.nn.Module) -> Tensor:
        """(1,3,H,W): what the network makes of it."""
        keys = ("image", "pan", "grid_image", "grid_pan")
        with torch.inference_mode():
            return Harmonizer(network.eval())(*(self.batch[key] for key in keys), self.size)


def read_pair(folder: Path) -> tuple[Half, Half]:
    """The left half, to fit on, and the right half, to score on; between them lies a guard of 96 target pixels.

    Raises:
        InputError: a file is missing, has not the bands, or the grids are not in one CRS.
        SceneError: a file that cannot be read.
    """
    arrays, transforms, systems = [], [], []
    for name, wanted in zip(FILES, (LANDSAT_BANDS, (1, 2, 3)), strict=True):
        path = Path(folder) / name
        if not path.is_file():
            raise InputError("no such file", where=path, hint="it is leftfield-geospatial/homonim's pair")
        with open_raster(path) as file:
            if file.count < max(wanted) or file.width * file.height > MAX_PIXELS:
                raise InputError(f"{file.count} bands of {file.height} x {file.width} pixels", where=path)
            arrays.append(torch.from_numpy(file.read(wanted).astype(np.float32) / 255))
            transforms.append(tuple(file.transform)[:6])
            systems.append(file.crs)
    if systems[0] != systems[1]:
        raise InputError("the two images are not in one CRS", where=folder)
    image, target = arrays
    grid = torch.from_numpy(grid_between(*transforms))[None]
    known = (target > 0).all(0) & nearest_pixels((image > 0).all(0)[None], grid, target.shape[1:])[0]
    middle = target.shape[2] // 2
    parts = ((0, middle - GUARD_PX // 2), (middle + GUARD_PX // 2, target.shape[2]))
    return tuple(_half(image, target[..., a:b], known[:, a:b], grid, a) for a, b in parts)


def _half(image: Tensor, target: Tensor, valid: Tensor, grid: Tensor, first: int) -> Half:
    grid = grid.clone()
    grid[:, 1] += grid[:, 0] * first
    pan = image.mean(0, keepdim=True).repeat_interleave(2, 1).repeat_interleave(2, 2)
    found = {
        "image": image,
        "pan": pan,
        "target": target,
        "valid": valid,
        "grid_image": grid[0],
        "grid_pan": 2 * grid[0],
    }
    return Half({name: values[None] for name, values in found.items()})


def fit_line(half: Half) -> tuple[Tensor, Tensor]:
    """Slope and offset (1,3,1,1) of each band from bicubic to target."""
    valid = half.batch["valid"][0].numpy()
    x, y = (v[0].numpy()[:, valid].astype(np.float64) for v in (half.interpolated(), half.batch["target"]))
    found = line(np.full(len(x), x.shape[1]), x.sum(1), y.sum(1), (x * x).sum(1), (x * y).sum(1))
    return tuple(torch.from_numpy(v.astype(np.float32)).view(1, -1, 1, 1) for v in found)


def train(half: Half, steps: int = STEPS, seed: int = 0) -> torch.nn.Module:
    """A small residual SRUNet, by the mixed gradient error on random crops of the half."""
    torch.manual_seed(seed)
    network = create_model("srunet", ModelSpec({"image": 3, "pan": 1}, 3), **ARGUMENTS)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.2)
    harmonizer, loss = Harmonizer(network), HarmonizationLoss(LOSS)
    options = PairOptions(flip=True, rotate90=True, crop=CROP)
    for step in range(steps):
        batch = vary(half.batch, options, seed=seed, epoch=0, step=step)
        answer = harmonizer(batch["image"], batch["pan"], batch["grid_image"], batch["grid_pan"], (CROP, CROP))
        optimizer.zero_grad()
        loss(answer, batch["target"], batch["valid"]).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network


def scores(half: Half, answer: Tensor) -> dict[str, float]:
    """PSNR, PSNR at the best shift, SSIM, NRMSE, SAM and the bands' PSNR, as the protocol defines them."""
    truth, valid = half.batch["target"][0].numpy(), half.batch["valid"][0].numpy()
    sums = reflectance.chip_sums(truth, answer[0].numpy(), valid, {})
    return {
        "psnr": float(reflectance.psnr(sums)),
        "psnr_shifted": float(reflectance.shifted_psnr(sums)),
        "ssim": float(reflectance.band_ssim(sums).mean()),
        "nrmse": float(reflectance.band_nrmse(sums).mean()),
        "sam": float(reflectance.spectral_angle(sums)),
        **{f"psnr:{band}": float(v) for band, v in zip(BANDS, reflectance.band_psnr(sums), strict=True)},
    }


def demonstrate(folder: str | Path, steps: int = STEPS, seeds: int = 3) -> dict[str, dict[str, float]]:
    """Fit on the left half, score on the right one; the network's figures are means over its seeds.

    Raises:
        InputError, SceneError: see `read_pair`.
    """
    left, right = read_pair(Path(folder))
    slope, offset = fit_line(left)
    bicubic = right.interpolated()
    found = {
        "bicubic": scores(right, bicubic),
        "bicubic, linear per band": scores(right, bicubic * slope + offset),
    }
    runs = [scores(right, right.answer(train(left, steps, seed))) for seed in range(seeds)]
    network = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    deviation = float(np.std([run["psnr"] for run in runs], ddof=1)) if seeds > 1 else float("nan")
    return found | {"SRUNet, residual": network | ({"psnr_sd": deviation} if seeds > 1 else {})}


def main(arguments: list[str] | None = None) -> None:
    """The command line: a table on standard output, and JSON where wanted."""
    parser = argparse.ArgumentParser(prog="python -m tidemark.benchmark.real_pair", description=__doc__.split("\n")[0])
    parser.add_argument("pair", type=Path, help=f"folder with {' and '.join(FILES)}")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of the network")
    parser.add_argument("--seeds", type=int, default=3, help="networks to train")
    parser.add_argument("--out", type=Path, help="JSON to write")
    given = parser.parse_args(arguments)
    try:
        if not 1 <= given.steps <= 100_000 or not 1 <= given.seeds <= 100:
            raise InputError(f"steps 1 to 100000 and seeds 1 to 100, found {given.steps} and {given.seeds}")
        found = demonstrate(given.pair, given.steps, given.seeds)
    except TidemarkError as error:
        print(f"tidemark: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    print("| right half | PSNR (dB) | best shift | SSIM | NRMSE | SAM (°) |\n|---|---|---|---|---|---|")
    for name, score in found.items():
        spread = f" ± {score['psnr_sd']:.2f}" if "psnr_sd" in score else ""
        print(
            f"| {name} | {score['psnr']:.2f}{spread} | {score['psnr_shifted']:.2f} | {score['ssim']:.3f} "
            f"| {score['nrmse']:.3f} | {score['sam']:.2f} |"
        )
    if given.out is not None:
        write_atomic(given.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
