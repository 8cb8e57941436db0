"""Steps of a stage, and their positions in the schedule of the recipe if a run has no time for all of it."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Timeline:
    """Position of each step of a stage in the recipe's schedule.

    Positions count steps of the recipe. They are the steps themselves until the stage is shortened; from then on each
    step covers more than one of the recipe's, so that the stage ends at the same position in fewer steps. Learning
    rate, target sparsity and teacher forcing are functions of the position: they continue from where they are, only
    faster.
    """

    length: int
    """Number of steps of the recipe."""
    turns: tuple[tuple[int, int], ...] = ()
    """(Number of steps done, number of steps of the whole stage) of each time the stage was given another end."""

    @property
    def steps(self) -> int:
        """Number of steps of the stage."""
        return self.turns[-1][1] if self.turns else self.length

    def position(self, step: int) -> float:
        """Position after a number of steps; equal to it if the stage was not shortened."""
        start, place, steps = 0, 0.0, self.length
        for at, following in self.turns:
            if step < at:
                break
            place += (at - start) * (self.length - place) / max(1, steps - start)
            start, steps = at, following
        if start == 0 and steps == self.length:
            return step
        if step >= steps:
            return self.length
        return place + (step - start) * (self.length - place) / (steps - start)

    def step_at(self, position: float) -> int:
        """The first number of steps whose position is at least the given one."""
        return next((step for step in range(self.steps) if self.position(step) >= position), self.steps)

    def turned(self, step: int, steps: int) -> Timeline:
        """The same timeline up to a step, with `steps` steps in all; earlier decisions for later steps are dropped.

        Raises:
            ValueError: if fewer steps are requested than are done, or more than the recipe has left.
        """
        earlier = replace(self, turns=tuple(each for each in self.turns if each[0] < step))
        most = step + self.length - earlier.position(step)
        if not step < steps < most + 1:
            raise ValueError(f"`steps` must be above {step} and at most {most:g}, but is {steps} instead")
        return replace(earlier, turns=(*earlier.turns, (step, steps)))
