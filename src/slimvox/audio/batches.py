"""Assignment of audio to batches: a pure function of the batch's number."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slimvox.audio.packing import IntArray, pack, split
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.errors import SlimvoxError

LENGTH_JITTER = 0.02
"""Share by which the lengths used for sorting are changed randomly in each epoch, so that batches differ."""
_EPOCHS_REMEMBERED = 3

# First word of each random stream, so that no two of them can coincide.
_EPOCH_STREAM, _REPLACEMENT_STREAM, _SUBSTITUTE_STREAM, _MIX_STREAM = range(4)


@dataclass(frozen=True, kw_only=True, slots=True)
class CropSpec:
    """A stretch of a clip, in samples at the plan's rate."""

    clip: int
    """Index of the clip."""
    start: int
    """First sample, from the start of the clip."""
    samples: int
    """Length."""


@dataclass(frozen=True, kw_only=True)
class _Epoch:
    """The random choices of one epoch."""

    order: IntArray
    """Parts in the order in which batches are cut from them (parts,)."""
    position: npt.NDArray[np.float64]
    """Position of each part's crop within the available room, from 0 to 1, in the same order (parts,)."""
    batches: IntArray
    """The batches in the order in which they are drawn (batches,)."""


class BatchPlan:
    """An endless sequence of batches, each determined by its number alone.

    One epoch takes every clip at least once, in batches of similar lengths whose order is random. All crops
    of a batch are cut to the same length, that of the shortest, so a batch needs no padding (models with
    group norm are not invariant to padding). A clip of several times `max_seconds` is split into that many
    equal parts, and each part gives one crop, at a random place in it. With `weights`, an epoch takes from each group
    its share of the seconds instead: the group is repeated, each time in a new order, and the next epoch continues
    where the last one stopped. Clips are ordered by length, up to a jitter drawn for each epoch; every batch takes as
    many as fit `seconds_per_batch`, fewer if their lengths differ too much (see `packing.pack`).

    A plan has no state and does not depend on processes: `batch(n)` is the same after a restart, on one machine or
    many.

    Args:
        clip_seconds: length of each clip (clips,).
        seconds_per_batch: maximum audio in a batch; with little audio, or few clips of a length, a batch holds less.
        min_seconds: minimum length of clips and crops.
        max_seconds: maximum length of crops.
        seed: random seed, 0 or more.
        sample_rate_hz: sample rate in which crops are counted.
        groups: number of each clip's group (clips,).
        weights: share of the seconds that each group gets, relative to the others; empty for what it has.

    Raises:
        SlimvoxError: if settings contradict each other, there are no clips, or a clip is below `min_seconds`.
    """

    def __init__(
        self,
        clip_seconds: npt.NDArray[np.float64] | Sequence[float],
        *,
        seconds_per_batch: float,
        min_seconds: float,
        max_seconds: float,
        seed: int = 0,
        sample_rate_hz: int = SAMPLE_RATE_HZ,
        groups: npt.NDArray[np.integer] | None = None,
        weights: Sequence[float] = (),
    ) -> None:
        seconds = np.asarray(clip_seconds, dtype=np.float64)
        _check(seconds, seconds_per_batch, min_seconds, max_seconds, seed, sample_rate_hz)
        self.seed = seed
        self.sample_rate_hz = sample_rate_hz
        self._budget = int(seconds_per_batch * sample_rate_hz + 1e-6)
        longest = int(min(max_seconds, seconds_per_batch) * sample_rate_hz + 1e-6)
        clip_samples = np.maximum(np.floor(seconds * sample_rate_hz + 1e-6), 1).astype(np.int64)
        self._part_clip, self._part_start, self._part_room = split(clip_samples, longest)
        self._part_length = np.minimum(self._part_room, longest)
        self._groups = [np.flatnonzero(groups[self._part_clip] == each) for each in range(len(weights))]  # type: ignore[index]
        self._counts = _counts([self._part_length[parts] for parts in self._groups], weights)
        self._starts = pack(np.sort(self._part_length[self._drawn(0)]), self._budget)
        self._by_room = np.argsort(self._part_room, kind="stable")
        self._sorted_room = self._part_room[self._by_room]
        self._epochs: OrderedDict[int, _Epoch] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches that together take every clip; the same in all epochs."""
        return len(self._starts) - 1

    def batch(self, index: int) -> list[CropSpec]:
        """Return the crops of batch `index` (from 0, without end); all have the same number of samples."""
        if index < 0:
            raise SlimvoxError(f"`index` must be 0 or more, but is {index} instead.")
        number, place = divmod(index, self.batches_per_epoch)
        epoch = self._epoch(number)
        chosen = int(epoch.batches[place])
        places = slice(self._starts[chosen], self._starts[chosen + 1])
        parts = epoch.order[places]
        samples = min(int(self._part_length[parts].min()), self._budget // len(parts))
        each = zip(parts.tolist(), epoch.position[places].tolist(), strict=True)
        return [self._crop(part, samples, position) for part, position in each]

    def replacement(self, index: int, slot: int, attempt: int, samples: int) -> CropSpec:
        """Draw a crop of `samples` to replace crop `slot` of batch `index`; another one for each `attempt`.

        It is drawn among all parts that are long enough, including the one to be replaced.
        """
        random = np.random.default_rng([self.seed, _REPLACEMENT_STREAM, index, slot, attempt])
        first = int(np.searchsorted(self._sorted_room, samples, side="left"))
        part = int(self._by_room[random.integers(first, len(self._by_room))])
        return self._crop(part, samples, float(random.random()))

    def substitute(self, index: int, attempt: int) -> int:
        """Draw a batch of the same epoch to replace batch `index`; another one for each `attempt`."""
        random = np.random.default_rng([self.seed, _SUBSTITUTE_STREAM, index, attempt])
        return index - index % self.batches_per_epoch + int(random.integers(self.batches_per_epoch))

    def _crop(self, part: int, samples: int, position: float) -> CropSpec:
        room = int(self._part_room[part]) - samples
        start = int(self._part_start[part]) + min(int(position * (room + 1)), room)
        return CropSpec(clip=int(self._part_clip[part]), start=start, samples=samples)

    def _epoch(self, number: int) -> _Epoch:
        with self._lock:
            if number not in self._epochs:
                self._epochs[number] = self._draw(number)
                while len(self._epochs) > _EPOCHS_REMEMBERED:
                    self._epochs.popitem(last=False)
            self._epochs.move_to_end(number)
            return self._epochs[number]

    def _draw(self, number: int) -> _Epoch:
        random = np.random.default_rng([self.seed, _EPOCH_STREAM, number])
        parts = self._drawn(number)
        keys = self._part_length[parts] * (1.0 + LENGTH_JITTER * (2.0 * random.random(len(parts)) - 1.0))
        by_length = np.argsort(keys, kind="stable")
        return _Epoch(
            order=parts[by_length],
            position=random.random(len(parts))[by_length],
            batches=random.permutation(self.batches_per_epoch),
        )

    def _drawn(self, number: int) -> IntArray:
        """The parts of an epoch: all, or from each group as many as its share requires."""
        if not self._groups:
            return np.arange(len(self._part_length))
        drawn = []
        for group, (parts, count) in enumerate(zip(self._groups, self._counts, strict=True)):
            passed, first = divmod(number * count, len(parts))
            passes = range(passed, passed - (-(first + count) // len(parts)))
            orders = [
                np.random.default_rng([self.seed, _MIX_STREAM, group, each]).permutation(parts)
                for each in passes
            ]
            drawn.append(np.concatenate(orders)[first : first + count])
        return np.concatenate(drawn)


def _counts(lengths: Sequence[IntArray], weights: Sequence[float]) -> list[int]:
    """Number of parts of each group in an epoch that is as long as all parts together."""
    total = sum(int(each.sum()) for each in lengths)
    shares = [weight / sum(weights) for weight in weights]
    return [
        max(1, round(share * total / float(each.mean()))) for share, each in zip(shares, lengths, strict=True)
    ]


def _check(
    seconds: npt.NDArray[np.float64],
    seconds_per_batch: float,
    min_seconds: float,
    max_seconds: float,
    seed: int,
    sample_rate_hz: int,
) -> None:
    """Raise one SlimvoxError that names all problems."""
    wrong: list[str] = []
    if seed < 0:
        wrong.append(f"`seed` must be 0 or more, but is {seed} instead.")
    if sample_rate_hz < 1:
        wrong.append(f"`sample_rate_hz` must be positive, but is {sample_rate_hz} instead.")
    elif not min_seconds >= 1.0 / sample_rate_hz:
        wrong.append(f"`min_seconds` must be positive, but is {min_seconds} instead.")
    if not max_seconds >= min_seconds:
        wrong.append(
            f"`max_seconds` must be at least `min_seconds` = {min_seconds}, but is {max_seconds} instead."
        )
    if not min_seconds <= seconds_per_batch < np.inf:
        wrong.append(
            f"`seconds_per_batch` must be at least `min_seconds` = {min_seconds}, "
            f"but is {seconds_per_batch} instead."
        )
    if seconds.ndim != 1 or len(seconds) == 0:
        wrong.append("`clip_seconds` must hold at least one clip, but is empty instead.")
    elif not (np.isfinite(seconds).all() and seconds.min() >= min_seconds - 1e-5):
        wrong.append(
            f"`clip_seconds` must be at least {min_seconds}, but the shortest is {seconds.min()} instead."
        )
    if wrong:
        raise SlimvoxError(" ".join(wrong))
