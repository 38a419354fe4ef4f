"""AlexNet shrunk for small patches: the classifier of the ExtremeEarth sea-ice work."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import ConfigError, InputError
from .registry import ModelSpec, register
from .segmentation import pad_to_multiple


@register("patch-cnn", label="patch CNN", tasks=("classification",))
class PatchCNN(nn.Module):
    """Five 3 × 3 convolutions, three poolings, two hidden layers.

    As published (width 64, hidden 4096), except that the features are pooled adaptively to 3 × 3 in front of the
    classifier, whose 256 · 3 · 3 inputs no 64 × 64 patch gives.

    Args:
        spec: channels of ``image`` and number of classes.
        width: channels of the first convolution; the others have 3, 6, 4 and 4 times as many.
        hidden: units of the two hidden layers.
        dropout: share of units that are dropped in training, in front of each hidden layer.
    """

    def __init__(self, spec: ModelSpec, width: int = 64, hidden: int = 4096, dropout: float = 0.5) -> None:
        super().__init__()
        if width < 1 or hidden < 1 or not 0 <= dropout < 1:
            raise ConfigError(f"patch-cnn: width {width}, hidden {hidden}, dropout {dropout} make no network")
        self.in_channels = spec.in_channels["image"]
        w = width
        self.features = nn.Sequential(
            nn.Conv2d(self.in_channels, w, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(w, 3 * w, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(3 * w, 6 * w, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(6 * w, 4 * w, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4 * w, 4 * w, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(3),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(4 * w * 3 * 3, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, spec.out_channels),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Float (B,C,H,W) of any size to logits (B,K)."""
        if image.shape[1] != self.in_channels:
            raise InputError(f"patch-cnn was made for {self.in_channels} channels, the image has {image.shape[1]}")
        return self.classifier(self.features(pad_to_multiple(image, 16)).flatten(1))
