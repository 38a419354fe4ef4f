"""End-to-end throughput of a run's weights: HDF5 shards to class maps in host memory, files in the page cache."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from .. import _compat, configs  # noqa: F401
from ..datasets.loader import ChipLoader
from ..datasets.transforms import image_array
from ..models.inference import Inference, decide
from ..models.runs import CONFIG_NAME, device_in_words, read_run
from ..models.weights import from_pretrained
from .records import Speed

# PROTOCOL: warm up at least so many batches and seconds; then time so many batches or seconds, several times.
WARM_UP = (10, 2.0)
TIMED = (100, 10.0)
REPEATS = 3


def measure_speed(
    run: str | Path,
    split: str,
    folder: str | Path | None = None,
    *,
    repeats: int = REPEATS,
    warm_up: tuple[int, float] = WARM_UP,
    timed: tuple[int, float] = TIMED,
) -> Speed:
    """Time reading, decoding, verifying, preprocessing, the model and the decision, batch after batch.

    The split is read over and over, in one process. Every batch ends on the host, so no work is left on a GPU.

    Args:
        run: a run folder with weights.
        split: name of the split.
        folder: the data set's version folder; None: where the run says.
        repeats: timed spans, of which the median and the range are reported.
        warm_up: batches and seconds before, both reached.
        timed: batches or seconds of each span, whichever comes first.
    """
    info, cfg = read_run(run), configs.load_config(Path(run) / CONFIG_NAME)
    folder = folder or info.dataset.folder
    loader = ChipLoader(folder, split, cfg.TRAIN.BATCH_SIZE)
    image = image_array(loader.manifest)
    loader = ChipLoader(folder, split, cfg.TRAIN.BATCH_SIZE, arrays=[image.name])
    pretrained = from_pretrained(Path(run) / "weights")
    infer = Inference(pretrained, pretrained.check_input(image.bands), cfg.TRAIN.DEVICE)

    def batches() -> Iterator[int]:
        """Chips of one batch after another, for ever; each is decided when its number comes."""
        while True:
            for batch in loader:
                yield len(decide(*infer(batch[image.name])))

    done = batches()
    _time(done, lambda count, seconds: count >= warm_up[0] and seconds >= warm_up[1])
    rates = [_time(done, lambda count, seconds: count >= timed[0] or seconds >= timed[1]) for _ in range(repeats)]
    chips_per_s = statistics.median(rates)
    return Speed(
        chips_per_s=chips_per_s,
        mpx_per_s=chips_per_s * image.shape[1] * image.shape[2] / 1e6,
        chips_per_s_range=(min(rates), max(rates)),
        device=device_in_words(str(infer.device)),
        threads=torch.get_num_threads(),
        precision=_precision(infer.device),
        batch=cfg.TRAIN.BATCH_SIZE,
    )


def _time(batches: Iterator[int], enough) -> float:
    """Chips per second until ``enough(batches, seconds)``."""
    chips = count = 0
    start = time.perf_counter()
    while True:
        chips += next(batches)
        count += 1
        seconds = time.perf_counter() - start
        if enough(count, seconds):
            return chips / seconds


def _precision(device: torch.device) -> str:
    return "fp32, TF32 convolutions" if device.type == "cuda" and torch.backends.cudnn.allow_tf32 else "fp32"
