"""Every metric against numbers computed by hand, and against the libraries that define the same thing."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tidemark.benchmark import metrics

# 2 x 4 pixels: 1 = water, 255 = no label.        TP  FN  FP  TN: 2 1 1 3, one ignored
TRUTH = np.array([[1, 1, 1, 0], [0, 0, 0, 255]], np.uint8)
ANSWER = np.array([[1, 1, 0, 1], [0, 0, 0, 1]], np.uint8)
WATER = np.array([[3, 1], [1, 2]])  # rows = truth

# Three classes, ten patches.
PATCHES = np.array([[3, 1, 0], [1, 2, 1], [0, 0, 2]])


def masks(n_classes: int, values_beside: tuple[int, ...] = (255,), shape=(6, 5, 4)):
    return arrays(np.uint8, shape, elements=st.sampled_from((*range(n_classes), *values_beside)))


def test_confusion_counts_pairs_and_leaves_out_ignored_pixels():
    assert metrics.confusion(TRUTH, ANSWER, 2).tolist() == WATER.tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_confusion_of_three_classes(dtype):
    truth = np.array([0, 0, 1, 2, 2, 255], dtype)
    answer = np.array([0, 2, 1, 2, 0, 1], dtype)
    assert metrics.confusion(truth, answer, 3).tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_an_abstention_on_a_valid_pixel_counts_as_the_opposite_class():
    truth, answer = np.array([0, 1, 255, 1], np.uint8), np.array([255, 255, 255, 1], np.uint8)
    assert metrics.confusion(truth, answer, 2).tolist() == [[0, 1], [1, 1]]


def test_an_abstention_among_three_classes_counts_as_the_next_class():
    truth, answer = np.array([0, 1, 2, 2, 255], np.uint8), np.array([255, 255, 255, 2, 255], np.uint8)
    assert metrics.confusion(truth, answer, 3).tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 1]]


@pytest.mark.parametrize("n", [2, 3])
def test_a_value_that_is_no_class_is_refused(n):
    good, bad = np.zeros(3, np.uint8), np.array([0, 7, 0], np.uint8)
    with pytest.raises(ValueError, match="prediction holds 7"):
        metrics.confusion(good, bad, n)
    with pytest.raises(ValueError, match="truth holds 7"):
        metrics.confusion(bad, good, n)
    with pytest.raises(ValueError, match="truth holds -1"):
        metrics.confusion(np.array([-1]), np.array([0]), n)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize(("dtype", "bad"), [(np.uint8, 7), (np.int64, 7), (np.int64, -1), (np.uint8, 254)])
def test_a_single_value_that_is_no_class_is_found_among_many(n, dtype, bad):
    good, strange = np.full((2, 70, 70), 255, dtype)
    good[:35], strange[:35], strange[50, 3] = 1, 0, bad
    with pytest.raises(ValueError, match=f"prediction holds {bad}"):
        metrics.confusion(good, strange, n)
    with pytest.raises(ValueError, match=f"truth holds {bad}"):
        metrics.confusion(strange, good, n)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="shape"):
        metrics.confusion(np.zeros(3, np.uint8), np.zeros(4, np.uint8), 2)


@pytest.mark.parametrize("n", [2, 3, 8, 9, 20])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_confusion_does_not_depend_on_the_way_it_is_counted(monkeypatch, n, dtype):
    """By bits in blocks, with a rest, by histogram, and as scikit-learn does."""
    random = np.random.default_rng(n)
    truth, answer = random.choice([*range(n), 255], (2, 5000)).astype(dtype)
    for values in ((truth, answer), (truth, answer % n), (answer % n, truth), (answer % n, truth % n)):
        truth, answer = values
        found = []
        for block, packed in ((7, 10**9), (10**6, 10**9), (200, 64), (10**6, 64)):
            monkeypatch.setattr(metrics, "BLOCK", block)
            monkeypatch.setattr(metrics, "PACKED_PIXELS", packed)
            found.append(metrics.confusion(truth, answer, n))
        keep = truth != 255
        filled = np.where(answer == 255, (truth.astype(int) + 1) % n, answer)
        expected = sklearn.metrics.confusion_matrix(truth[keep], filled[keep], labels=range(n))
        assert all(np.array_equal(counts, expected) for counts in found)


def test_binary_scores_by_hand():
    assert metrics.water_iou(WATER) == 2 / 4
    assert metrics.class_precision(WATER)[1] == 2 / 3
    assert metrics.class_recall(WATER)[1] == 2 / 3
    assert metrics.class_f1(WATER)[1] == 4 / 6
    assert metrics.overall_accuracy(WATER) == 5 / 7
    assert metrics.false_positive_rate(WATER) == 1 / 4


def test_multi_class_scores_by_hand():
    assert metrics.class_iou(PATCHES).tolist() == [3 / 5, 2 / 5, 2 / 3]
    assert metrics.mean_iou(PATCHES) == pytest.approx((3 / 5 + 2 / 5 + 2 / 3) / 3)
    assert metrics.class_f1(PATCHES).tolist() == [6 / 8, 4 / 7, 4 / 5]
    assert metrics.macro_f1(PATCHES) == pytest.approx((6 / 8 + 4 / 7 + 4 / 5) / 3)
    assert metrics.balanced_accuracy(PATCHES) == pytest.approx((3 / 4 + 2 / 4 + 2 / 2) / 3)
    assert metrics.overall_accuracy(PATCHES) == 7 / 10


def test_an_absent_class_is_undefined_and_left_out_of_means():
    counts = np.array([[4, 0, 0], [0, 0, 0], [2, 0, 2]])
    assert np.isnan(metrics.class_iou(counts)[1])
    assert metrics.mean_iou(counts) == pytest.approx((4 / 6 + 2 / 4) / 2)
    assert metrics.macro_f1(counts) == pytest.approx((8 / 10 + 4 / 6) / 2)
    assert metrics.balanced_accuracy(counts) == pytest.approx((1 + 0.5) / 2)


def test_nothing_at_all_is_undefined_not_zero():
    nothing = np.zeros((2, 2))
    for score in (metrics.water_iou, metrics.overall_accuracy, metrics.macro_f1, metrics.false_positive_rate):
        assert np.isnan(score(nothing))
    assert metrics.none(metrics.water_iou(nothing)) is None


def test_no_water_predicted_on_five_percent_water_scores_zero():
    assert metrics.water_iou(np.array([[95, 0], [5, 0]])) == 0


def test_empty_chips_with_a_stray_pixel_do_not_halve_the_pooled_iou():
    wet, dry = np.array([[0, 0], [0, 9]]), np.array([[8, 1], [0, 0]])
    assert metrics.water_iou(wet + dry) == 0.9


def test_the_worst_decile_is_the_tenth_of_hundred_and_the_worst_of_ten():
    assert metrics.worst_decile(np.arange(100) / 100) == 0.09
    assert metrics.worst_decile([0.5, 0.2, 0.9]) == 0.2
    assert metrics.worst_decile([np.nan, 0.3]) == 0.3
    assert np.isnan(metrics.worst_decile([np.nan]))


def test_skill_is_measured_from_the_best_trivial_row():
    assert metrics.skill(0.6, [0.2, 0.1]) == pytest.approx(0.5)
    assert metrics.skill(0.1, [0.2, float("nan")]) == pytest.approx(-0.125)
    assert np.isnan(metrics.skill(0.5, []))


def test_calibration_error_by_hand():
    # 10 pixels at 0.2 of which 3 are water; 10 at 0.8 of which 8 are: (10 * 0.1 + 10 * 0) / 20
    probability = np.repeat(np.array([51, 204], np.uint8), 10)
    hit = np.array([True] * 3 + [False] * 7 + [True] * 8 + [False] * 2)
    counts = metrics.calibration_counts(probability, hit)
    assert counts.sum() == 20
    assert metrics.expected_calibration_error(counts) == pytest.approx(0.05)
    assert np.isnan(metrics.expected_calibration_error(np.zeros((256, 2), int)))


def test_calibration_error_agrees_with_torchmetrics():
    import tidemark._compat  # noqa: F401  (before torchvision)
    import torch
    from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

    random = np.random.default_rng(3)
    level = random.integers(0, 256, 5000).astype(np.uint8)
    water = random.random(5000) < (level / 255) ** 2
    ours = metrics.expected_calibration_error(metrics.calibration_counts(level, water))
    probability = torch.from_numpy(level.astype(np.float64) / 255)
    theirs = binary_calibration_error(probability, torch.from_numpy(water.astype(int)), n_bins=15, norm="l1")
    assert ours == pytest.approx(float(theirs), abs=1e-6)

    scores = random.dirichlet((1, 1, 1), 5000)
    truth = random.integers(0, 3, 5000)
    level = np.round(255 * scores.max(1)).astype(np.uint8)
    ours = metrics.expected_calibration_error(metrics.calibration_counts(level, scores.argmax(1) == truth))
    theirs = multiclass_calibration_error(torch.from_numpy(scores), torch.from_numpy(truth), 3, n_bins=15)
    assert ours == pytest.approx(float(theirs), abs=3e-3)  # ours sees the stored eight bits


def confidences(levels, hits):
    return metrics.calibration_counts(np.array(levels, np.uint8), np.array(hits, bool))


def test_risk_and_coverage_by_hand():
    # Confidence 250: right. 200: one right, one wrong. 100: wrong.
    counts = confidences([250, 200, 200, 100], [1, 1, 0, 0])
    coverage, risk = metrics.risk_coverage(counts)
    assert coverage.tolist() == [1 / 4, 3 / 4, 1]
    assert risk.tolist() == [0, 1 / 3, 1 / 2]
    # Mean over the four answers of the risk at their own confidence: (0 + 1/3 + 1/3 + 1/2) / 4
    assert metrics.area_under_risk_coverage(counts) == pytest.approx((0 + 1 / 3 + 1 / 3 + 1 / 2) / 4)
    assert np.isnan(metrics.area_under_risk_coverage(np.zeros((256, 2), int)))


def test_the_area_under_the_curve_is_zero_without_errors_and_the_error_rate_without_knowledge():
    assert metrics.area_under_risk_coverage(confidences([9, 90, 200], [1, 1, 1])) == 0
    assert metrics.area_under_risk_coverage(confidences([128] * 10, [1] * 7 + [0] * 3)) == pytest.approx(0.3)


@settings(max_examples=40)
@given(st.permutations(range(256)), st.lists(st.booleans(), min_size=256, max_size=256))
def test_the_area_under_the_curve_is_the_mean_risk_over_sorted_answers(levels, hits):
    """The definition for answers that are all of different confidence, sorted."""
    order = np.argsort(levels)[::-1]
    wrong = ~np.array(hits)[order]
    expected = (wrong.cumsum() / np.arange(1, 257)).mean()
    assert metrics.area_under_risk_coverage(confidences(levels, hits)) == pytest.approx(expected)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 255), st.booleans()), min_size=2, max_size=60), st.randoms())
def test_histograms_of_shards_add_up_in_any_order(answers, random):
    turned = answers[:]
    random.shuffle(turned)
    cut = random.randint(1, len(answers) - 1)
    parts = [confidences(*zip(*part, strict=True)) for part in (turned[:cut], turned[cut:])]
    assert np.array_equal(sum(parts), confidences(*zip(*answers, strict=True)))


def test_the_false_positive_rate_by_hand_and_without_dry_ground():
    assert metrics.false_positive_rate(np.array([[6, 2], [0, 0]])) == 0.25
    assert np.isnan(metrics.false_positive_rate(np.array([[0, 0], [1, 1]])))


@settings(max_examples=40, deadline=None)
@given(masks(3, ()), masks(3, ()))
def test_scores_agree_with_scikit_learn(truth, answer):
    counts = metrics.confusion(truth, answer, 3)
    t, a = truth.ravel(), answer.ravel()
    present = sorted(set(t.tolist()) | set(a.tolist()))
    assert metrics.macro_f1(counts) == pytest.approx(sklearn.metrics.f1_score(t, a, average="macro"))
    assert metrics.mean_iou(counts) == pytest.approx(sklearn.metrics.jaccard_score(t, a, average="macro"))
    assert metrics.overall_accuracy(counts) == pytest.approx(sklearn.metrics.accuracy_score(t, a))
    recall = sklearn.metrics.recall_score(t, a, average=None, labels=sorted(set(t.tolist())), zero_division=0)
    assert metrics.balanced_accuracy(counts) == pytest.approx(recall.mean())
    precision = sklearn.metrics.precision_score(t, a, average=None, labels=present, zero_division=np.nan)
    assert metrics.class_precision(counts)[present] == pytest.approx(precision, nan_ok=True)
    by_class = sklearn.metrics.recall_score(t, a, average=None, labels=range(3), zero_division=np.nan)
    assert metrics.class_recall(counts) == pytest.approx(by_class, nan_ok=True)
    by_class = sklearn.metrics.f1_score(t, a, average=None, labels=range(3), zero_division=np.nan)
    assert metrics.class_f1(counts) == pytest.approx(by_class, nan_ok=True)


def test_scores_agree_with_torchmetrics():
    import tidemark._compat  # noqa: F401  (before torchvision)
    import torch
    from torchmetrics.functional import classification as theirs

    random = np.random.default_rng(1)
    truth = random.choice([0, 1, 255], 4000, p=[0.7, 0.25, 0.05]).astype(np.uint8)
    answer = random.integers(0, 2, 4000).astype(np.uint8)
    counts = metrics.confusion(truth, answer, 2)
    t, a = torch.from_numpy(truth).long(), torch.from_numpy(answer).long()
    assert np.array_equal(counts, theirs.binary_confusion_matrix(a, t, ignore_index=255).numpy())
    assert metrics.water_iou(counts) == pytest.approx(float(theirs.binary_jaccard_index(a, t, ignore_index=255)))
    assert metrics.class_f1(counts)[1] == pytest.approx(float(theirs.binary_f1_score(a, t, ignore_index=255)))
    precision, recall = theirs.binary_precision(a, t, ignore_index=255), theirs.binary_recall(a, t, ignore_index=255)
    assert metrics.class_precision(counts)[1] == pytest.approx(float(precision))
    assert metrics.class_recall(counts)[1] == pytest.approx(float(recall))
    assert 1 - metrics.false_positive_rate(counts) == pytest.approx(
        float(theirs.binary_specificity(a, t, ignore_index=255))
    )

    truth = random.choice([0, 1, 2, 255], 4000, p=[0.5, 0.2, 0.2, 0.1]).astype(np.uint8)
    answer = random.integers(0, 3, 4000).astype(np.uint8)
    counts = metrics.confusion(truth, answer, 3)
    t, a, options = torch.from_numpy(truth).long(), torch.from_numpy(answer).long(), {"ignore_index": 255}
    assert np.array_equal(counts, theirs.multiclass_confusion_matrix(a, t, 3, **options).numpy())
    for ours, name, average in (
        (metrics.class_iou, "jaccard_index", "none"), (metrics.class_precision, "precision", "none"),
        (metrics.class_recall, "recall", "none"), (metrics.mean_iou, "jaccard_index", "macro"),
        (metrics.macro_f1, "f1_score", "macro"), (metrics.balanced_accuracy, "accuracy", "macro"),
        (metrics.overall_accuracy, "accuracy", "micro"),
    ):  # fmt: skip
        expected = getattr(theirs, f"multiclass_{name}")(a, t, 3, average=average, **options)
        assert ours(counts) == pytest.approx(expected.numpy(), rel=1e-6), name


def test_confusion_agrees_with_scikit_image():
    from skimage.metrics import contingency_table

    truth, answer = np.random.default_rng(2).integers(0, 3, (2, 30, 30)).astype(np.uint8)
    theirs = contingency_table(truth, answer).toarray()
    assert np.array_equal(metrics.confusion(truth, answer, 3), theirs)


@settings(max_examples=40, deadline=None)
@given(masks(2), masks(2), st.randoms())
def test_permuting_chips_and_splitting_them_into_shards_changes_nothing(truth, answer, random):
    order = list(range(len(truth)))
    random.shuffle(order)
    cut = random.randint(0, len(order))
    parts = [metrics.confusion(truth[part], answer[part], 2) for part in (order[:cut], order[cut:]) if part]
    assert np.array_equal(sum(parts), metrics.confusion(truth, answer, 2))


@settings(max_examples=40, deadline=None)
@given(masks(3), masks(3), masks(3))
def test_what_is_predicted_on_ignored_pixels_changes_nothing(truth, answer, other):
    changed = np.where(truth == 255, other, answer)
    assert np.array_equal(metrics.confusion(truth, answer, 3), metrics.confusion(truth, changed, 3))


@settings(max_examples=40, deadline=None)
@given(masks(3), masks(3))
def test_classes_that_never_occur_change_no_mean(truth, answer):
    few, many = metrics.confusion(truth, answer.clip(0, 2), 3), metrics.confusion(truth, answer.clip(0, 2), 30)
    for score in (metrics.mean_iou, metrics.macro_f1, metrics.balanced_accuracy, metrics.overall_accuracy):
        assert score(few) == pytest.approx(float(score(many)), nan_ok=True)


def test_metrics_import_nothing_of_ours_and_no_torch():
    import subprocess
    import sys
    from pathlib import Path

    code = (
        "import importlib.util, sys; s = importlib.util.spec_from_file_location('m', sys.argv[1]); "
        "m = importlib.util.module_from_spec(s); s.loader.exec_module(m); "
        "assert not any(n.split('.')[0] in ('torch', 'tidemark') for n in sys.modules)"
    )
    subprocess.run([sys.executable, "-P", "-c", code, str(Path(metrics.__file__))], check=True)
