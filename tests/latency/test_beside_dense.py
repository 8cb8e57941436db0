"""Encoders that are timed beside the dense one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from slimvox.measure.latency.beside_dense import BESIDE_DENSE, groups_beside_dense, times_beside_dense


def test_the_dense_encoder_is_timed_before_every_few_others_and_ratios_are_taken_beside_it() -> None:
    """The machine becomes slower with every session, and is disturbed in one round of each."""
    true_times = {name: float(number) for number, name in enumerate("abcdefg", 1)}
    sessions_seen: list[list[str]] = []

    def sessions() -> Iterator[dict[str, float]]:
        for names in ("abcdef", "g"):
            # A session is asked for when the one before is over.
            assert len(sessions_seen) == (names == "g")
            yield {name: true_times[name] for name in names}

    def clock(in_turns: Mapping[str, float]) -> dict[str, list[float]]:
        sessions_seen.append(list(in_turns))
        slowness = [1.0, 9.0, 1.0] if len(sessions_seen) == 1 else [3.0, 3.0, 1.0]
        return {name: [each * seconds for each in slowness] for name, seconds in in_turns.items()}

    found = times_beside_dense(10.0, sessions(), clock)
    assert sessions_seen == [["dense 0", *"abcd", "dense 1", *"ef"], ["dense 0", "g"]]
    assert found.dense == 10.0  # the median of 10, 90, 10, twice, and of 30, 30, 10
    assert found.others == true_times


def test_groups_keep_the_order_and_the_last_may_be_smaller() -> None:
    items = list(range(2 * BESIDE_DENSE + 1))
    groups = list(groups_beside_dense(items))
    assert [len(group) for group in groups] == [BESIDE_DENSE, BESIDE_DENSE, 1]
    assert [item for group in groups for item in group] == items
    assert not list(groups_beside_dense([]))
