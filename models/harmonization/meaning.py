"""What weights of a harmonization must say beside the image's bands: the panchromatic band, the answer, the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ...datasets.spec import Band, Sha256, SplitName, Strict
from ...datasets.transforms import Preprocess
from ...errors import WeightsError

Share = Annotated[float, Field(gt=0, lt=1)]
Factor = Annotated[float, Field(gt=0, lt=1e6)]


class SigmaScale(Strict):
    """What a standard deviation is multiplied by so that mean ± factor · sigma covers a given share of the truth.

    Attributes:
        method: ``gaussian``, ``mc-dropout`` or ``ensemble``.
        passes: of ``mc-dropout``; 1 otherwise.
        members: sha256 of the weights that answered, in their order.
        levels: shares, rising, 0.68 and 0.95 among them.
        factors: by band of the answer and level, as they were found on ``split`` of ``content_sha256``.
    """

    method: Literal["gaussian", "mc-dropout", "ensemble"]
    passes: int = Field(ge=1, le=10_000)
    members: tuple[Sha256, ...] = Field(min_length=1, max_length=100)
    levels: tuple[Share, ...] = Field(min_length=1, max_length=100)
    factors: tuple[tuple[Factor, ...], ...] = Field(min_length=1, max_length=64)
    split: SplitName
    content_sha256: Sha256

    @model_validator(mode="after")
    def _complete(self) -> SigmaScale:
        if any(len(of_band) != len(self.levels) for of_band in self.factors):
            raise ValueError("a band needs one factor for each level")
        if not {0.68, 0.95} <= set(self.levels) or list(self.levels) != sorted(set(self.levels)):
            raise ValueError("levels must rise and hold 0.68 and 0.95")
        return self

    def at(self, level: float) -> tuple[float, ...]:
        """The factor of each band for one of ``levels``."""
        return tuple(of_band[self.levels.index(level)] for of_band in self.factors)


class Meaning(Strict):
    """The key ``harmonization`` of ``config.json``.

    ``pan`` is the ``Preprocess`` configuration of the panchromatic input; ``target`` the bands of the answer, whose
    values are physical (reflectance 0…1) whatever their storage; ``loss`` and ``residual`` as they were trained;
    ``sigma`` how a standard deviation is scaled, once ``tidemark uncertainty`` has found it.
    """

    pan: dict[str, Any] | None
    target: tuple[Band, ...] = Field(min_length=1, max_length=64)
    loss: str = Field(max_length=200)
    residual: bool
    sigma: SigmaScale | None = None

    def pan_preprocess(self, bands: Sequence[Band] | None = None) -> Preprocess | None:
        """From stored values of these bands (by default those trained with) to the network's ``pan``.

        Raises:
            WeightsError: a band is missing, or has another unit or sensor than the weights were trained with.
        """
        if self.pan is None:
            return None
        own = Preprocess.from_config(self.pan).eval()
        return own if bands is None else own.for_bands(bands)

    def check_target(self, bands: Sequence[Band], where: object) -> None:
        """Raises WeightsError unless these are the bands that the network answers, in their order and unit."""
        own, theirs = ([(b.name, b.unit, b.sensor) for b in some] for some in (self.target, bands))
        if own != theirs:
            found, wanted = (", ".join(f"{n} ({s}, {u})" for n, u, s in some) for some in (own, theirs))
            raise WeightsError(f"the weights answer {found}, the data set wants {wanted}", where=where)
