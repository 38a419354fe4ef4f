"""Random forests on pixels and on patches: what hand-made features reach without a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.ndimage import uniform_filter

from ..errors import ConfigError
from .chip_arrays import Chip, ChipArrays
from .registry import register

JOBS = 2  # threads that grow trees; their number changes no tree
Predictor = Callable[[Chip], tuple[np.ndarray, np.ndarray | None]]
PATCH_PERCENTILES = (2, 10, 25, 50, 75, 90, 98)
EPSILON = 1e-6


def channels_with_differences(image: np.ndarray) -> np.ndarray:
    """(C,H,W) -> (2C-1,H,W): the bands and each further band minus the first (dates: change; dB: a ratio)."""
    return np.concatenate([image, image[1:] - image[:1]])


def local_means(plane: np.ndarray, valid: np.ndarray, window_px: int) -> np.ndarray:
    """Mean over the valid pixels of a window (H,W), 0 where there is none; the image is mirrored at its edges."""
    if window_px == 1:
        return np.where(valid, plane, np.float32(0))
    weight = uniform_filter(valid.astype(np.float32), window_px, mode="reflect")
    total = uniform_filter(np.where(valid, plane, np.float32(0)), window_px, mode="reflect")
    # The filter's running sums leave rounding behind: a weight below half a pixel is no pixel.
    known = weight > 0.5 / window_px**2
    return np.where(known, total / np.where(known, weight, 1), 0).astype(np.float32)


def pixel_features(image: np.ndarray, valid: np.ndarray, windows_px: Sequence[int], per_chip: bool) -> np.ndarray:
    """Features of every pixel, float32 (H*W, F): local means of each band and difference at each window size.

    Args:
        image: float32 (C,H,W).
        valid: bool (H,W).
        windows_px: odd sides of the averaging windows; 1 is the pixel itself.
        per_chip: standardise each band by the chip's own mean and standard deviation first.
    """
    if per_chip and valid.any():
        mean, std = (f(image[:, valid], axis=1, keepdims=True)[..., None] for f in (np.mean, np.std))
        image = (image - mean) / (std + EPSILON)
    planes = channels_with_differences(image)
    means = [local_means(plane, valid, window) for window in windows_px for plane in planes]
    return np.stack(means, -1).reshape(-1, len(means))


@register("pixel-forest", label="random forest on pixels", trained=False)
def fit_pixel_forest(
    training: ChipArrays,
    seed: int,
    *,
    windows_px: Sequence[int] = (1, 5, 15),
    per_chip: bool = False,
    pixels: int = 100_000,
    trees: int = 60,
    min_leaf: int = 20,
    class_weight: str = "none",
) -> Predictor:
    """A random forest on single pixels, described by local means at several scales.

    Args:
        training: the training split.
        seed: of the sample and of the trees.
        windows_px: odd sides of the averaging windows, in pixels.
        per_chip: standardise every chip by its own statistics.
        pixels: size of the training sample, drawn evenly over all labelled pixels, so classes keep their shares.
        trees, min_leaf: number of trees, and smallest number of samples in a leaf.
        class_weight: ``none``, or ``balanced`` (inverse class shares).
    """
    windows_px = _odd_windows(windows_px)
    share = pixels / sum(shard.n * int(np.prod(training.manifest.label_array.shape)) for shard in training.shards)
    samples, labels = [], []
    for number, chip in enumerate(training):
        labelled = np.flatnonzero((chip.valid & (chip.label != training.manifest.task.ignore_index)).reshape(-1))
        # Keyed by chip: the sample does not depend on what other chips hold.
        chosen = labelled[np.random.default_rng([seed, number]).random(labelled.size) < share]
        if chosen.size:
            samples.append(pixel_features(chip.image, chip.valid, windows_px, per_chip)[chosen])
            labels.append(chip.label.reshape(-1)[chosen])
    if not samples:
        raise ConfigError(f"no labelled pixels in the sample of {pixels}", where=training.manifest.name)
    forest = _grow(np.concatenate(samples), np.concatenate(labels), trees, min_leaf, class_weight, seed)
    classes = len(training.manifest.task.classes)

    def predict(chip: Chip) -> tuple[np.ndarray, np.ndarray | None]:
        features = pixel_features(chip.image, chip.valid, windows_px, per_chip)
        probabilities = _probabilities(forest, features, classes).reshape(*chip.valid.shape, classes)
        if classes > 2:
            return probabilities.argmax(-1).astype(np.uint8), None
        probability = probabilities[..., 1]
        return (probability >= 0.5).astype(np.uint8), np.round(255 * probability).astype(np.uint8)

    return predict


def patch_features(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Features of one patch, float32 (F,).

    Per band: mean, standard deviation, percentiles, and texture: standard deviation of the means of 4 and of 8 pixel
    blocks, mean absolute step between pixels 1, 2 and 4 apart. Per further band: mean and standard deviation of its
    ratio to the first (HV / HH) and their correlation.
    """
    if not valid.any():
        valid = np.ones_like(valid)
    features = []
    for plane in image:
        values = plane[valid]
        features += [values.mean(), values.std(), *np.percentile(values, PATCH_PERCENTILES)]
        features += [_block_std(plane, side) for side in (4, 8)]
        features += [
            np.abs(plane[step:] - plane[:-step]).mean() + np.abs(plane[:, step:] - plane[:, :-step]).mean()
            for step in (1, 2, 4)
        ]
    for plane in image[1:]:
        first, other = image[0][valid], plane[valid]
        ratio = other / np.where(np.abs(first) < 1, 1, first)  # 8-bit values: one grey level is the smallest step
        spread = first.std() * other.std()
        correlation = ((first - first.mean()) * (other - other.mean())).mean() / spread if spread > 0 else 0.0
        features += [ratio.mean(), ratio.std(), correlation]
    return np.array(features, np.float32)


def _block_std(plane: np.ndarray, side: int) -> float:
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    if not rows or not columns:
        return 0.0
    blocks = plane[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return float(blocks.mean((1, 3)).std())


@register("band-forest", label="random forest on band statistics", tasks=("classification",), trained=False)
def fit_band_forest(
    training: ChipArrays, seed: int, *, trees: int = 300, min_leaf: int = 2, class_weight: str = "none"
) -> Predictor:
    """A random forest on `patch_features`; arguments as in `fit_pixel_forest`."""
    pairs = [
        (patch_features(chip.image, chip.valid), int(chip.label))
        for chip in training
        if chip.label != training.manifest.task.ignore_index
    ]
    if not pairs:
        raise ConfigError("no labelled patches", where=training.manifest.name)
    features, labels = zip(*pairs, strict=True)
    forest = _grow(np.stack(features), np.array(labels), trees, min_leaf, class_weight, seed)
    classes = len(training.manifest.task.classes)

    def predict(chip: Chip) -> tuple[np.ndarray, np.ndarray]:
        probabilities = _probabilities(forest, patch_features(chip.image, chip.valid)[None], classes)[0]
        return np.uint8(probabilities.argmax()), np.round(255 * probabilities).astype(np.uint8)

    return predict


def _odd_windows(windows_px: Sequence[int]) -> tuple[int, ...]:
    if not windows_px or any(not isinstance(w, int) or w < 1 or w % 2 == 0 for w in windows_px):
        raise ConfigError(f"needs odd whole numbers of pixels, found {list(windows_px)}", where="MODEL.ARGS.windows_px")
    return tuple(windows_px)


def _grow(features: np.ndarray, labels: np.ndarray, trees: int, min_leaf: int, class_weight: str, seed: int):
    if class_weight not in ("none", "balanced"):
        raise ConfigError(f"expected none or balanced, found {class_weight!r}", where="MODEL.ARGS.class_weight")
    from sklearn.ensemble import RandomForestClassifier

    weight = None if class_weight == "none" else class_weight
    forest = RandomForestClassifier(
        trees, min_samples_leaf=min_leaf, class_weight=weight, random_state=seed, n_jobs=JOBS
    ).fit(features, labels)
    # Threads would add up the trees' votes in another order each time; the caller predicts chips in parallel instead.
    return forest.set_params(n_jobs=1)


def _probabilities(forest, features: np.ndarray, classes: int) -> np.ndarray:
    """(N, classes): a class that the training sample lacks has probability 0."""
    out = np.zeros((len(features), classes))
    out[:, forest.classes_.astype(int)] = forest.predict_proba(features)
    return out
