import multiprocessing
import shutil
from typing import get_args

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from tidemark.datasets.chips import ChipDataset, chip_bounds
from tidemark.datasets.published import OMBRIA, PolarPatch
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import Array, Band, Codec
from tidemark.errors import ChecksumError, ConfigError, FormatError, InputError
from torch.utils.data import DataLoader
from torchgeo.datasets import DatasetNotFoundError, NonGeoDataset

CODECS = get_args(Codec)


def test_a_sample_is_in_physical_units(tiny_dataset):
    folder = tiny_dataset()
    _, shards = open_split(folder, "train")
    dataset = ChipDataset(folder, "train")
    assert isinstance(dataset, NonGeoDataset) and len(dataset) == 10
    sample = dataset[7]
    stored = shards[1].read("image", 2)
    assert sample["image"].dtype == torch.float32 and sample["image"].shape == (2, 128, 128)
    assert np.array_equal(sample["image"].numpy(), stored.astype(np.float32) * 0.5 + 1)
    assert sample["mask"].dtype == torch.int64 and np.array_equal(sample["mask"].numpy(), shards[1].read("mask", 2))
    assert sample["valid"].dtype == torch.bool and sample["valid"].all()
    assert sample["chip_id"] == "train-1-002" and sample["crs"] == "EPSG:32622"
    assert sample["transform"].tolist() == [10, 0, 502560, 0, -10, 7200000]
    assert sample["bounds"].tolist() == [502560, 7198720, 503840, 7200000]
    assert {sample[key].dtype for key in ("transform", "bounds")} == {torch.float64}


def test_what_is_not_known_is_empty_or_nan(tiny_dataset):
    sample = ChipDataset(tiny_dataset(placed=False), "val")[0]
    assert sample["crs"] == "" and sample["transform"].isnan().all() and sample["bounds"].isnan().all()


def test_the_bounds_of_a_rotated_grid_enclose_the_chip():
    grid = Array(name="mask", dtype="uint8", shape=(20, 10), role="mask")
    assert chip_bounds(np.array([0, 3, 100, 2, 0, 50.0]), grid).tolist() == [100, 50, 160, 70]


def test_a_label_per_chip_is_an_integer(tiny_dataset):
    folder = tiny_dataset(kind="classification", shape=(1, 16, 16), classes=3)
    sample = ChipDataset(folder, "train")[3]
    assert sample["label"].dtype == torch.int64 and sample["label"].shape == () and "mask" not in sample
    assert sample["label"].item() == open_split(folder, "train")[1][0].read("label", 3)
    assert sample["bounds"].tolist() == [503840, 7199840, 504000, 7200000]


def with_gaps(rng, header):
    image = rng.normal(-12, 3, (2, 16, 16)).astype(np.float32)
    image[0, :4], image[1, 8:] = np.nan, -9999
    return {"image": image, "mask": np.ones((16, 16), np.uint8)}


def all_nan(rng, header):
    return {"image": np.full((2, 16, 16), np.nan, np.float32), "mask": np.ones((16, 16), np.uint8)}


def float_bands():
    return (Band(name="vv", unit="dB"), Band(name="vh", unit="dB", nodata=-9999))


def test_pixels_without_data_are_zero_and_invalid(tiny_dataset):
    folder = tiny_dataset(shape=(2, 16, 16), dtype="float32", bands=float_bands(), make=with_gaps)
    sample = ChipDataset(folder, "train")[0]
    assert torch.isfinite(sample["image"]).all()
    assert (sample["image"][0, :4] == 0).all() and (sample["image"][1, 8:] == 0).all()
    assert (sample["image"][0, 4:] != 0).all() and (sample["image"][1, :8] != 0).all()
    assert sample["valid"].sum(1).tolist() == [0] * 4 + [16] * 4 + [0] * 8
    assert ChipDataset(folder, "train", bands=["vh"])[0]["valid"].sum() == 128


def test_a_chip_of_nan_alone_reads_as_no_data(tiny_dataset):
    folder = tiny_dataset(shape=(2, 16, 16), dtype="float32", bands=float_bands(), make=all_nan)
    sample = ChipDataset(folder, "test")[9]
    assert (sample["image"] == 0).all() and not sample["valid"].any()


def test_bands_are_chosen_by_name_in_the_order_asked(tiny_dataset):
    both, swapped = (ChipDataset(tiny_dataset(), "train", bands=bands)[0] for bands in (None, ["b1", "b0"]))
    assert torch.equal(swapped["image"], both["image"].flip(0))
    with pytest.raises(ConfigError, match="'b9'.*b0, b1"):
        ChipDataset(tiny_dataset(), "train", bands=["b9"])


def test_transforms_get_the_whole_sample(tiny_dataset):
    dataset = ChipDataset(tiny_dataset(), "train", transforms=lambda sample: {"twice": sample["image"] * 2})
    assert torch.equal(dataset[1]["twice"], 2 * ChipDataset(tiny_dataset(), "train")[1]["image"])


def test_indices_count_from_both_ends_and_end(tiny_dataset):
    dataset = ChipDataset(tiny_dataset(), "val")
    assert dataset[-1]["chip_id"] == dataset[9]["chip_id"] == "val-1-004"
    for index in (10, -11):
        with pytest.raises(IndexError):
            dataset[index]


@pytest.mark.parametrize("codec", CODECS)
def test_four_workers_give_the_same_pixels_after_the_parent_has_read(tiny_dataset, codec):
    dataset = ChipDataset(tiny_dataset(codec=codec), "train")
    alone = [dataset[i] for i in range(len(dataset))]
    for workers in (0, 4):
        batches = list(DataLoader(dataset, batch_size=3, num_workers=workers))
        for key in ("image", "mask", "valid", "transform", "bounds"):
            read = torch.cat([batch[key] for batch in batches])
            assert torch.equal(read, torch.stack([sample[key] for sample in alone]))
        assert [i for batch in batches for i in batch["chip_id"]] == [sample["chip_id"] for sample in alone]


def test_a_process_forked_while_a_shard_is_being_opened_can_read(tiny_dataset):
    dataset = ChipDataset(tiny_dataset(), "train")
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def read() -> None:
        torch.set_num_threads(1)  # as DataLoader's workers do: the parent's compute threads are not in the child
        sender.send(dataset[0]["chip_id"])

    child = multiprocessing.get_context("fork").Process(target=read)
    with dataset.shards[0]._lock:  # as another thread would hold it
        child.start()
        answered = receiver.poll(30)
    if not answered:
        child.kill()
    assert answered and receiver.recv() == "train-0-000"


@pytest.mark.parametrize("codec", CODECS)
def test_one_damaged_chip_is_named_and_the_others_still_read(tiny_dataset, tmp_path, codec):
    folder = shutil.copytree(tiny_dataset(codec=codec), tmp_path / "copy")
    shard = open_split(folder, "train")[1][0]
    places = shard.open().places["image"]
    with open(shard.path, "r+b") as file:
        file.seek(int(places.offset[2] + places.size[2]) - 1)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    dataset = ChipDataset(folder, "train")
    with pytest.raises(ChecksumError, match="image, chip 2 .train-0-002"):
        dataset[2]
    assert [dataset[i]["chip_id"][-3:] for i in range(10) if i != 2] == ["000", "001", "003", "004"] + [
        f"00{i}" for i in range(5)
    ]


def test_a_missing_data_set_is_torchgeos_error(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="root"):
        ChipDataset(tmp_path / "ombria" / "1.0.0")
    with pytest.raises(DatasetNotFoundError, match="ombria/1.0.0"):
        OMBRIA(tmp_path)


def test_a_download_says_how_to_build_instead(tmp_path):
    with pytest.raises(InputError, match="tidemark build ombria"):
        OMBRIA(tmp_path, download=True)
    with pytest.raises(InputError, match="tidemark build polar-patch"):
        PolarPatch(tmp_path, version="2.0.0", download=True)
    with pytest.raises(InputError, match="tidemark build mine"):
        ChipDataset(tmp_path / "mine" / "1.0.0", download=True)


def test_an_unknown_split_names_the_known_ones(tiny_dataset):
    with pytest.raises(FormatError, match="train, val, test"):
        ChipDataset(tiny_dataset(), "dev")


def test_named_data_sets_find_their_version_and_refuse_another(tiny_dataset):
    folder = tiny_dataset(name="polar-patch", version="2.0.0", kind="classification", shape=(2, 16, 16), classes=3)
    root = folder.parents[1]
    assert len(PolarPatch(root, "val", "2.0.0", bands=["b1"])) == 10
    shutil.copytree(folder, root / "ombria" / "1.0.0")
    with pytest.raises(InputError, match="expected ombria 1.0.0, found polar-patch 2.0.0"):
        OMBRIA(root)


def test_a_sample_is_drawn_with_its_prediction(tiny_dataset):
    dataset = ChipDataset(tiny_dataset(), "train", bands=["b1"])
    sample = dataset[0]
    figure = dataset.plot({**sample, "prediction": sample["mask"]}, suptitle="here")
    assert len([axes for axes in figure.axes if axes.images]) == 3
    assert any("here" in text.get_text() for text in figure.findobj(Text))
