from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tidemark.datasets.augmentation import AugmentOptions
from tidemark.datasets.datamodule import ChipDataModule
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import Band, load_manifest
from tidemark.datasets.transforms import Preprocess
from tidemark.errors import ConfigError, FormatError, InputError

# isort: split
import lightning.pytorch as pl

AUGMENT = AugmentOptions(flip=True, rotate90=True, gain=0.1, noise=0.1)


def module(folder, augment=AUGMENT, batch_size=3, normalization="per_chip", **options):
    preprocess = Preprocess.from_manifest(load_manifest(folder), normalization=normalization)
    return ChipDataModule(folder, batch_size, preprocess, augment, **options)


class Recorder(pl.LightningModule):
    """Keeps every batch it gets; one weight, so that there is something to optimise."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {"train": [], "val": [], "test": []}

    def _step(self, batch, stage):
        self.seen[stage].append({key: value.clone() for key, value in batch.items()})
        return (self.weight - batch["image"].mean()).square()

    def training_step(self, batch, batch_idx):
        return self._step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self._step(batch, "val")

    def test_step(self, batch, batch_idx):
        self._step(batch, "test")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(default_root_dir=folder, num_sanity_val_steps=0, **quiet, **options)


def same(one, other):
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.filterwarnings("ignore")
def test_a_fit_gets_normalised_augmented_training_and_plain_validation_batches(tiny_dataset, tmp_path):
    folder, task = tiny_dataset(), Recorder()
    trainer(tmp_path, max_epochs=2, enable_checkpointing=False).fit(task, datamodule=module(folder))
    train, val = task.seen["train"], task.seen["val"]
    assert [len(b["index"]) for b in train] == [3, 3, 3, 1] * 2 and [len(b["index"]) for b in val] == [3, 3, 3, 1] * 2
    epochs = [torch.cat([b["index"] for b in train[k : k + 4]]).tolist() for k in (0, 4)]
    assert epochs[0] != epochs[1] and sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert torch.cat([b["index"] for b in val[:4]]).tolist() == list(range(10)) and same(val[:4], val[4:])
    for batch in train + val:
        assert batch["image"].dtype == torch.float32 and batch["mask"].dtype == torch.int64
        assert batch["valid"].dtype == torch.bool and batch["image"].shape[1:] == (2, 128, 128)
    image, mask = read(folder, "val", "image").astype(np.float32), read(folder, "val", "mask")
    plain = torch.cat([b["image"] for b in val[:4]]).numpy()
    deviation = image.std((2, 3), keepdims=True)
    assert np.abs(plain - (image - image.mean((2, 3), keepdims=True)) / deviation).max() < 1e-3
    assert np.array_equal(torch.cat([b["mask"] for b in val[:4]]).numpy(), mask)


def read(folder, split, array):
    return np.concatenate([shard.read_many(array, range(shard.n)) for shard in open_split(folder, split)[1]])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stop", [2, 4, 6])
def test_a_stopped_fit_goes_on_with_the_same_batches(tiny_dataset, tmp_path, stop):
    folder = tiny_dataset()
    whole = Recorder()
    trainer(tmp_path, max_epochs=3, enable_checkpointing=False).fit(whole, datamodule=module(folder, seed=4))

    first, saved = Recorder(), tmp_path / "last.ckpt"

    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == stop:
                trainer.save_checkpoint(saved)
                raise KeyboardInterrupt

    run = trainer(tmp_path, max_epochs=3, enable_checkpointing=False, callbacks=[Stop()])
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run.fit(first, datamodule=module(folder, seed=4))
    second = Recorder()
    trainer(tmp_path, max_epochs=3, enable_checkpointing=False).fit(
        second, datamodule=module(folder, seed=4), ckpt_path=saved
    )
    assert same(first.seen["train"] + second.seen["train"], whole.seen["train"])
    assert torch.equal(second.weight, whole.weight)


@pytest.mark.filterwarnings("ignore")
def test_the_test_split_is_read_in_order_and_unchanged(tiny_dataset, tmp_path):
    folder = tiny_dataset(kind="classification", shape=(2, 16, 16), classes=3)
    task = Recorder()
    trainer(tmp_path).test(task, datamodule=module(folder, batch_size=4), verbose=False)
    seen = task.seen["test"]
    assert torch.cat([b["index"] for b in seen]).tolist() == list(range(10))
    labels = torch.cat([b["label"] for b in seen])
    assert labels.dtype == torch.int64 and np.array_equal(labels.numpy(), read(folder, "test", "label"))
    assert set(seen[0]) == {"image", "label", "valid", "index"}


def gaps(rng, header):
    image = rng.integers(1, 9, (1, 16, 16)).astype(np.uint8)
    image[0, 0], mask = 0, np.ones((16, 16), np.uint8)
    mask[:, 0] = 255
    return {"image": image, "mask": mask}


def test_pixels_without_label_or_data_are_ignored(tiny_dataset):
    folder = tiny_dataset(shape=(1, 16, 16), dtype="uint8", bands=(Band(name="b", nodata=0),), make=gaps)
    data = module(folder)
    batch = data.prepare(next(iter(data.loader("val"))))
    assert (batch["mask"][:, 0] == 255).all() and (batch["mask"][:, :, 0] == 255).all()
    assert (batch["mask"][:, 1:, 1:] == 1).all()
    assert (batch["image"][:, 0, 0] == 0).all() and not batch["valid"][:, 0].any() and batch["valid"][:, 1:].all()


def test_every_rank_draws_its_own_augmentation_of_its_own_chips(tiny_dataset):
    drawn, chips = [], []
    for rank in range(2):
        data = module(tiny_dataset(), AugmentOptions(bias=1.0), normalization="none")
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, training=True)
        for batch in data.train_dataloader():
            plain = data.prepare(batch)["image"]
            shift = data.on_after_batch_transfer(batch)["image"] - plain
            drawn += shift[:, :, 5, 5].flatten().round(decimals=3).tolist()
            chips += batch["index"].tolist()
    assert sorted(chips) == list(range(10))
    assert len(set(drawn)) > 15


def test_drop_last_concerns_training_only(tiny_dataset):
    data = module(tiny_dataset(), drop_last=True)
    assert len(data.train_dataloader()) == 3 and len(data.val_dataloader()) == 4


def test_a_preprocessing_of_other_bands_is_refused(tiny_dataset):
    other = Preprocess((Band(name="vv"),), normalization="none")
    with pytest.raises(InputError, match=r"\['vv'\], the image has \['b0', 'b1'\]"):
        ChipDataModule(tiny_dataset(), 2, other)


ORBITS = tuple(Band(name=name, nodata=0) for name in ("vv_asc", "vv_desc"))


def test_contexts_are_prepared_and_augmented_as_the_image_is(tiny_dataset):
    folder = tiny_dataset(name="wide", shape=(2, 64, 64), bands=ORBITS, contexts=("image_x2", "image_x8"))
    options = AugmentOptions(flip=True, rotate90=True, gain=0.2, bias=0.2)
    data = module(folder, options, normalization="manifest", contexts=("image_x2", "image_x8"))
    assert data.orbits == [[0], [1]]
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, training=True)
    for batch in data.train_dataloader():  # the contexts of this data set hold the image itself
        found = data.on_after_batch_transfer(batch)
        assert torch.equal(found["image"], found["image_x2"]) and torch.equal(found["image"], found["image_x8"])
        assert not torch.equal(found["image"], data.prepare(batch)["image"])
    assert set(found) == {"image", "image_x2", "image_x8", "mask", "valid", "index"}


def test_contexts_and_orbits_that_are_not_there_are_named(tiny_dataset):
    with pytest.raises(FormatError, match="no array 'image_x2', there is image, mask"):
        module(tiny_dataset(), contexts=("image_x2",))
    with pytest.raises(ConfigError, match="no bands of two orbits among b0, b1"):
        module(tiny_dataset(), AugmentOptions(orbits=0.5))


def one_orbit(rng, header):
    image = rng.integers(1, 9, (2, 16, 16)).astype(np.uint8)
    image[1], image[:, 0] = 0, 0
    return {"image": image, "mask": np.ones((16, 16), np.uint8)}


def test_partial_keeps_the_labels_of_a_scene_that_misses_an_orbit(tiny_dataset):
    folder = tiny_dataset(name="partial", shape=(2, 16, 16), dtype="uint8", bands=ORBITS, make=one_orbit)
    for partial, kept in ((False, 0), (True, 15 * 16)):
        preprocess = Preprocess.from_manifest(load_manifest(folder), normalization="none", partial=partial)
        data = ChipDataModule(folder, 2, preprocess, AugmentOptions(bias=5.0))
        data.trainer = SimpleNamespace(global_rank=0, world_size=1, training=True)
        found = data.on_after_batch_transfer(next(iter(data.train_dataloader())))
        assert ((found["mask"] == 1).flatten(1).sum(1) == kept).all()
        assert found["valid"].flatten(1).sum(1).tolist() == [kept, kept]
        assert (found["image"][:, 1] == 0).all()  # the missing orbit stays missing


def test_a_stored_mask_of_validity_alone_decides(tiny_dataset):
    bands = (Band(name="a", nodata=0), Band(name="b", nodata=1))

    def make(rng, header):
        image = np.ones((2, 16, 16), np.uint8)  # the second band has no data anywhere
        valid = (np.arange(16) > 0) * np.ones((16, 1))
        return {"image": image, "valid": valid.astype(np.uint8), "mask": np.ones((16, 16), np.uint8)}

    folder = tiny_dataset(name="valid", shape=(2, 16, 16), dtype="uint8", bands=bands, valid=True, make=make)
    data = module(folder, None, normalization="none")
    batch = data.prepare(next(iter(data.loader("val"))))
    assert (batch["mask"][:, :, 0] == 255).all() and (batch["mask"][:, :, 1:] == 1).all()
    assert (batch["image"][:, 1] == 0).all()


def half_valid(rng, header):
    image = rng.integers(1, 200, (2, 16, 16)).astype(np.uint8)
    valid = (np.arange(16) > 7) * np.ones((16, 1))
    return {"image": image, "valid": valid.astype(np.uint8), "mask": np.ones((16, 16), np.uint8)}


@pytest.mark.parametrize("augment", [None, AugmentOptions(gain=0.5, bias=5.0)])
def test_pixels_that_a_stored_mask_calls_invalid_are_zero_as_in_evaluation(tiny_dataset, augment):
    bands = (Band(name="a"), Band(name="b"))
    folder = tiny_dataset(name="half", shape=(2, 16, 16), dtype="uint8", bands=bands, valid=True, make=half_valid)
    data = module(folder, augment, normalization="manifest")
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, training=True)
    image = data.on_after_batch_transfer(next(iter(data.train_dataloader())))["image"]
    assert (image[..., :8] == 0).all() and (image[..., 8:] != 0).any()


def test_a_value_that_is_normalised_to_zero_is_augmented_too(tiny_dataset):
    folder = tiny_dataset(name="partial", shape=(2, 16, 16), dtype="uint8", bands=ORBITS, make=one_orbit)
    preprocess = Preprocess(ORBITS, normalization="manifest", mean=[5, 0], std=[1, 1], partial=True)
    data = ChipDataModule(folder, 2, preprocess, AugmentOptions(bias=1.0))
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, training=True)
    batch = next(iter(data.train_dataloader()))
    plain, found = data.prepare(batch)["image"][:, 0, 1:], data.on_after_batch_transfer(batch)
    assert (plain == 0).any() and (found["image"][:, 0, 1:] != plain).all() and found["valid"][:, 1:].all()
