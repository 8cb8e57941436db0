"""The downstream models: each sees a learned, softmax-weighted sum of all hidden states.

Shapes: B = batch, T = frames, L = hidden states, D = their width, C = classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.evaluation.protocols import RecognitionProtocol, VerificationProtocol

TDNN_LAYERS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))
"""Context and dilation of the x-vector's layers."""


class WeightedSum(nn.Module):
    """Features (B, T, L, D) to (B, T, D); the weights start equal."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(layers))

    def forward(self, features: Tensor) -> Tensor:
        """Mix the layers; this is fast if each layer's features are contiguous in memory."""
        examples, frames, layers, width = features.shape
        by_layer = features.permute(2, 0, 1, 3).reshape(layers, -1)
        with torch.autocast(features.device.type, enabled=False):
            return torch.mv(by_layer.t(), self.logits.softmax(0)).view(examples, frames, width)


class MeanPoolHead(nn.Module):
    """Linear, mean over time, one linear map per label: features (B, T, L, D) to (B, C) per label.

    There is no non-linearity, so the mean may also be taken before: features averaged over time (B, 1, L, D) give
    the same logits.
    """

    def __init__(self, layers: int, width: int, projection: int, classes: list[int]) -> None:
        super().__init__()
        self.mix = WeightedSum(layers)
        self.projection = nn.Linear(width, projection)
        self.outputs = nn.ModuleList(nn.Linear(projection, count) for count in classes)

    def forward(self, features: Tensor, lengths: Tensor) -> list[Tensor]:
        """Outputs of the head; `lengths` (B,) are the numbers of frames that count."""
        pooled = masked_mean(self.projection(self.mix(features)), lengths)
        return [output(pooled) for output in self.outputs]


class LinearCTCHead(nn.Module):
    """PR: two linear maps, features (B, T, L, D) to logits (B, T, C); class 0 is CTC's blank."""

    def __init__(self, layers: int, width: int, projection: int, classes: int, *, blank_bias: float) -> None:
        super().__init__()
        self.mix = WeightedSum(layers)
        self.projection = nn.Linear(width, projection)
        self.output = nn.Linear(projection, classes)
        _bias_blank(self.output, blank_bias)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and their lengths (B,)."""
        return self.output(self.projection(self.mix(features))), lengths


class BidirectionalLSTM(nn.Module):
    """`nn.LSTM(bidirectional=True)` for padded sequences: (B, T, D) to (B, T, 2 x hidden), 0 after the end of each.

    The backward direction reads each sequence turned round within its length. Packed sequences would give the same, but
    on a CPU their gradient takes time quadratic in T.
    """

    def __init__(self, width: int, hidden: int, *, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.directions = nn.ModuleList(
            nn.LSTM(width if layer == 0 else 2 * hidden, hidden, batch_first=True)
            for layer in range(layers)
            for _ in range(2)
        )

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """States of the last layer; `lengths` (B,) are the numbers of frames that count."""
        frame = torch.arange(x.shape[1], device=x.device)
        counts = frame < lengths[:, None]
        turned = torch.where(counts, lengths[:, None] - 1 - frame, frame)[..., None]

        def turn(sequences: Tensor) -> Tensor:
            return sequences.gather(1, turned.expand_as(sequences))

        for index in range(0, len(self.directions), 2):
            if index:
                x = F.dropout(x, self.dropout, self.training)
            forward, backward = self.directions[index : index + 2]
            x = torch.cat([forward(x)[0], turn(backward(turn(x))[0])], -1)
        return x * counts[..., None]


class RecurrentCTCHead(nn.Module):
    """ASR, SF: linear, BLSTM, linear; features (B, T, L, D) to logits (B, T / stack, C); class 0 is CTC's blank."""

    def __init__(self, layers: int, width: int, classes: int, protocol: RecognitionProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.mix = WeightedSum(layers)
        self.projection = nn.Linear(width * protocol.stack, protocol.projection)
        self.blstm = BidirectionalLSTM(
            protocol.projection, protocol.hidden, layers=protocol.lstm_layers, dropout=protocol.dropout
        )
        self.dropout = nn.Dropout(protocol.dropout)
        self.output = nn.Linear(2 * protocol.hidden, classes)
        _bias_blank(self.output, protocol.blank_bias)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and their lengths (B,)."""
        x = self.mix(features)
        if self.training:
            x = self._masked(x)
        stack = self.protocol.stack
        if stack > 1:
            x = F.pad(x, (0, 0, 0, -x.shape[1] % stack))
            x = x.reshape(len(x), -1, stack * x.shape[2])
            lengths = (lengths + stack - 1) // stack
        states = self.blstm(self.projection(x), lengths)
        return self.output(self.dropout(states)), lengths

    def _masked(self, x: Tensor) -> Tensor:
        """SpecAugment: stretches of frames and of dimensions set to zero, drawn per example."""
        keep = torch.ones(x.shape, device=x.device)
        longest = min(self.protocol.time_mask_frames, x.shape[1] // 4)
        widest = int(self.protocol.width_mask_share * x.shape[2])
        for row in keep:
            for _ in range(self.protocol.time_masks if longest else 0):
                length = _draw(longest + 1)
                start = _draw(x.shape[1] - length + 1)
                row[start : start + length] = 0
            for _ in range(self.protocol.width_masks if widest else 0):
                length = _draw(widest + 1)
                start = _draw(x.shape[2] - length + 1)
                row[:, start : start + length] = 0
        return x * keep


class SpeakerHead(nn.Module):
    """ASV: an x-vector network, features (B, T, L, D) to embeddings (B, E)."""

    def __init__(self, layers: int, width: int, protocol: VerificationProtocol) -> None:
        super().__init__()
        self.mix = WeightedSum(layers)
        self.projection = nn.Linear(width, protocol.projection)
        channels = [protocol.projection, *[protocol.hidden] * 4, protocol.pooled]
        self.tdnn = nn.ModuleList(
            nn.Conv1d(
                channels[i], channels[i + 1], kernel, dilation=dilation, padding=dilation * (kernel // 2)
            )
            for i, (kernel, dilation) in enumerate(TDNN_LAYERS)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(count) for count in channels[1:])
        self.embedding = nn.Sequential(
            nn.Linear(2 * protocol.pooled, protocol.embedding),
            nn.ReLU(),
            nn.Linear(protocol.embedding, protocol.embedding),
        )

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Outputs of the head; `lengths` (B,) are the numbers of frames that count."""
        inside = (torch.arange(features.shape[1], device=lengths.device) < lengths.unsqueeze(1)).unsqueeze(1)
        x = self.projection(self.mix(features)).transpose(1, 2)
        for convolution, norm in zip(self.tdnn, self.norms, strict=True):
            x = norm(F.relu(convolution(x * inside)))
        x = x.transpose(1, 2)
        mean = masked_mean(x, lengths)
        variance = masked_mean((x.float() - mean.unsqueeze(1)).square(), lengths)
        embedding: Tensor = self.embedding(torch.cat([mean, (variance + 1e-7).sqrt()], -1))
        return embedding


class DiarizationHead(nn.Module):
    """SD: a one-way LSTM and a linear map, features (B, T, L, D) to logits (B, T, speakers)."""

    def __init__(self, layers: int, width: int, hidden: int, speakers: int) -> None:
        super().__init__()
        self.mix = WeightedSum(layers)
        self.lstm = nn.LSTM(width, hidden, batch_first=True)
        self.output = nn.Linear(hidden, speakers)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits; padding has no effect on them, since it comes last and the LSTM reads forwards only."""
        logits: Tensor = self.output(self.lstm(self.mix(features))[0])
        return logits


class AdditiveMarginSoftmax(nn.Module):
    """Cross-entropy over scaled cosines, the right one lowered by a margin (Wang et al. 2018, equation 6)."""

    def __init__(self, embedding: int, classes: int, *, scale: float, margin: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, embedding))
        nn.init.xavier_normal_(self.weight)
        self.scale = scale
        self.margin = margin

    def forward(self, embeddings: Tensor, classes: Tensor) -> Tensor:
        """Mean loss of embeddings (B, E) with classes (B,)."""
        cosines = F.normalize(embeddings, dim=-1) @ F.normalize(self.weight, dim=-1).T
        lowered = cosines - self.margin * F.one_hot(classes, cosines.shape[-1])
        return F.cross_entropy(self.scale * lowered, classes)


def layer_weights(head: nn.Module) -> list[float]:
    """The share of each hidden state in a head's weighted sum."""
    for module in head.modules():
        if isinstance(module, WeightedSum):
            return [round(value, 4) for value in module.logits.softmax(0).tolist()]
    raise ValueError(f"`head` must hold a weighted sum, but is {type(head).__name__} instead")


def masked_mean(x: Tensor, lengths: Tensor) -> Tensor:
    """Mean of (B, T, D) over each row's first `lengths` frames: (B, D)."""
    inside = torch.arange(x.shape[1], device=lengths.device) < lengths.unsqueeze(1)
    return (x.float() * inside.unsqueeze(-1)).sum(1) / lengths.unsqueeze(-1)


def _draw(end: int) -> int:
    """A random integer from 0 to `end` - 1, from the random state of the CPU."""
    return int(torch.randint(end, (), device="cpu"))


def _bias_blank(output: nn.Linear, bias: float) -> None:
    if bias:
        with torch.no_grad():
            output.bias[0] = bias
