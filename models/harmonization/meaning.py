"""What weights of a harmonization must say beside the image's bands: the panchromatic band, the answer, the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from ...datasets.spec import Band, Strict
from ...datasets.transforms import Preprocess
from ...errors import WeightsError


class Meaning(Strict):
    """The key ``harmonization`` of ``config.json``.

    ``pan`` is the ``Preprocess`` configuration of the panchromatic input; ``target`` the bands of the answer, whose
    values are physical (reflectance 0…1) whatever their storage; ``loss`` and ``residual`` as they were trained.
    """

    pan: dict[str, Any] | None
    target: tuple[Band, ...] = Field(min_length=1, max_length=64)
    loss: str = Field(max_length=200)
    residual: bool

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
