"""The training itself: Lightning's trainer around a task, on one device or many, and what it may start from."""

from __future__ import annotations

from typing import Any

from .. import _compat  # noqa: F401

# isort: split
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar

from ..errors import ConfigError, DeviceError, WeightsError
from .device import enough_memory
from .keeper import LAST_NAME, AtomicCheckpointIO, Keeper, read_checkpoint
from .session import interruptible, quiet
from .weights import from_pretrained


def fit(task: Any, data: Any, keeper: Keeper, device: str, progress: bool) -> None:
    """Train, from the last checkpoint where there is one; every process of a distributed training calls it.

    Raises:
        ConfigError: the network cannot be compiled here.
        DeviceError: out of GPU memory, or fewer GPUs than TRAIN.DEVICES.
        TidemarkError: interrupted, or the loss is not finite.
    """
    options, last = task.options, keeper.folder / LAST_NAME
    distributed = options.DEVICES * options.NODES > 1
    if device == "cuda" and options.DEVICES > torch.cuda.device_count():
        raise DeviceError(f"{options.DEVICES} GPUs asked for, {torch.cuda.device_count()} here", where="TRAIN.DEVICES")
    resumes = options.RESUME and last.exists()
    if resumes:
        keeper.load_state_dict(read_checkpoint(last)["callbacks"][keeper.state_key])
        if keeper.finished:  # killed after the last epoch, before the results were written
            return
    elif keeper.leads:
        for path in keeper.folder.glob("best-*.safetensors"):
            path.unlink()
    if options.COMPILE:
        task.network.compile()
    with quiet():
        trainer = Trainer(
            accelerator={"cuda": "gpu"}.get(device, device),
            devices=options.DEVICES,
            num_nodes=options.NODES,
            strategy="ddp" if distributed else "auto",
            use_distributed_sampler=False,  # the loader deals out the chips itself
            precision=options.PRECISION,
            max_epochs=options.EPOCHS,
            accumulate_grad_batches=options.ACCUMULATE,
            logger=False,
            gradient_clip_val=options.CLIP_NORM or None,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=progress,
            callbacks=[keeper, *([RichProgressBar(leave=True)] if progress else [])],
            plugins=[AtomicCheckpointIO()],
            default_root_dir=keeper.folder,
        )
        hint = (
            f"halve TRAIN.BATCH_SIZE (now {options.BATCH_SIZE}) and set TRAIN.ACCUMULATE {2 * options.ACCUMULATE} "
            "for the same step, or set TRAIN.PRECISION bf16-mixed or a smaller AUGMENT.CROP"
        )
        with enough_memory(hint), interruptible(keeper.folder):
            try:
                trainer.fit(task, datamodule=data, ckpt_path=str(last) if resumes else None, weights_only=True)
            except torch._dynamo.exc.TorchDynamoException as error:
                raise ConfigError(
                    f"torch cannot compile this network here ({str(error).strip().splitlines()[0]})",
                    where="TRAIN.COMPILE",
                    hint="leave it false",
                ) from error


def start_from(network: Any, source: str, preprocess: Any, meaning: Any = None) -> None:
    """Fill a network from weights of the same architecture and channels (fine-tuning).

    Args:
        network: what is filled.
        source: see ``from_pretrained``.
        preprocess: of this run.
        meaning: of this run where it is a harmonization.

    Raises:
        WeightsError: other keys or shapes, or a channel with another meaning.
    """
    found = from_pretrained(source)
    if found.preprocess.channel_names != preprocess.channel_names:
        raise WeightsError(
            f"its channels are {found.preprocess.channel_names}, this run's {preprocess.channel_names}",
            where=source,
            hint="set DATA.BANDS and DATA.DERIVED alike",
        )
    found.check_input(preprocess.bands)
    if (found.harmonization is None) != (meaning is None):
        raise WeightsError(f"weights for {found.task_kind}, which this run is not", where=source)
    if meaning is not None:
        found.harmonization.check_target(meaning.target, source)
        found.harmonization.pan_preprocess(meaning.pan_preprocess().bands)
    mine, theirs = network.state_dict(), found.model.state_dict()
    wrong = [
        key
        for key in mine.keys() | theirs.keys()
        if key not in mine or key not in theirs or mine[key].shape != theirs[key].shape
    ]
    if wrong:
        raise WeightsError(
            f"a {found.name} that does not fit this model: {', '.join(sorted(wrong)[:5])}",
            where=source,
            hint="set MODEL.NAME and MODEL.ARGS alike, and the same number of classes",
        )
    network.load_state_dict(theirs)
