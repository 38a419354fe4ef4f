import csv
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tidemark.datasets.builders import polar_patch
from tidemark.errors import InputError, SceneError

DATA = Path(os.environ.get("TIDEMARK_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (DATA / "polar-patch.zip").exists(), reason=f"no polar-patch.zip in {DATA} (set TIDEMARK_DATA)"
)
N = 80


@pytest.fixture
def source(tmp_path):
    """80 patches in one pass; patch 3 is blank, the label turns with the id."""
    folder, rng = tmp_path / "polar-patch", np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for i in range(N):
        pixels = rng.integers(10, 255, (64, 64, 3), dtype=np.uint8) if i != 3 else np.full((64, 64, 3), 2, np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
    rows = "".join(f"{i} {100 + i} {2 * i} {'WIL'[i % 3]}\n" for i in range(N))
    (folder / "meta.csv").write_text(rows)
    return folder


def zipped(folder):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as file:
        for name in sorted(folder.rglob("*.*")):
            file.write(name, name.relative_to(folder.parent))
    return path


def chips(plan):
    """chip id -> (split, scene, window, arrays), as a build would read them."""
    found = {}
    for shard in plan.shards:
        for job in shard.scenes:
            refs = polar_patch.index(job)
            for ref, arrays in zip(refs, polar_patch.read(job, refs), strict=True):
                found[ref.id] = shard.split, job.id, ref.window, arrays
    return found


def test_channels_labels_and_windows_come_from_the_source(source):
    found = chips(polar_patch.plan(source, unverified_source=True))
    split, scene, window, arrays = found["00004"]
    rgb = np.asarray(Image.open(source / "images" / "4.png"))
    assert (split, scene, window) == ("train", "phase-0.045-0.090", (104, 8, 64, 64))
    assert (arrays["image"][0] == rgb[..., 2]).all() and (arrays["image"][1] == rgb[..., 1]).all()
    assert arrays["image"].dtype == np.uint8 and arrays["label"].shape == () and arrays["label"] == 1


def test_blank_patches_and_guard_bands_are_left_out(source):
    found = chips(polar_patch.plan(source, unverified_source=True))
    assert "00003" not in found
    assert {i for i in range(N) if f"{i:05d}" in found} == {
        i for i in range(N) if i != 3 and not any(a <= i / N < b for a, b in ((0.36, 0.44), (0.65, 0.73), (0.83, 0.91)))
    }
    assert {split for split, *_ in found.values()} == {"train", "val", "test"}


def test_a_patch_that_only_the_derived_red_channel_fills_is_blank(source):
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[..., 0] = 85
    Image.fromarray(pixels).save(source / "images" / "5.png")
    assert "00005" not in chips(polar_patch.plan(source, unverified_source=True))


def test_zip_and_folder_give_the_same_plan(source):
    one, two = (polar_patch.plan(path, unverified_source=True) for path in (source, zipped(source)))
    assert one.header == two.header and one.scenes == two.scenes
    assert chips(one).keys() == chips(two).keys()


def test_scenes_of_two_splits_share_no_source_record(source):
    records = [scene.sources[0].sha256 for scene in polar_patch.plan(source, unverified_source=True).scenes]
    assert len(set(records)) == len(records)


def test_another_source_is_refused_by_its_digest(source):
    with pytest.raises(InputError, match="expected tree sha256 17d8fef5.*unverified_source"):
        polar_patch.plan(source)
    assert polar_patch.plan(source, unverified_source=True).header.builder.parameters["unverified_source"] is True


@pytest.mark.parametrize("line", ["4 104 8", "4 104 8 X", "5 104 8 W", "4 -1 8 W", "4 1e9 8 W"])
def test_a_bad_row_is_named(source, line):
    rows = (source / "meta.csv").read_text().splitlines()
    (source / "meta.csv").write_text("\n".join([*rows[:4], line, *rows[5:]]))
    with pytest.raises(InputError, match="meta.csv: line 5 is not '4 x y label'"):
        polar_patch.plan(source, unverified_source=True)


def test_a_missing_or_wrong_image_is_named(source):
    job = polar_patch.plan(source, unverified_source=True).shards[0].scenes[0]
    Image.new("L", (64, 64)).save(source / "images" / "0.png")
    with pytest.raises(SceneError, match="images/0.png: expected RGB of 64 x 64, found L"):
        polar_patch.index(job)
    (source / "images" / "0.png").write_bytes(b"GIF89a")
    with pytest.raises(SceneError, match="images/0.png: not a readable PNG"):
        polar_patch.index(job)
    (source / "images" / "1.png").unlink()
    with pytest.raises(InputError, match="images/1.png is missing"):
        polar_patch.plan(source, unverified_source=True)


def test_unknown_labels_argument_is_refused(source):
    with pytest.raises(InputError, match="'stored' or 'repaired', found 'best'"):
        polar_patch.plan(source, labels="best", unverified_source=True)


def reference_repair(points, labels, starts):
    """The rule of the data notes, one patch at a time."""
    phase, result = polar_patch.pass_phase(len(labels), starts), []
    for i, (x, y) in enumerate(points):
        near = [j for j in range(len(labels)) if phase[i] - 0.025 <= phase[j] < phase[i] + 0.025]
        near.sort(key=lambda j: (max(abs(points[j][0] - y), abs(points[j][1] - x)), j))
        three = near[:3]
        far = len(three) < 3 or max(abs(points[three[2]][0] - y), abs(points[three[2]][1] - x)) >= 600
        agree = len({labels[j] for j in three}) == 1
        result.append(255 if far or not agree else labels[three[0]])
    return np.array(result, np.uint8)


def test_the_repair_follows_the_rule_patch_by_patch():
    rng = np.random.default_rng(1)
    points = rng.integers(0, 40, (500, 2)) * 50  # a coarse grid makes ties
    labels = ((points[:, 0] > 1000).astype(np.uint8) + (rng.random(500) < 0.1)).astype(np.uint8)
    starts = (0, 120, 260, 380)
    found = polar_patch.repair_labels(points, labels, starts)
    assert (found == reference_repair(points, labels, starts)).all()
    assert 50 < (found != polar_patch.DROPPED).sum() < 450


def test_both_versions_use_the_same_blocks(source):
    stored = polar_patch.plan(source, labels="stored", unverified_source=True)
    repaired = polar_patch.plan(source, labels="repaired", unverified_source=True)
    assert (stored.header.version, repaired.header.version) == ("1.0.0", "2.0.0")
    assert {s.id: s.split for s in repaired.scenes}.items() <= {s.id: s.split for s in stored.scenes}.items()


@pytest.fixture(scope="module")
def published():
    return polar_patch.open_source(DATA / "polar-patch.zip")


@needs_data
def test_the_repair_equals_the_derived_list(published):
    points, labels = polar_patch.read_points(published)
    found = polar_patch.repair_labels(points, labels)
    with open(DATA / "polar-audit" / "derived_relabel.csv") as file:
        rows = list(csv.DictReader(file))
    expected = np.array([polar_patch.CODES.get(row["relabel"], polar_patch.DROPPED) for row in rows], np.uint8)
    # Ties in distance go to the lower id: 530 becomes land, 3995 and 9174 (ice in the list) find no agreement.
    assert np.flatnonzero(found != expected).tolist() == [530, 3995, 9174]
    assert found[[530, 3995, 9174]].tolist() == [2, polar_patch.DROPPED, polar_patch.DROPPED]
    assert np.abs(polar_patch.pass_phase(len(found)) - [float(row["pass_phase"]) for row in rows]).max() < 1e-5
    blank = np.array([row["blank"] == "1" for row in rows])
    assert ((found != polar_patch.DROPPED) & ~blank).sum() == 6125


@needs_data
def test_patches_that_overlap_never_lie_in_two_splits():
    pairs = np.loadtxt(DATA / "polar-audit" / "exact_overlap_pairs.csv", delimiter=",", skiprows=1, dtype=int)
    block = polar_patch.by_phase_blocks(polar_patch.pass_phase(10047), polar_patch.BLOCKS, polar_patch.GUARD)
    names = np.array([*(b.split for b in polar_patch.BLOCKS), "none"])[block]
    left, right = names[pairs[:, 0]], names[pairs[:, 1]]
    assert ((left == right) | (left == "none") | (right == "none")).all()


@needs_data
def test_the_published_source_gives_all_classes_in_every_split():
    found = chips(polar_patch.plan(DATA / "polar-patch.zip"))
    counts = {split: np.zeros(3, int) for split in ("train", "val", "test")}
    for split, _, _, arrays in found.values():
        counts[split][arrays["label"]] += 1
    assert {k: v.tolist() for k, v in counts.items()} == {
        "train": [1426, 1720, 490],
        "val": [327, 376, 99],
        "test": [691, 737, 262],
    }
