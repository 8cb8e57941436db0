from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from slimvox.evaluation.heads import (
    AdditiveMarginSoftmax,
    BidirectionalLSTM,
    DiarizationHead,
    MeanPoolHead,
    RecurrentCTCHead,
    SpeakerHead,
    WeightedSum,
    layer_weights,
)
from slimvox.evaluation.protocols import RecognitionProtocol, VerificationProtocol

RECOGNITION = RecognitionProtocol(
    learning_rates=(1e-3,), batch=2, steps=1, evaluations=1, projection=6, hidden=5, lstm_layers=2, stack=2
)
VERIFICATION = VerificationProtocol(
    learning_rates=(1e-3,), batch=2, steps=1, evaluations=1, projection=6, hidden=5, pooled=7, embedding=4
)


def test_the_weighted_sum_starts_as_the_plain_mean() -> None:
    features = torch.randn(2, 7, 4, 3)
    mix = WeightedSum(4)
    torch.testing.assert_close(mix(features), features.mean(2))
    assert layer_weights(mix) == [0.25] * 4


def test_averaging_before_the_head_gives_the_same_logits_as_averaging_inside() -> None:
    head = MeanPoolHead(4, 3, 8, [5, 2])
    head.mix.logits.data = torch.randn(4)
    features, lengths = torch.randn(2, 7, 4, 3), torch.tensor([7, 4])
    means = torch.stack([features[0].mean(0), features[1, :4].mean(0)]).unsqueeze(1)
    inside, before = head(features, lengths), head(means, torch.ones(2, dtype=torch.long))
    assert [logits.shape for logits in inside] == [(2, 5), (2, 2)]
    for a, b in zip(inside, before, strict=True):
        torch.testing.assert_close(a, b)


def test_padding_changes_no_head() -> None:
    features, lengths = torch.randn(1, 9, 2, 3), torch.tensor([9])
    padded = torch.cat([features, torch.randn(1, 5, 2, 3)], 1)
    speaker = SpeakerHead(2, 3, VERIFICATION).eval()
    torch.testing.assert_close(speaker(features, lengths), speaker(padded, lengths))
    diarization = DiarizationHead(2, 3, 4, 2)
    torch.testing.assert_close(diarization(features, lengths), diarization(padded, lengths)[:, :9])
    recurrent = RecurrentCTCHead(2, 3, 6, RECOGNITION).eval()
    alone, steps = recurrent(F.pad(features, (0, 0, 0, 0, 0, 1)), lengths)
    beside, _ = recurrent(torch.cat([features, torch.zeros(1, 5, 2, 3)], 1), lengths)
    assert steps.tolist() == [5]
    torch.testing.assert_close(alone, beside[:, :5])


def test_spec_augment_masks_in_training_only() -> None:
    head = RecurrentCTCHead(2, 10, 6, RECOGNITION)
    x = torch.ones(4, 40, 10)
    masked = head._masked(x)
    assert 0 < (masked == 0).float().mean() < 0.9
    head.eval()
    features, lengths = torch.randn(4, 40, 2, 10), torch.full((4,), 40)
    torch.testing.assert_close(head(features, lengths)[0], head(features, lengths)[0])


def test_additive_margin_softmax_by_hand() -> None:
    loss = AdditiveMarginSoftmax(2, 2, scale=3.0, margin=0.4)
    loss.weight.data = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    # Cosines 0.6 and 0.8; the right one, the first, becomes 0.2.
    expected = -math.log(math.exp(0.6) / (math.exp(0.6) + math.exp(2.4)))
    torch.testing.assert_close(loss(torch.tensor([[3.0, 4.0]]), torch.tensor([0])), torch.tensor(expected))


@pytest.mark.parametrize("layers", [1, 2])
def test_both_directions_end_where_each_sequence_ends(layers: int) -> None:
    """The same as torch's LSTM on packed sequences, forwards and backwards."""
    torch.manual_seed(1)
    packed = nn.LSTM(4, 3, num_layers=layers, bidirectional=True, batch_first=True)
    torch.manual_seed(1)
    padded = BidirectionalLSTM(4, 3, layers=layers, dropout=0.5).eval()
    lengths = torch.tensor([5, 7, 1])
    found = []
    for name in ("packed", "padded"):
        x = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        if name == "packed":
            sequences = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            states, _ = nn.utils.rnn.pad_packed_sequence(packed(sequences)[0], batch_first=True)
        else:
            states = padded(x, lengths)
        (states * torch.arange(states.numel()).view_as(states).sin()).sum().backward()
        found.append((states.detach(), x.grad))
    torch.testing.assert_close(found[1], found[0])
