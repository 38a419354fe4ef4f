"""The data sets that have a name: one small class each, documented as TorchGeo documents its data sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..errors import InputError
from .chips import ChipDataset


class PublishedDataset(ChipDataset):
    """A data set that has a name, found at ``<root>/<name>/<version>``."""

    name: ClassVar[str]

    def __init__(
        self,
        root: str | Path = "data",
        split: str = "train",
        version: str = "1.0.0",
        bands: Sequence[str] | None = None,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        download: bool = False,
        checksum: bool = True,
        variant: str = "",
        repo: str | None = None,
    ) -> None:
        """Open one split.

        Args:
            root: folder that holds the data sets, as ``tidemark build --out`` takes it.
            split: "train", "val" or "test".
            version: semantic version of the data set; another major version holds other pixels, labels or splits.
            bands: names of the bands wanted, in that order; all by default.
            transforms: takes a sample and returns the changed sample.
            download: pull the split from the Hugging Face Hub where it is missing; needs ``repo``.
            checksum: compare every chip with its stored checksum.
            variant: what the builder appended to the name, such as "sim" (made from simulated products).
            repo: ``ORG/NAME`` on the Hub.

        Raises:
            DatasetNotFoundError: the data set is not in ``root``.
            InputError: ``download`` without a ``repo``, a band does not exist, or another data set lies there.
        """
        name = f"{self.name}-{variant}" if variant else self.name
        super().__init__(Path(root) / name / version, split, bands, transforms, download, checksum, repo)
        if (self.manifest.name, self.manifest.version) != (name, version):
            raise InputError(
                f"expected {name} {version}, found {self.manifest.name} {self.manifest.version}", where=self.root
            )


class OMBRIA(PublishedDataset):
    """OMBRIA flood mapping with Sentinel-1.

    `OMBRIA <https://github.com/geodrak/OMBRIA>`__ maps the extent of floods from a Sentinel-1 image before and one
    after the event.

    Dataset features:

    * pairs of Sentinel-1 chips (256x256 px), before and after a flood, in 8 bits; every chip appears to be stretched
      on its own, the polarisation is not stated
    * masks of the flood extent (not of all water) from Copernicus EMS Rapid Mapping
    * no georeference and no dates
    * splits: blocks of neighbouring training chips for train and val, the flood events of 2021 (Albania, Guyana and
      Timor-Leste, one scene each) as test; the published test split leaks and is not used

    Dataset format:

    * HDF5 shards, one per scene: ``image`` uint8 (N, 2, 256, 256), ``mask`` uint8 (N, 256, 256)

    Dataset classes:

    0. not flooded
    1. flood

    If you use this dataset in your research, please cite the following paper:

    * https://doi.org/10.1109/JSTARS.2022.3155559

    .. note::

       The source states no licence, so the data set is not distributed: build it from the authors' repository with
       ``tidemark build ombria``.

    .. versionadded:: 0.1
    """

    name = "ombria"


class PolarPatch(PublishedDataset):
    """polar-patch: sea, ice and land around Greenland in Sentinel-1 EW patches.

    `polar-patch <https://github.com/ysbecca/polar-patch>`__ holds patches of Sentinel-1 Extra Wide swath scenes with
    the class of the ground in their middle.

    Dataset features:

    * patches of 64x64 px with two channels, HH and HV, in 8 bits, stretched by the source
    * one label per patch, that of its middle
    * no georeference and no scene ids; splits are blocks along the sampler's passes with guard bands between them

    Dataset format:

    * HDF5 shards: ``image`` uint8 (N, 2, 64, 64), ``label`` uint8 (N,)

    Dataset classes:

    0. water
    1. ice
    2. land

    If you use this dataset in your research, please cite its source:

    * https://github.com/ysbecca/polar-patch

    .. note::

       Version 1.0.0 has the labels as the source stores them, without the blank patches. In the source, pixels and
       labels come from transposed places; version 2.0.0 has labels derived from that finding ("repaired"), and fewer
       patches. Results on the two do not compare. The source states no licence: build the data set with
       ``tidemark build polar-patch``.

    .. versionadded:: 0.1
    """

    name = "polar-patch"


class ALOSDSWE(PublishedDataset):
    """ALOS-DSWE: surface water from L-band SAR, optical and terrain layers.

    Chips on the grid of ALOS PALSAR scenes with the water that Landsat saw within a day, by the rules of
    `dl-with-alos-dswe <https://github.com/nasa/dl-with-alos-dswe>`__.

    Dataset features:

    * ALOS PALSAR gamma-0, HH and HV (12.5 m, dB)
    * a cloud-free Landsat composite: red, NIR, SWIR1, SWIR2 (reflectance)
    * elevation, and height above the nearest drainage (m)
    * the SAR variant is the selection ``bands=["hh", "hv", "dem", "hand"]``
    * splits by scenes that share no ground

    Dataset format:

    * HDF5 shards: ``image`` float32 (N, 8, 512, 512), ``mask`` uint8 (N, 512, 512)

    Dataset classes:

    0. not water
    1. water

    If you use this dataset in your research, please cite its sources:

    * https://doi.org/10.5067/Z97HFCNKR6VA (PALSAR)
    * https://doi.org/10.1126/science.1244693 (composite)

    .. note::

       Build it with ``tidemark build alos-dswe``. Partial water, cloud and scan-line gaps are ignored (255). The
       variant "smoothed" has total-variation smoothing of the SAR bands.

    .. versionadded:: 0.2
    """

    name = "alos-dswe"


class TibetWater(PublishedDataset):
    """Tibet-Water: surface water on the Tibetan Plateau from both orbits of Sentinel-1.

    `Tibet-Water-2020 <https://github.com/xinluo2018/Tibet-Water-2020>`__ has hand-drawn water of 39 scenes.

    Dataset features:

    * Sentinel-1 VV and VH of the ascending and of the descending orbit (10 m, dB); a missing orbit has no data
    * two contexts with the chip's centre, 2 and 8 times as wide: ``image_x2`` and ``image_x8``
    * splits by scene as published: scenes 01 to 07 validate, 08 to 39 train; there is no test split

    Dataset format:

    * HDF5 shards: ``image``, ``image_x2``, ``image_x8`` float32 (N, 4, 256, 256), ``valid`` and ``mask`` uint8
      (N, 256, 256)

    Dataset classes:

    0. not water
    1. water

    If you use this dataset in your research, please cite the following paper:

    * https://doi.org/10.1080/17538947.2023.2198266

    .. note::

       The authors' scenes are not public: build it from your own copy, or from simulated scenes, with
       ``tidemark build tibet-water``. The variants "ascending" and "descending" have the two bands of one orbit.

    .. versionadded:: 0.2
    """

    name = "tibet-water"


class PolarIce(PublishedDataset):
    """Polar ice: water, ice and land in Sentinel-1 EW scenes.

    Maps and patches from the `ExtremeEarth <https://doi.org/10.5281/zenodo.3695276>`__ training set, or any scenes in
    its form.

    Dataset features:

    * Sentinel-1 EW, HH and HV, 8-bit stretched or dB, as the scenes are
    * classes from ice-chart polygons; ground in no polygon, or in polygons of two classes, is ignored (255)
    * georeference of every chip; splits by scenes that share no ground

    Dataset format:

    * HDF5 shards: ``image`` (N, 2, 256, 256), ``valid`` and ``mask`` uint8 (N, 256, 256)
    * variants "consecutive" and "random": ``image`` (N, 2, 64, 64) and ``label`` uint8 (N,), the class at the centre

    Dataset classes:

    0. water
    1. ice
    2. land

    If you use this dataset in your research, please cite its source:

    * https://doi.org/10.5281/zenodo.3695276

    .. note::

       Build it with ``tidemark build polar-ice``, patches with ``--param form=consecutive`` or ``form=random``.

    .. versionadded:: 0.2
    """

    name = "polar-ice"


class L8S2(PublishedDataset):
    """L8S2: Landsat-8 to Sentinel-2 harmonization and super-resolution.

    Pairs of the same ground within a day, by the rules of
    `Deep-Harmonization <https://github.com/venkatesh-thiru/Deep-Harmonization>`__.

    Dataset features:

    * Landsat-8 surface reflectance, six bands (30 m), and top-of-atmosphere panchromatic reflectance (15 m)
    * Sentinel-2 surface reflectance of the same six bands (10 m) as target
    * every array with its own transform: the three grids are not stretched onto each other
    * ``valid``, where both saw clearly; splits by MGRS tile

    Dataset format:

    * HDF5 shards: ``image`` uint16 (N, 6, 86, 86), ``pan`` uint16 (N, 1, 172, 172), ``target`` uint16
      (N, 6, 256, 256), ``valid`` uint8 (N, 256, 256)

    If you use this dataset in your research, please cite its method and its sources (USGS, ESA):

    * https://github.com/venkatesh-thiru/Deep-Harmonization

    .. note::

       Build it with ``tidemark build l8s2`` from products, or from the authors' HDF5 pairs (variant "pairs").

    .. versionadded:: 0.2
    """

    name = "l8s2"


class HLSDSWx(PublishedDataset):
    """HLS-DSWx: one granule and the water map computed from it. Circular: for trying out, not for comparing.

    From the test data of `PROTEUS <https://github.com/nasa/PROTEUS>`__.

    Dataset features:

    * Harmonized Landsat Sentinel-2 (S30), six bands (30 m), reflectance
    * water by DSWx-HLS from these very bands
    * splits by blocks of ground that do not touch

    Dataset format:

    * HDF5 shards: ``image`` int16 (N, 6, 96, 96), ``mask`` uint8 (N, 96, 96)

    Dataset classes:

    0. not water
    1. water

    If you use this dataset in your research, please cite the following paper:

    * https://doi.org/10.1016/j.rse.2018.09.002

    .. versionadded:: 0.2
    """

    name = "hls-dswx"
