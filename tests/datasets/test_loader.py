import gc
import hashlib
import multiprocessing
import pickle
import shutil
import subprocess
import sys
import threading
import time
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tidemark.datasets.loader import ChipLoader, EpochSampler
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import Codec
from tidemark.errors import ChecksumError, DeviceError, FormatError, InputError

CODECS = get_args(Codec)


def numbers(loader):
    return torch.cat([batch["index"] for batch in loader]).tolist()


def flip_byte(folder, split, number, array):
    """Damage one stored byte of the array in the split's chip; returns its shard and its number there."""
    _, shards = open_split(folder, split)
    for shard in shards:
        if number < shard.n:
            break
        number -= shard.n
    places = shard.open().places[array]
    with open(shard.path, "r+b") as file:
        file.seek(int(places.offset[number] + places.size[number]) - 1)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0x40]))
    return shard, number


@pytest.fixture
def own_copy(tiny_dataset, tmp_path):
    return lambda **kind: shutil.copytree(tiny_dataset(**kind), tmp_path / "copy" / kind.get("codec", "blosc"))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("shape", [(2, 128, 128), (2, 16, 16)])
def test_batches_hold_what_the_shards_hold(tiny_dataset, codec, shape):
    folder = tiny_dataset(codec=codec, shape=shape)
    manifest, shards = open_split(folder, "train")
    image = np.concatenate([shard.read_many("image", range(shard.n)) for shard in shards])
    mask = np.concatenate([shard.read_many("mask", range(shard.n)) for shard in shards])
    loader = ChipLoader(folder, "train", 4, shuffle=True)
    seen = []
    for batch in loader:
        index = batch["index"].numpy()
        assert batch["image"].dtype == torch.uint16 and batch["mask"].dtype == torch.uint8
        assert np.array_equal(batch["image"].numpy(), image[index])
        assert np.array_equal(batch["mask"].numpy(), mask[index])
        seen += index.tolist()
    assert sorted(seen) == list(range(10)) and [len(b["index"]) for b in loader] == [4, 4, 2]


def test_labels_and_ids_follow_the_chip_numbers(tiny_dataset):
    folder = tiny_dataset(kind="classification", shape=(1, 16, 16), classes=3)
    loader = ChipLoader(folder, "val", 4, arrays=["label"])
    batches = list(loader)
    assert set(batches[0]) == {"label", "index"} and batches[0]["label"].shape == (4,)
    assert loader.chip_ids == [f"val-{s}-{i:03d}" for s in range(2) for i in range(5)]
    assert loader.scene_ids == ["val-0"] * 5 + ["val-1"] * 5
    assert numbers(loader) == list(range(10))


def test_the_order_is_the_same_whatever_the_threads(tiny_dataset):
    def order(seed=3, epoch=0, **how):
        loader = ChipLoader(tiny_dataset(), "train", 3, shuffle=True, seed=seed, **how)
        loader.sampler.set_epoch(epoch)
        return [batch["index"].tolist() for batch in loader]

    assert order(threads=1, prefetch=0) == order(threads=2) == order(threads=5, prefetch=4)
    assert order(epoch=1) != order() != order(seed=4)


def test_the_order_of_a_seed_and_epoch_never_changes(tiny_dataset):
    loader = ChipLoader(tiny_dataset(), "train", 5, shuffle=True, seed=7)
    loader.sampler.set_epoch(2)
    assert [b["index"].tolist() for b in loader] == [[1, 3, 4, 5, 6], [0, 2, 7, 8, 9]]


def test_a_finished_epoch_is_followed_by_the_next(tiny_dataset):
    loader = ChipLoader(tiny_dataset(), "train", 3, shuffle=True)
    first, second = numbers(loader), numbers(loader)
    assert first != second
    loader.sampler.set_epoch(0)
    assert numbers(loader) == first
    in_order = ChipLoader(tiny_dataset(), "train", 3)
    assert numbers(in_order) == numbers(in_order) == list(range(10))


def test_set_epoch_counts_until_the_first_batch(tiny_dataset):
    loader = ChipLoader(tiny_dataset(), "train", 3, shuffle=True)
    loader.sampler.set_epoch(4)
    expected = [b["index"].tolist() for b in loader]
    late = ChipLoader(tiny_dataset(), "train", 3, shuffle=True)
    iterator = iter(late)
    late.sampler.set_epoch(4)
    assert [b["index"].tolist() for b in iterator] == expected


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_resumed_run_goes_on_mid_epoch(tiny_dataset, stop):
    def make():
        return ChipLoader(tiny_dataset(), "train", 3, shuffle=True, seed=5)

    whole = make()
    whole.sampler.set_epoch(6)
    expected = [b["index"].tolist() for b in whole] + [b["index"].tolist() for b in whole]
    first = make()
    first.sampler.set_epoch(6)
    iterator = iter(first)
    done = [next(iterator)["index"].tolist() for _ in range(stop)]
    state = first.state_dict()
    second = make()
    second.load_state_dict(state)
    second.sampler.set_epoch(6)  # as Lightning does on resume
    assert second.state_dict() == state
    rest = [b["index"].tolist() for b in second]
    assert len(second) == 4 and done + rest == expected[:4]
    if stop < 4:
        assert [b["index"].tolist() for b in second] == expected[4:]
    second.load_state_dict(state)
    second.sampler.set_epoch(7)
    assert [b["index"].tolist() for b in second] == expected[4:]


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"batch_size": 4}, {"content_sha256": "0" * 64}, {"batches": 99}, {"epoch": "1"}]
)
def test_a_state_of_another_run_is_refused(tiny_dataset, change):
    loader = ChipLoader(tiny_dataset(), "train", 3, shuffle=True)
    with pytest.raises(InputError, match=next(iter(change)).rstrip("es")):
        loader.load_state_dict({**loader.state_dict(), **change})


sizes = st.tuples(st.integers(1, 60), st.integers(1, 9), st.integers(1, 7), st.integers(0, 3))


@settings(max_examples=200, deadline=None)
@given(sizes)
def test_training_ranks_do_equal_work_and_miss_no_chip(size):
    n, batch_size, world_size, epoch = size
    ranks = []
    for rank in range(world_size):
        sampler = EpochSampler(n, batch_size, shuffle=True, seed=1, rank=rank, world_size=world_size, drop_last=False)
        sampler.set_epoch(epoch)
        ranks.append(sampler.batches())
        assert len(sampler) == len(ranks[-1])
    assert len({tuple(len(batch) for batch in batches) for batches in ranks}) == 1
    chips = np.concatenate([batch for batches in ranks for batch in batches])
    assert set(chips.tolist()) == set(range(n))
    assert np.bincount(chips).max() <= 1 + (len(chips) - n)
    assert len(chips) < n + world_size


@settings(max_examples=200, deadline=None)
@given(sizes)
def test_training_ranks_without_the_last_batch_get_whole_batches_of_distinct_chips(size):
    n, batch_size, world_size, epoch = size
    options = {"shuffle": True, "seed": 1, "world_size": world_size, "drop_last": True}
    if n // world_size < batch_size:
        with pytest.raises(InputError, match="do not fill one batch"):
            EpochSampler(n, batch_size, rank=0, **options)
        return
    chips = []
    for rank in range(world_size):
        sampler = EpochSampler(n, batch_size, rank=rank, **options)
        sampler.set_epoch(epoch)
        assert len(sampler) == n // world_size // batch_size
        assert all(len(batch) == batch_size for batch in sampler.batches())
        chips += np.concatenate(sampler.batches()).tolist()
    assert len(chips) == len(set(chips)) and set(chips) <= set(range(n))


@settings(max_examples=200, deadline=None)
@given(sizes)
def test_evaluation_shares_are_disjoint_complete_and_in_order(size):
    n, batch_size, world_size, _ = size
    chips = []
    for rank in range(world_size):
        sampler = EpochSampler(n, batch_size, shuffle=False, seed=0, rank=rank, world_size=world_size, drop_last=False)
        batches = sampler.batches()
        assert len(batches) == len(sampler)
        chips += [chip for batch in batches for chip in batch.tolist()]
    assert chips == list(range(n))


def test_a_batch_larger_than_the_data_takes_no_more_memory_than_they(tiny_dataset):
    loader = ChipLoader(tiny_dataset(), "train", 10**9)
    assert [len(batch["index"]) for batch in loader] == [loader.sampler.n]


def test_a_kept_batch_never_changes(tiny_dataset):
    loader = ChipLoader(tiny_dataset(), "train", 1, prefetch=3)
    kept, copies = [], []
    for _ in range(3):
        for batch in loader:
            kept.append(batch["image"][0, 1])  # a view: the tensor itself is gone
            copies.append(batch["image"][0, 1].clone())
    assert all(torch.equal(one, other) for one, other in zip(kept, copies, strict=True))


def test_buffers_are_used_again_once_nobody_holds_them(tiny_dataset):
    loader = ChipLoader(tiny_dataset(), "train", 1, prefetch=1)
    places = set()
    for _ in range(3):
        for batch in loader:
            places.add(batch["image"].data_ptr())
            time.sleep(0.002)
    assert len(places) <= 5


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("array", ["image", "mask"])
def test_a_flipped_byte_names_its_chip_and_the_others_still_read(own_copy, codec, array):
    folder = own_copy(codec=codec)
    shard, number = flip_byte(folder, "train", 7, array)
    loader = ChipLoader(folder, "train", 1)
    with pytest.raises(ChecksumError) as caught:
        list(loader)
    assert all(
        part in str(caught.value) for part in (str(shard.path), f"array {array}", f"chip {number}", "train-1-002")
    )
    _, shards = open_split(folder, "train")
    others = [(s, i) for s in shards for i in range(s.n) if (s.path, i) != (shard.path, number)]
    assert len([s.read(array, i) for s, i in others]) == 9


def test_a_flipped_byte_of_a_small_chip_is_found_too(own_copy):
    folder = own_copy(shape=(2, 16, 16))
    flip_byte(folder, "train", 3, "image")
    with pytest.raises(ChecksumError, match="array image, chip 3 .train-0-003"):
        list(ChipLoader(folder, "train", 4, shuffle=True))


def test_without_checksums_damaged_pixels_pass(own_copy):
    folder = own_copy(codec="none")
    flip_byte(folder, "train", 7, "image")
    assert sum(len(b["index"]) for b in ChipLoader(folder, "train", 4, checksum=False)) == 10


def threads_of_loaders():
    return [t for t in threading.enumerate() if t.name.startswith("tidemark-chips")]


def wait_for_no_threads():
    gc.collect()
    deadline = time.monotonic() + 10
    while threads_of_loaders() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not threads_of_loaders()


def test_an_abandoned_iteration_leaves_no_thread(tiny_dataset):
    loader = ChipLoader(tiny_dataset(), "train", 2)
    for _ in loader:
        assert threads_of_loaders()
        break
    assert wait_for_no_threads()
    iterator = iter(loader)
    next(iterator)
    del iterator
    assert wait_for_no_threads()
    assert len(list(loader)) == 5


def test_an_error_leaves_no_thread(own_copy):
    folder = own_copy(codec="none")
    flip_byte(folder, "train", 0, "image")
    with pytest.raises(ChecksumError):
        list(ChipLoader(folder, "train", 2))
    assert wait_for_no_threads()


def digest(loader):
    return hashlib.sha256(torch.cat([batch["image"] for batch in loader]).numpy()).hexdigest()


def reading(tiny_dataset, codec):
    loader = ChipLoader(tiny_dataset(codec=codec), "train", 3)
    iterator = iter(loader)
    next(iterator)
    return loader, iterator


@pytest.mark.parametrize("codec", CODECS)
def test_a_loader_works_in_a_process_forked_while_it_reads(tiny_dataset, codec):
    loader, _reading = reading(tiny_dataset, codec)
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def read() -> None:
        torch.set_num_threads(1)  # as DataLoader's workers do: the parent's compute threads are not in the child
        sender.send(digest(loader))

    child = multiprocessing.get_context("fork").Process(target=read)
    child.start()
    assert receiver.poll(60) and receiver.recv() == digest(loader)
    child.join(10)
    assert child.exitcode == 0


def test_a_loader_works_in_a_fresh_process(tiny_dataset):
    loader, _reading = reading(tiny_dataset, "blosc")
    program = (
        "import hashlib, pickle, sys, torch\n"
        "loader = pickle.load(sys.stdin.buffer)\n"
        "print(hashlib.sha256(torch.cat([batch['image'] for batch in loader]).numpy()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(loader), capture_output=True, check=True)
    assert done.stdout.decode().strip() == digest(loader)


def test_a_pickled_loader_goes_on_where_it_was(tiny_dataset):
    loader = ChipLoader(tiny_dataset(), "train", 3, shuffle=True)
    numbers(loader)
    assert numbers(pickle.loads(pickle.dumps(loader))) == numbers(loader)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch size"),
        ({"threads": 0}, "threads"),
        ({"prefetch": -1}, "prefetch"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"seed": -1}, "seed"),
        ({"batch_size": 11, "shuffle": True, "drop_last": True}, "do not fill"),
        ({"arrays": ["imag"]}, "image, mask"),
    ],
)
def test_wrong_arguments_are_refused_in_words(tiny_dataset, arguments, message):
    with pytest.raises(InputError, match=message):
        ChipLoader(tiny_dataset(), "train", **{"batch_size": 2, **arguments})


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_page_locked_memory_needs_cuda(tiny_dataset):
    with pytest.raises(DeviceError, match="CUDA"):
        ChipLoader(tiny_dataset(), "train", 2, pin_memory=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_page_locked_batches_reach_the_gpu_unchanged(tiny_dataset):
    plain = ChipLoader(tiny_dataset(), "train", 1, pin_memory=False)
    there = [
        batch["image"].to("cuda", non_blocking=True) for _ in range(5) for batch in ChipLoader(plain.root, "train", 1)
    ]
    assert all(torch.equal(one.cpu(), two["image"]) for one, two in zip(there, [*plain] * 5, strict=True))


def test_an_unknown_split_names_the_known_ones(tiny_dataset):
    with pytest.raises(FormatError, match="train, val, test"):
        ChipLoader(tiny_dataset(), "dev", 2)
