"""Recipes are read as data: strictly, within bounds, and never executed."""

from __future__ import annotations

import pytest
import yaml
from tidemark import configs
from tidemark.errors import ConfigError


def recipe(tmp_path, text, name="recipe.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_recipe_names_only_what_differs_from_the_defaults(tmp_path):
    cfg = configs.load_config(recipe(tmp_path, "DATA: {NAME: ombria}\nTRAIN:\n  LR: 1e-3\n  EPOCHS: 3\n"))
    assert (cfg.DATA.NAME, cfg.TRAIN.LR, cfg.TRAIN.EPOCHS) == ("ombria", 1e-3, 3)
    assert cfg.TRAIN.BATCH_SIZE == configs.get_defaults().TRAIN.BATCH_SIZE


def test_overrides_come_last_and_are_parsed_as_yaml(tmp_path):
    overrides = ["TRAIN.LR", "2e-4", "DATA.BANDS", "[after]", "MODEL.ARGS.encoder", "resnet34", "AUGMENT.FLIP", "true"]
    cfg = configs.load_config(recipe(tmp_path, "TRAIN: {LR: 0.1}\n"), overrides)
    assert (cfg.TRAIN.LR, cfg.DATA.BANDS, cfg.MODEL.ARGS["encoder"], cfg.AUGMENT.FLIP) == (
        2e-4,
        ["after"],
        "resnet34",
        True,
    )


def test_a_loaded_configuration_is_frozen(tmp_path):
    cfg = configs.load_config(recipe(tmp_path, "SEED: 3\n"))
    with pytest.raises(AttributeError):
        cfg.TRAIN.EPOCHS = 4


def test_a_dump_reads_back_to_the_same_configuration(tmp_path):
    text = "SEED: 7\nTRAIN: {LR: 3e-5}\nMODEL: {NAME: unet, ARGS: {encoder: resnet18, decoder_channels: [64, 32]}}\n"
    cfg = configs.load_config(recipe(tmp_path, text))
    again = configs.load_config(recipe(tmp_path, configs.dump(cfg), "again.yaml"))
    assert configs.to_dict(again) == configs.to_dict(cfg)


@pytest.mark.parametrize("given", ["configs/ombria/unet.yaml", "ombria/unet.yaml", "ombria/unet"])
def test_a_recipe_of_the_package_is_found_from_any_folder(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert configs.load_config(given).MODEL.NAME == "unet"


@pytest.mark.parametrize("name", configs.recipes())
def test_every_recipe_of_the_package_is_valid(name):
    cfg = configs.load_config(name)
    assert cfg.DATA.NAME == name.split("/")[0]
    assert cfg.MODEL.NAME


def test_a_misspelt_recipe_names_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="did you mean ombria/unet"):
        configs.load_config("ombria/unett")


@pytest.mark.parametrize("name", ["", ".", "configs", "configs/", "a" * 5000])
def test_a_name_that_is_no_recipe_is_refused(name):
    with pytest.raises(ConfigError, match="no such recipe"):
        configs.load_config(name)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("TRAIN: {EPOCH: 3}", "TRAIN.EPOCHS"),
        ("EPOCHS: 3", "TRAIN.EPOCHS"),
        ("train: {LR: 0.1}", "TRAIN"),
        ("DATA: {BAND: [a]}", "DATA.BANDS"),
    ],
)
def test_an_unknown_key_names_the_nearest_valid_one(tmp_path, text, nearest):
    with pytest.raises(ConfigError, match=f"unknown key .*did you mean {nearest}"):
        configs.load_config(recipe(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "TRAIN: {EPOCHS: 2.5}",
        "TRAIN: {EPOCHS: true}",
        "TRAIN: {LR: fast}",
        "TRAIN: 3",
        "DATA: {BANDS: after}",
        "DATA: {BANDS: [1]}",
        "DATA: {VERSION: 2.0}",
        "AUGMENT: {FLIP: 1}",
        "TRAIN: {LR: .nan}",
        "TRAIN: {LR: nan}",
        "TRAIN: {EPOCHS: 0}",
        "TRAIN: {OPTIMIZER: lion}",
        "TRAIN: {CLASS_WEIGHTS: [-1]}",
        "SEED:",
        "- 1",
        "just text",
        "MODEL: {ARGS: {Encoder: x}}",
    ],
)
def test_a_wrong_type_or_value_is_refused(tmp_path, text):
    with pytest.raises(ConfigError):
        configs.load_config(recipe(tmp_path, text))


def test_python_in_any_disguise_is_refused_and_not_executed(tmp_path):
    canary = tmp_path / "canary"
    touch = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    files = [
        recipe(tmp_path, touch, "recipe.py"),
        recipe(tmp_path, f'!!python/object/apply:eval ["{touch}"]', "tag.yaml"),
        recipe(tmp_path, f"SEED: !!python/object/apply:os.system ['touch {canary}']", "nested.yaml"),
        recipe(tmp_path, f"SEED: !!python/name:os.system {canary}", "name.yaml"),
        recipe(tmp_path, "SEED: !!int 3", "harmless_tag.yaml"),
        recipe(tmp_path, "SEED: !mine 3", "own_tag.yaml"),
        recipe(tmp_path, "%TAG ! tag:yaml.org,2002:python/\n---\nSEED: !name:os.system 1", "directive.yaml"),
    ]
    for path in files:
        with pytest.raises(ConfigError):
            configs.load_config(path)
    with pytest.raises(ConfigError, match="tag"):
        configs.make_config({}, ["SEED", f"!!python/object/apply:os.system ['touch {canary}']"])
    assert not canary.exists()


def test_deep_brackets_are_refused_before_the_scanner_looks_ahead(monkeypatch):
    read, scan = [], yaml.SafeLoader.fetch_flow_collection_start
    monkeypatch.setattr(yaml.SafeLoader, "fetch_flow_collection_start", lambda *all: read.append(all) or scan(*all))
    with pytest.raises(ConfigError, match="line 2: nested deeper than 12 levels"):
        configs.parse_yaml("# a list\n" + "[" * 9000)
    assert len(read) == 12


def test_an_alias_bomb_is_refused(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    with pytest.raises(ConfigError, match="anchors and aliases"):
        configs.load_config(recipe(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize(
    "text",
    [
        "OUTPUT: " + "x" * 5000,
        "OUTPUT: " + "x" * 1_000_000,
        "MODEL: {ARGS: {a: " + "[" * 60_000 + "}}",
        "SEED: 1\nSEED: 2",
        "TRAIN: {LR: 0.1, LR: 0.2}",
        "TRAIN: {<<: {LR: 0.1}}",
        "? [a, b]\n: 1",
        "1: 2",
        "SEED: [1",
        "SEED: 1\n---\nSEED: 2",
        "SEED: " + "9" * 4000,
        "SEED: 1:" + "59:" * 300 + "1.5",
    ],
)
def test_hostile_yaml_ends_in_one_clear_line(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        configs.load_config(recipe(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_what_is_no_yaml_file_is_refused(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "folder.yaml", tmp_path / "binary.yaml", tmp_path / "absent.yaml"):
        with pytest.raises(ConfigError):
            configs.load_config(path)


def test_overrides_must_come_in_pairs():
    with pytest.raises(ConfigError, match="has no value"):
        configs.make_config({}, ["SEED", "1", "TRAIN.LR"])


def test_every_key_is_documented_and_every_limit_names_a_key():
    from pathlib import Path

    leaves = set(configs._leaves(configs.get_defaults()))
    assert set(configs.CHOICES) | set(configs.BOUNDS) <= leaves
    source = Path(configs.__file__).with_name("defaults.py").read_text().splitlines()
    keys = [line for line in source if line.strip().startswith("cfg.") and "CfgNode()" not in line]
    assert all("  # " in line for line in keys)
