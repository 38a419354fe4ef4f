"""From stored values to network input, on the device where the batch lies.

``Preprocess`` turns a batch in the data set's native dtype into normalised float32 channels and says which pixels are
valid; its JSON configuration is stored with every model's weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from .. import _compat  # noqa: F401
from ..errors import ConfigError, WeightsError
from .spec import Array, Band, Manifest, describe_validation

NORMALIZATIONS = ("manifest", "per_chip", "none")
CONTEXTS = ("bilinear", "nearest")
RANGE_MARGIN = 1e-4  # of GMNet's published normalisation, which keeps a constant band from dividing by 0
IGNORE = 255
# Below this share of the mean, a float32 standard deviation is rounding: such a band is constant.
CONSTANT_BAND = 1e-6


class Preprocess(nn.Module):
    """Stored values -> physical units -> band selection -> derived channels -> normalisation.

    Args:
        bands: every band of the input array, in stored order.
        select: names of the bands that become channels, in channel order.
        derived: further channels, each the physical difference of two bands, written ``"after-before"``.
        normalization: ``"manifest"`` = (x - mean) / std with fixed numbers; ``"per_chip"`` = the same with each chip's
            own mean and standard deviation over its valid pixels; ``"none"`` = physical units.
        mean, std: for ``"manifest"``, one number per channel in its physical unit.
        clip: lowest and highest normalised value; None: as they come.
        context: how ``predict`` shrinks the ground around a tile for models that take context: ``"bilinear"``, as
            builders do, or ``"nearest"``, 256 pixels evenly from corner to corner, as GMNet's authors do.
        partial: a pixel counts where at least one band has data (a scene that misses an orbit); else all must.

    Raises:
        ConfigError: unknown band or normalisation, no channels, or numbers that do not fit.
    """

    def __init__(
        self,
        bands: Sequence[Band],
        select: Sequence[str] | None = None,
        derived: Sequence[str] = (),
        normalization: str = "manifest",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        clip: Sequence[float] | None = None,
        context: str = "bilinear",
        partial: bool = False,
    ) -> None:
        super().__init__()
        names = [band.name for band in bands]
        self.bands = tuple(bands)
        self.select = tuple(names if select is None else select)
        self.derived = tuple(derived)
        self.normalization = normalization
        pairs = [_difference(text, names) for text in self.derived]
        for name in self.select:
            if name not in names:
                raise ConfigError(f"no band {name!r}, there is {', '.join(names)}")
        if not self.select and not pairs or len(set(self.channel_names)) != self.channels:
            raise ConfigError(f"channels must be at least one and all different, found {self.channel_names}")
        if normalization not in NORMALIZATIONS:
            raise ConfigError(f"no normalisation {normalization!r}, there is {', '.join(NORMALIZATIONS)}")
        if (normalization == "manifest") != (mean is not None and std is not None):
            raise ConfigError(f"normalisation {normalization!r} and mean/std do not go together")
        wanted = [*self.select, *(name for pair in pairs for name in pair)]
        self._used = [i for i, name in enumerate(names) if name in wanted]
        place = {names[i]: k for k, i in enumerate(self._used)}
        self._selected = [place[name] for name in self.select]
        self._pairs = [(place[a], place[b]) for a, b in pairs]
        self._buffer("scale", [self.bands[i].scale for i in self._used])
        self._buffer("offset", [self.bands[i].offset for i in self._used])
        mean = [0.0] * self.channels if mean is None else mean
        std = [1.0] * self.channels if std is None else std
        if len(mean) != self.channels or len(std) != self.channels:
            raise ConfigError(f"{len(mean)} means and {len(std)} deviations for {self.channels} channels")
        if not np.isfinite([*mean, *std]).all() or min(std) <= 0:
            raise ConfigError("mean and std must be finite and std above 0")
        self._buffer("mean", mean)
        self._buffer("std", std)
        if clip is not None and not (len(clip) == 2 and np.isfinite(clip).all() and clip[0] < clip[1]):
            raise ConfigError(f"clip must be the lowest and the highest value, found {clip}")
        if context not in CONTEXTS:
            raise ConfigError(f"no context {context!r}, there is {' and '.join(CONTEXTS)}")
        self.clip, self.context = None if clip is None else (float(clip[0]), float(clip[1])), context
        self.partial = bool(partial)

    def _buffer(self, name: str, values: Sequence[float]) -> None:
        # Not persistent: the JSON configuration is the one place where these numbers are stored.
        self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_manifest(
        cls,
        manifest: Manifest,
        bands: Sequence[str] | None = None,
        derived: Sequence[str] = (),
        normalization: str = "manifest",
        *,
        array: str | None = None,
        partial: bool = False,
    ) -> Preprocess:
        """For one array of a data set (the first one with the role ``image`` unless named).

        A difference's mean is the difference of the means. The manifest holds no covariance, so its deviation is that
        of independent bands, sqrt(a² + b²): too wide for dates that correlate, but of the right order.
        ``"range"`` is (x - min) / (max - min + 1e-4) of the training split, clipped to 0…1, for bands only.
        """
        declared = image_array(manifest) if array is None else manifest.array(array)
        select = [band.name for band in declared.bands] if bands is None else list(bands)
        if normalization not in ("manifest", "range"):
            return cls(declared.bands, select, derived, normalization, partial=partial)
        ranged = normalization == "range"
        if ranged and derived:
            raise ConfigError("a difference has no range in the manifest", where=manifest.name, hint="use manifest")
        statistics = {
            s.band: (s.min, s.max) if ranged else (s.mean, s.std)
            for s in manifest.statistics
            if s.array == declared.name
        }

        def numbers(name: str) -> tuple[float, float]:
            mean, std = statistics.get(name, (None, None))
            if mean is None or std is None:
                raise ConfigError(f"no statistics of band {name!r}", where=manifest.name, hint="use per_chip")
            return mean, std

        names = [band.name for band in declared.bands]
        unknown = [name for name in select if name not in names]
        if unknown:
            raise ConfigError(f"no band {unknown[0]!r}, there is {', '.join(names)}", where=manifest.name)
        if ranged:
            low, high = zip(*(numbers(name) for name in select), strict=True) if select else ((), ())
            width = [b - a + RANGE_MARGIN for a, b in zip(low, high, strict=True)]
            return cls(declared.bands, select, (), "manifest", low, width, clip=(0.0, 1.0), partial=partial)
        pairs = [[numbers(name) for name in _difference(text, names)] for text in derived]
        mean = [numbers(name)[0] for name in select] + [a[0] - b[0] for a, b in pairs]
        std = [numbers(name)[1] for name in select] + [math.hypot(a[1], b[1]) for a, b in pairs]
        return cls(
            declared.bands, select, derived, normalization, mean, [s if s > 0 else 1.0 for s in std], partial=partial
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocess:
        """The inverse of ``to_config``. Raises ConfigError naming what is unknown, missing or of the wrong type."""
        keys, optional = {"bands", "select", "derived", "normalization", "mean", "std"}, {"clip", "context", "partial"}
        if not isinstance(config, Mapping) or set(config) - optional != keys:
            found = sorted(map(str, config)) if isinstance(config, Mapping) else type(config).__name__
            raise ConfigError(
                f"a preprocess configuration has the keys {sorted(keys)} and may have {sorted(optional)}, found {found}"
            )
        for key in ("bands", "select", "derived"):
            if not isinstance(config[key], list | tuple):
                raise ConfigError(f"preprocess {key} must be a list, found {type(config[key]).__name__}")
            if key != "bands" and not all(isinstance(name, str) for name in config[key]):
                raise ConfigError(f"preprocess {key} must be names, found {str(config[key])[:80]}")
        try:
            bands = [Band.model_validate(band) for band in config["bands"]]
        except ValidationError as error:
            raise ConfigError(f"preprocess bands: {describe_validation(error)}") from None
        try:
            mean, std, clip = (
                None if config.get(key) is None else [float(v) for v in config[key]] for key in ("mean", "std", "clip")
            )
        except (TypeError, ValueError, OverflowError):
            raise ConfigError("preprocess mean, std and clip must be lists of numbers or null") from None
        return cls(
            bands,
            config["select"],
            config["derived"],
            config["normalization"],
            mean,
            std,
            clip,
            config.get("context", "bilinear"),
            config.get("partial", False),
        )

    def to_config(self) -> dict[str, Any]:
        """JSON values from which ``from_config`` makes an equal module."""
        fixed = self.normalization == "manifest"
        later = {} if self.clip is None else {"clip": list(self.clip)}
        if self.context != "bilinear":
            later["context"] = self.context
        if self.partial:
            later["partial"] = True
        return {
            "bands": [band.model_dump(mode="json") for band in self.bands],
            "select": list(self.select),
            "derived": list(self.derived),
            "normalization": self.normalization,
            "mean": self.mean.flatten().tolist() if fixed else None,
            "std": self.std.flatten().tolist() if fixed else None,
            **later,
        }

    def for_bands(self, bands: Sequence[Band]) -> Preprocess:
        """The same channels and numbers for an input whose bands are stored otherwise (order, scale, nodata).

        Raises:
            WeightsError: a needed band is missing or has another unit or sensor.
        """
        theirs = {band.name: band for band in bands}
        for own in (self.bands[i] for i in self._used):
            if own.name not in theirs:
                raise WeightsError(f"needs band {own.name!r}, the input has {', '.join(theirs)}")
            for what in ("unit", "sensor"):
                wanted, found = getattr(own, what), getattr(theirs[own.name], what)
                if wanted != found:
                    raise WeightsError(f"band {own.name!r}: {what} {wanted!r} expected, the input has {found!r}")
        return Preprocess.from_config(
            {**self.to_config(), "bands": [band.model_dump(mode="json") for band in bands]},
        )

    @property
    def channel_names(self) -> list[str]:
        """Selected bands, then derived channels."""
        return [*self.select, *self.derived]

    @property
    def needed(self) -> list[str]:
        """Names of the bands that some channel comes from, in the input's order."""
        return [self.bands[i].name for i in self._used]

    @property
    def channels(self) -> int:
        """Number of channels that ``forward`` returns."""
        return len(self.select) + len(self.derived)

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Preprocess a batch.

        Args:
            image: (B, C, H, W) stored values of all ``bands``, of any integer or float dtype.

        Returns:
            float32 (B, C', H, W), 0 where a channel has no data and never NaN; and bool (B, H, W), True where every
            band that was used has data (``partial``: where any has).
        """
        x, _, valid = self.channelwise(image)
        return x, valid

    @torch.no_grad()
    def channelwise(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As ``forward``, with bool (B, C', H, W) in between: where each channel has data."""
        stored, good = self._read(image)
        physical = (stored * self.scale + self.offset).to(torch.float32)
        x = torch.stack(
            [physical[:, k] for k in self._selected] + [physical[:, a] - physical[:, b] for a, b in self._pairs], 1
        )
        known = torch.stack([good[:, k] for k in self._selected] + [good[:, a] & good[:, b] for a, b in self._pairs], 1)
        if self.normalization == "manifest":
            x = (x - self.mean) / self.std
        elif self.normalization == "per_chip":
            x = standardize_per_chip(x, known)
        if self.clip is not None:
            x = x.clamp(*self.clip)
        return torch.where(known, x, 0.0), known, good.any(1) if self.partial else good.all(1)

    def missing_share(self, image: Tensor) -> Tensor:
        """float32 (B,): the share of pixels without data in the band of each chip that misses most, 0…1."""
        return 1 - self._read(image)[1].float().mean((2, 3)).amin(1)

    def _read(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The used bands' stored values, and bool of the same shape: finite and not nodata."""
        if image.ndim != 4 or image.shape[1] != len(self.bands):
            raise ConfigError(f"expected (B, {len(self.bands)}, H, W), found {tuple(image.shape)}")
        # float32 holds 16-bit integers exactly, not 32-bit ones.
        wide = torch.float64 if image.dtype.itemsize >= 4 and image.dtype != torch.float32 else torch.float32
        stored = torch.stack([image[:, i].to(wide) for i in self._used], 1)
        good = torch.isfinite(stored) if image.is_floating_point() else torch.ones_like(stored, dtype=torch.bool)
        for k, i in enumerate(self._used):
            if self.bands[i].nodata is not None:
                good[:, k] &= stored[:, k] != self.bands[i].nodata
        return stored, good


def standardize_per_chip(x: Tensor, known: Tensor) -> Tensor:
    """(B, C, H, W) with mean 0 and standard deviation 1 over each channel's known pixels; a constant channel gives 0.

    Unknown pixels come out as 0.
    """
    count = known.sum((2, 3), keepdim=True).clamp(min=1)
    mean = torch.where(known, x, 0.0).sum((2, 3), keepdim=True) / count
    centred = torch.where(known, x - mean, 0.0)
    std = (centred.square().sum((2, 3), keepdim=True) / count).sqrt()
    constant = std <= CONSTANT_BAND * mean.abs()
    return torch.where(constant, 0.0, centred / torch.where(constant, 1.0, std))


def image_array(manifest: Manifest) -> Array:
    """The first array with the role ``image``."""
    return next(array for array in manifest.arrays if array.role == "image")


def _difference(text: str, names: Sequence[str]) -> tuple[str, str]:
    """Split ``"after-before"`` into two band names (which may contain hyphens themselves)."""
    for position, letter in enumerate(text):
        if letter == "-" and text[:position] in names and text[position + 1 :] in names:
            return text[:position], text[position + 1 :]
    raise ConfigError(f"derived channel {text!r} is not a difference 'a-b' of two bands of {', '.join(names)}")
