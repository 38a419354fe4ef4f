"""End-to-end throughput of a run's weights, in this process; ``model_bench`` measures more, in fresh ones."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

import torch

from .. import _compat, configs  # noqa: F401
from ..models.inference import open_inference
from ..models.runs import CONFIG_NAME, read_run
from ..models.weights import from_pretrained
from .measuring import TIMED, WARM_UP, Span, precision, rates_in_turns, warm_up
from .records import Speed
from .speed_process import device_facts
from .work import chip_pixels

REPEATS = 3


def measure_speed(
    run: str | Path,
    split: str,
    folder: str | Path | None = None,
    *,
    repeats: int = REPEATS,
    before: Span = WARM_UP,
    timed: Span = TIMED,
) -> Speed:
    """Time reading, decoding, verifying, preprocessing, the model and the decision, batch after batch, in fp32.

    The split is read over and over from the page cache. Every batch ends on the host, so no work is left on a GPU.

    Args:
        run: a run folder with weights.
        split: name of the split.
        folder: the data set's version folder; None: where the run says.
        repeats: timed spans, of which the median and the range are reported.
        before: the warm-up, both of its numbers reached.
        timed: batches or seconds of each span, whichever comes first.
    """
    info, cfg = read_run(run), configs.load_config(Path(run) / CONFIG_NAME)
    pretrained = from_pretrained(Path(run) / "weights")
    loader, predict = open_inference(
        pretrained,
        folder or info.dataset.folder,
        split,
        device=cfg.TRAIN.DEVICE,
        batch_size=cfg.TRAIN.BATCH_SIZE,
        learned_from=info.dataset.folder,
    )
    device = predict.infer.device
    batches = itertools.chain.from_iterable(itertools.repeat(loader))

    def work() -> int:
        return len(predict(next(batches)))

    with precision("fp32", device):
        warm_up(work, device, before)
        rates = [rates_in_turns([work], device, timed, turns=1)[0] for _ in range(repeats)]
    chips_per_s = statistics.median(rates)
    return Speed(
        kind="end-to-end",
        chips_per_s=chips_per_s,
        mpx_per_s=chips_per_s * chip_pixels(loader.manifest) / 1e6,
        chips_per_s_range=(min(rates), max(rates)),
        threads=torch.get_num_threads(),
        precision="fp32",
        batch=cfg.TRAIN.BATCH_SIZE,
        parameters=sum(p.numel() for p in pretrained.model.parameters()),
        **device_facts(device),
    )
