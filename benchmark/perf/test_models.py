"""Networks against matrix products, and whole predictions against the network alone."""

from __future__ import annotations

import time

import numpy as np
import pytest
import rasterio
import torch
from tidemark.benchmark import subject
from tidemark.models.inference import open_inference
from tidemark.models.predict import predict_scene
from tidemark.models.weights import from_pretrained

TILE, SCENE_PX, BATCH = 64, 192, 4
SHARE_PX, SHARE_LIMIT = 1024, 0.08  # rows and columns; what is aimed at


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """More threads would compare how both share busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    room = tmp_path_factory.mktemp("weights")
    return subject.find_subject("unet", room, channels=2, arguments={})


def products() -> float:
    """Matrix products with the convolution layers' number of multiplications, roughly."""
    a = torch.ones(256, 256)
    for _ in range(8):
        a = a @ a * 0.0039
    return 8.0


def forward(model: torch.nn.Module, batch: int, side: int):
    image = torch.zeros(batch, 2, side, side).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def work() -> float:
        model(image=image)
        return float(batch)

    return work


def test_unet_forward_against_matrix_products(compare, unet):
    compare("model: unet 64² / matrix product", forward(unet.pretrained.model, BATCH, TILE), products)


def test_patch_cnn_forward_against_matrix_products(compare, tmp_path):
    preprocess = subject.synthetic_preprocess(2)
    folder = subject.random_weights("patch-cnn", {"width": 16, "hidden": 256}, preprocess, tmp_path, "classification")
    compare("model: patch-cnn 64² / matrix product", forward(from_pretrained(folder).model, 32, TILE), products)


def test_a_scene_against_the_network_on_as_many_tiles(compare, unet):
    scene = np.full((2, SCENE_PX, SCENE_PX), 2500, np.uint16)
    tiles = (2 * SCENE_PX // TILE - 1) ** 2
    network = forward(unet.pretrained.model, BATCH, TILE)

    def whole_scene() -> float:
        predict_scene(scene, unet.pretrained, tile=TILE, batch_size=BATCH, device="cpu")
        return float(tiles)

    compare("predict: scene tiles / network", whole_scene, network)


def test_end_to_end_against_the_network(compare, unet, tmp_path):
    folder = subject.synthetic_dataset(unet, tmp_path, chips=2 * BATCH, size=TILE)
    loader, predict = open_inference(unet.pretrained, folder, "train", device="cpu", batch_size=BATCH)
    network = forward(unet.pretrained.model, BATCH, TILE)
    compare("predict: chips end to end / network", lambda: float(sum(len(predict(b)) for b in loader)), network)


def test_what_a_scene_costs_beyond_its_network(benchmark, tmp_path):
    """GeoTIFF to GeoTIFF with the ResNet-18 U-Net: processor time of everything else over the network's own."""
    pretrained = subject.find_subject("unet", tmp_path, channels=4, arguments={}).pretrained
    scene = np.random.default_rng(0).integers(100, 5000, (4, SHARE_PX, SHARE_PX), dtype=np.uint16)
    profile = {"driver": "GTiff", "count": 4, "height": SHARE_PX, "width": SHARE_PX, "dtype": "uint16", "tiled": True,
               "compress": "deflate", "crs": "EPSG:32622", "transform": rasterio.Affine.scale(10, -10)}  # fmt: skip
    with rasterio.open(tmp_path / "scene.tif", "w", **profile) as file:
        file.write(scene)
    spent, started = [0.0], [0.0]
    before = pretrained.model.register_forward_pre_hook(lambda *_: started.__setitem__(0, time.process_time()))
    after = pretrained.model.register_forward_hook(
        lambda *_: spent.__setitem__(0, spent[0] + time.process_time() - started[0])
    )
    predict_scene(scene[:, :256, :256], pretrained, device="cpu")
    spent[0] = 0.0
    whole = time.process_time()
    benchmark.pedantic(lambda: predict_scene(tmp_path / "scene.tif", pretrained, tmp_path / "map.tif", device="cpu"))
    share = (time.process_time() - whole) / spent[0] - 1
    before.remove()
    after.remove()
    benchmark.extra_info["share_beyond_network"] = share
    print(f"tiles, blending, reading, writing: {share:.1%} of the network's own time")
    assert 0 < share < 2 * SHARE_LIMIT, "a gross loss"
