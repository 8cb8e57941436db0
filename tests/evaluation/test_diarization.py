from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F

from slimvox.evaluation.examples import Turn
from slimvox.evaluation.tasks.sd import activity, permutation_invariant_loss

TURNS = (
    Turn(speaker="x", start_seconds=0.0, end_seconds=0.1),
    Turn(speaker="y", start_seconds=0.06, end_seconds=0.2),
    Turn(speaker="x", start_seconds=0.16, end_seconds=9.0),
)


def test_turns_become_frames_at_the_rate_of_the_encoder() -> None:
    at_50 = activity(TURNS, 10, 50.0, 2)
    assert at_50.T.astype(int).tolist() == [[1, 1, 1, 1, 1, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]]
    at_100 = activity(TURNS, 20, 100.0, 2)
    assert (at_100[::2] == at_50).all()


def test_the_order_of_the_speakers_does_not_matter() -> None:
    logits = torch.randn(2, 6, 2)
    targets = [torch.randint(2, (6, 2)).float(), torch.randint(2, (4, 2)).float()]
    lengths = torch.tensor([6, 4])
    loss = permutation_invariant_loss(logits, targets, lengths)
    torch.testing.assert_close(loss, permutation_invariant_loss(logits.flip(-1), targets, lengths))
    by_hand = [
        min(
            float(F.binary_cross_entropy_with_logits(logits[0], targets[0])),
            float(F.binary_cross_entropy_with_logits(logits[0], targets[0].flip(-1))),
        ),
        min(
            float(F.binary_cross_entropy_with_logits(logits[1, :4], targets[1])),
            float(F.binary_cross_entropy_with_logits(logits[1, :4], targets[1].flip(-1))),
        ),
    ]
    torch.testing.assert_close(loss, torch.tensor(by_hand).mean())


def test_the_best_of_many_orders_is_found() -> None:
    logits, target = torch.randn(1, 30, 5), torch.randint(2, (30, 5)).float()
    losses = [
        F.binary_cross_entropy_with_logits(logits[0], target[:, list(order)])
        for order in itertools.permutations(range(5))
    ]
    found = permutation_invariant_loss(logits, [target], torch.tensor([30]))
    torch.testing.assert_close(found, torch.stack(losses).min())


def test_the_loss_of_a_head_that_has_diverged_is_not_a_number() -> None:
    loss = permutation_invariant_loss(torch.full((1, 5, 2), torch.nan), [torch.ones(5, 2)], torch.tensor([5]))
    assert loss.isnan()
