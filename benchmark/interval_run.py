"""``tidemark uncertainty``: calibrate a harmonization's sigma on one split and say how it holds on another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.files import write_atomic
from ..datasets.spec import Manifest, canonical_json, load_manifest
from ..errors import InputError, WeightsError
from . import intervals
from .interval_record import RECORD_NAME, SHOWN, Crossed, DatasetReference, State, UncertaintyRecord
from .reflectance import BORDER_PX, psnr
from .uncertainty import estimate


def measure_uncertainty(
    runs: Sequence[str | Path],
    method: str,
    out: str | Path | None = None,
    *,
    split: str = "test",
    calibrate: str = "val",
    dataset: str | Path | None = None,
    passes: int | None = None,
    batch_size: int = 4,
    device: str = "auto",
    keep: bool = True,
) -> UncertaintyRecord:
    """Find the factors of sigma on one split, measure coverage on another, and keep the factors with the weights.

    Args:
        runs: folders of runs or of weights; several for ``ensemble``.
        method: ``gaussian``, ``mc-dropout`` or ``ensemble``.
        out: folder for ``uncertainty.json`` and ``uncertainty.png``; None: ``<first run>/uncertainty-<method>``.
        split, calibrate: names of the splits that are measured and calibrated on; they must differ.
        dataset: version folder of the data; None: where the first run says.
        passes: of ``mc-dropout``.
        batch_size, device: of the inference.
        keep: write the factors into the ``config.json`` of every run.

    Raises:
        InputError: one split for both, no pairs, or a network without what the method needs.
        WeightsError: weights that do not fit the data.
    """
    if split == calibrate:
        raise InputError(f"{split} cannot be measured after calibrating on it", hint="name two splits")
    from ..models.harmonization.meaning import SigmaScale
    from ..models.harmonization.uncertainty import PASSES, Predictive
    from ..models.runs import provenance, read_run
    from ..models.weights import from_pretrained, keep_sigma
    from .interval_figure import draw

    folder = Path(dataset) if dataset is not None else Path(read_run(runs[0]).dataset.folder)
    manifest = load_manifest(folder)
    pretrained = [from_pretrained(run) for run in runs]
    members, batches, place = _open(pretrained, folder, manifest, batch_size, device)
    predictive = Predictive(members, method, passes=PASSES if passes is None else passes)
    fitted = _sums(predictive, batches(calibrate))
    factors = intervals.factors_for(sum(one["ratios"] for one in fitted.values()), intervals.LEVELS)
    measured = _sums(predictive, batches(split))
    scale = SigmaScale(
        method=method,
        passes=predictive.passes,
        members=tuple(one.weights_sha256 for one in pretrained),
        levels=intervals.LEVELS,
        factors=tuple(map(tuple, factors.tolist())),
        split=calibrate,
        content_sha256=manifest.content_sha256,
    )
    record = UncertaintyRecord(
        dataset=DatasetReference(
            name=manifest.name,
            version=manifest.version,
            content_sha256=manifest.content_sha256,
            simulated=manifest.simulated,
        ),
        calibrated_on=calibrate,
        split=split,
        method=method,
        passes=predictive.passes,
        models=[one.name for one in pretrained],
        members=list(scale.members),
        bands=[band.name for band in pretrained[0].harmonization.target],
        levels=list(scale.levels),
        factors=factors.tolist(),
        **_scores(measured, factors, manifest),
        crossed=_crossed(np.stack([one["ratios"] for one in (*fitted.values(), *measured.values())])),
        provenance=provenance(str(place)).model_dump(mode="json"),
    )
    out = Path(runs[0]) / f"uncertainty-{method}" if out is None else Path(out)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / RECORD_NAME, canonical_json(record))
    draw([record], out / "uncertainty.png")
    for run in runs if keep else ():
        keep_sigma(run, scale)
    return record


def _open(pretrained: Sequence[Any], folder: Path, manifest: Manifest, batch_size: int, device: str):
    """The networks with their resampling, a function that yields a split's batches in reflectance, the device."""
    from ..datasets.pairs import PairDataModule
    from ..models.device import find_device
    from ..models.harmonization.harmonizer import Harmonizer

    data, place = PairDataModule(folder, batch_size), find_device(device)
    for one in pretrained:
        if one.harmonization is None:
            raise WeightsError(f"weights for {one.task_kind}, not for reflectance", where=one.name)
        if data.pan is None:
            raise WeightsError(f"the network needs pan, {manifest.name} has none", where=folder)
        one.check_input(data.image.bands)
        one.harmonization.pan_preprocess(data.pan.bands)
        one.harmonization.check_target(data.target.bands, folder)
    members = [Harmonizer(one.model.to(place)).eval() for one in pretrained]

    def batches(split: str):
        for batch in data.loader(split):
            yield data.prepare({key: value.to(place) for key, value in batch.items()})

    return members, batches, place


def _sums(predictive: Callable, batches) -> dict[int, intervals.Sums]:
    """Sums of every scene of a split, by its number in the manifest; the border is left out as the evaluator does."""
    found: dict[int, intervals.Sums] = {}
    inside = (..., slice(BORDER_PX, -BORDER_PX), slice(BORDER_PX, -BORDER_PX))
    for number, batch in enumerate(batches):
        size = tuple(batch["target"].shape[-2:])
        grids = (batch["grid_image"], batch["grid_pan"])
        mean, sigma = predictive(batch["image"], batch["pan"], *grids, size, key=number)
        chips = zip(
            batch["unit"].tolist(), *(x[inside].cpu().numpy() for x in (batch["target"], mean, sigma, batch["valid"])),
            strict=True,
        )  # fmt: skip
        for unit, truth, *answer, valid in chips:
            sums = intervals.interval_sums(truth, *answer, valid)
            found[unit] = {name: sums[name] + found[unit][name] for name in sums} if unit in found else sums
    if not any(sums["ratios"].sum() for sums in found.values()):
        raise InputError("no valid pixel in the split")
    return found


def _scores(found: dict[int, intervals.Sums], factors: np.ndarray, manifest: Manifest) -> dict[str, Any]:
    stacked = {name: np.stack([sums[name] for sums in found.values()]) for name in ("ratios", "by_sigma", "moments")}
    ratios, moments = stacked["ratios"], stacked["moments"].sum(0)
    gaussian = np.broadcast_to(intervals.gaussian_factors(intervals.LEVELS), factors.shape)
    per_unit = {"pixels": stacked["moments"][:, :1, 0], "squared_error": stacked["moments"][:, :, 4]}
    counted = per_unit["pixels"][:, 0] > 0
    unit_psnr = psnr({name: value[counted] for name, value in per_unit.items()})
    sigma_68 = factors[:, intervals.LEVELS.index(0.68)]
    after = _state(ratios, factors, moments)
    names = [manifest.scenes[unit].id for unit in found]
    by_scene = [_pooled(ratios, factors, level) for level in SHOWN]
    return {
        "before": _state(ratios, gaussian, moments),
        "after": after,
        "psnr_db": float(unit_psnr.mean()),
        "rmse": np.sqrt(moments[:, 4] / moments[:, 0]).tolist(),
        "correlation": [None if np.isnan(r) else float(r) for r in intervals.correlation(moments)],
        "error_by_sigma": [
            (intervals.error_by_sigma(one) * [scale, 1]).tolist()
            for one, scale in zip(stacked["by_sigma"].sum(0), sigma_68, strict=True)
        ],
        "scenes": {
            name: tuple(float(covered / total) for covered, total in pair)
            for name, pair in zip(names, zip(*by_scene, strict=True), strict=True)
            if pair[0][1] > 0
        },
    }


def _crossed(ratios: np.ndarray) -> Crossed:
    """From (U,C,bins) counts of all scenes."""
    known = ratios[ratios.sum((1, 2)) > 0]
    total = known.sum(0)
    factors = np.stack([intervals.factors_for(total - one, intervals.LEVELS) for one in known])  # (U,C,L)
    shares = np.stack([intervals.coverage(known, factors[..., i]) for i in range(len(intervals.LEVELS))], -1)
    counts = known.sum(-1)  # (U,C)
    covered = np.where(counts[..., None] > 0, shares * counts[..., None], 0)
    pooled = {}
    for level in SHOWN:
        sums = np.stack([covered[..., intervals.LEVELS.index(level)].sum(1), counts.sum(1)], 1)
        pooled[f"{level:g}"] = _with_interval(sums)
    return Crossed(scenes=len(known), coverage=(covered.sum(0) / counts.sum(0)[:, None]).tolist(), pooled=pooled)


def _with_interval(sums: np.ndarray) -> tuple[float, float | None, float | None]:
    """Covered share and its 95 % interval over scenes, from covered and all values of each, (U, 2)."""
    known = estimate(sums[None], lambda pooled: pooled[..., 0] / pooled[..., 1])
    return known.mean, known.low, known.high


def _state(ratios: np.ndarray, factors: np.ndarray, moments: np.ndarray) -> State:
    pooled = {f"{level:g}": _with_interval(_pooled(ratios, factors, level)) for level in SHOWN}
    width = intervals.sharpness(moments)
    return State(
        coverage=np.stack(
            [intervals.coverage(ratios.sum(0), factors[:, i]) for i in range(len(intervals.LEVELS))], 1
        ).tolist(),
        pooled=pooled,
        sharpness={f"{level:g}": (width * factors[:, intervals.LEVELS.index(level)]).tolist() for level in SHOWN},
    )


def _pooled(ratios: np.ndarray, factors: np.ndarray, level: float) -> np.ndarray:
    """Covered and all values of each scene over its bands, (U, 2)."""
    counts = ratios.sum(-1)  # (U,C)
    share = intervals.coverage(ratios, np.broadcast_to(factors[:, intervals.LEVELS.index(level)], counts.shape))
    return np.stack([np.where(counts > 0, share * counts, 0).sum(1), counts.sum(1)], 1)
