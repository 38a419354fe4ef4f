"""What a single chip adds to its unit."""

import numpy as np
from tidemark.benchmark import counting


def test_float_input_that_is_not_finite_is_not_scored():
    image = np.ones((1, 2, 2, 2), np.float32)
    image[0, 0, 0, 0], image[0, 1, 1, 1] = np.nan, np.inf
    assert counting.invalid_pixels(image, [None, None]).tolist() == [[[True, False], [False, True]]]
    image[0, 1, 0, 1] = -9999
    assert counting.invalid_pixels(image, [None, -9999]).tolist() == [[[True, True], [False, True]]]


def test_silence_is_a_miss_at_the_highest_probability():
    truth, answer = np.array([1, 0, 255], np.uint8), np.array([255, 255, 255], np.uint8)
    _, confidence = counting.probability_counts("binary-segmentation", truth, answer, np.array([40, 200, 9], np.uint8))
    assert confidence.sum() == 2 and confidence[215, 0] == confidence[200, 0] == 1


def test_calibration_of_patches_uses_the_answer_and_counts_an_abstention_as_a_miss():
    shares = np.array([51, 153, 51], np.uint8)
    for truth, answer, level, hit in ((1, 1, 153, 1), (0, 1, 153, 0), (0, 255, 153, 0), (2, 0, 51, 0)):
        counts, _ = counting.probability_counts("classification", np.array(truth), np.uint8(answer), shares)
        assert counts.sum() == counts[level, hit] == 1
    assert counting.probability_counts("classification", np.array(255), np.uint8(0), shares)[0].sum() == 0


def test_the_boundary_is_only_measured_on_binary_masks():
    chip = np.array([[0, 1], [1, 1]], np.uint8)
    assert counting.count_chip(chip, chip, 2, boundary=True).boundary.tolist() == [2, 2, 2, 2]
    assert counting.count_chip(chip, chip, 3, boundary=False).boundary.tolist() == [0, 0, 0, 0]
