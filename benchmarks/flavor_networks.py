"""Modules of PyTorch as an author writes them; logged with pickled models as their code."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class ConvNet(nn.Module):  # type: ignore[misc,unused-ignore]
    """Images to classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(8 * 16, 10))

    def forward(self, image: Any) -> Any:
        """Scores of ten classes."""
        return self.head(self.pool(self.features(image)).flatten(1))


class Encoder(nn.Module):  # type: ignore[misc,unused-ignore]
    """A transformer over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, ids: Any) -> Any:
        """Probabilities of four classes for each token."""
        return torch.softmax(self.head(self.layers(self.table(ids))), dim=-1)


class Recurrent(nn.Module):  # type: ignore[misc,unused-ignore]
    """Two layers over a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, num_layers=2, batch_first=True)

    def forward(self, sequence: Any) -> Any:
        """What the upper layer says at each step."""
        return self.lstm(sequence)[0]


def perceptron() -> Any:
    """Rows to three scores."""
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def forgetful() -> Any:
    """The same with dropout, which answers at random while it is trained."""
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
