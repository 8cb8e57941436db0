"""The training loop of one stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from slimvox.audio import AudioBatch
from slimvox.encoder import SpeechEncoder
from slimvox.pruning.budget import SparsitySchedule
from slimvox.pruning.gates.gates import gate_histograms
from slimvox.pruning.interrupts import RunInterrupted, StopRequests
from slimvox.pruning.micro_batches import (
    Division,
    MicroBatches,
    ran_out_of_memory,
    release_memory,
    trim_heap,
)
from slimvox.pruning.optimisers import OF_WEIGHTS, WEIGHTS, Snapshot, build_optimisers, schedule_rates
from slimvox.pruning.processes import Processes
from slimvox.pruning.progress import JsonLog, StageProgress
from slimvox.pruning.settings import GateSettings, StageSettings
from slimvox.pruning.student import StepNoise, Student
from slimvox.pruning.timeline import Timeline
from slimvox.pruning.update import Skips, clip_gradients, step_controls
from slimvox.util.devices import read_scalars
from slimvox.util.errors import SlimvoxError

NOISE_STREAM = 0x51_1A
"""Stream number that separates the gates' noise from other uses of the run's seed."""
GATE_HISTOGRAMS = 50
"""Approximate number of times that stage 1 logs the distribution of its gates."""


@dataclass
class Stage:
    """One stage of training; everything that changes during it is in the student and the optimisers.

    Randomness is a function of the seed and the step (gate noise here, batches in `slimvox.audio.BatchPlan`), so that a
    checkpoint needs only student, optimisers and a step number.
    """

    name: str
    """`prune` or `finish`."""
    student: Student
    teacher: SpeechEncoder
    settings: StageSettings
    gate_settings: GateSettings
    schedule: SparsitySchedule | None
    """Sparsity schedule t (stage 1)."""
    seed: int
    accelerator: Accelerator
    title: str = ""
    """Name shown by trackers; `name` if not given."""
    micro_batches: MicroBatches = field(default_factory=lambda: MicroBatches(Division(seconds=math.inf)))
    """Division of a step's audio into micro-batches; by default a single pass in each process."""
    timeline: Timeline | None = None
    """Positions of the steps in the schedule of `settings`; by default, each step is one of the schedule."""
    step: int = 0
    """Number of finished steps."""

    def __post_init__(self) -> None:
        self.title = self.title or self.name
        self.processes = Processes(self.accelerator)
        self._timeline = self.timeline or Timeline(self.settings.steps)
        self.optimisers = build_optimisers(
            self.student,
            self.settings,
            self.gate_settings,
            # bfloat16 if the run uses it; where bfloat16 is slow, the run uses float32.
            matrix_dtype=torch.bfloat16 if self.accelerator.mixed_precision == "bf16" else torch.float32,
        )
        self._skipped, self._skips = False, Skips()
        if self.scaler is not None:
            # Each stage starts from the same scale, also where an earlier one ran in another process.
            self.accelerator.scaler = torch.amp.GradScaler(self.accelerator.device.type)

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """Scale of the loss in fp16, chosen so that gradients neither vanish nor overflow; None otherwise."""
        return self.accelerator.scaler  # type: ignore[no-any-return]

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed stage needs."""
        scaler = {} if self.scaler is None else {"scaler": self.scaler.state_dict()}
        return {
            "stage": self.name,
            "step": self.step,
            "student": self.student.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            **scaler,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        self.step = state["step"]
        self.student.load_state_dict(state["student"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])

    def run(
        self,
        batches: Iterator[AudioBatch],
        *,
        progress: StageProgress,
        log: JsonLog,
        stop: StopRequests,
        save: Callable[[dict[str, Any]], None],
        save_every_seconds: float,
        log_every: int,
        after_step: Callable[[float, float], None] | None = None,
        report: Callable[[Mapping[str, float]], None] | None = None,
        look: Callable[[int, Timeline], Timeline | None] | None = None,
    ) -> None:
        """Train from the current step to the end.

        A step whose gradient is not finite changes nothing and is not logged. If any process is asked to stop, all of
        them save and stop after the same step.

        Args:
            batches: batches from the current step of this stage onwards.
            progress: receives every step.
            log: receives every `log_every`-th step.
            stop: called after every step; true to stop.
            save: writes a checkpoint; called in all processes.
            save_every_seconds: time between checkpoints.
            log_every: number of steps between log lines.
            after_step: called with the positions in the schedule before and after each step, before a checkpoint of it
                is written.
            report: called with the values of every step, in all processes.
            look: called with the number of steps done and the timeline, in all processes; may return another timeline.

        Raises:
            RunInterrupted: on Ctrl-C, after a checkpoint.
            SlimvoxError: if the gradients of many steps in a row, or of all, are not finite.
        """
        saved = time.monotonic()
        histogram_every = log_every * max(1, self.steps // (GATE_HISTOGRAMS * log_every))
        while self.step < self.steps:
            values, seconds = self._train_step(batches)
            self.step += 1
            # The clock of the main process decides, and a signal to any process.
            is_time = self.processes.main and time.monotonic() - saved > save_every_seconds
            *means, stopping, saving = self.processes.mean([*values.values(), stop.requested, is_time])
            values = dict(zip(values, means, strict=True))
            progress.advance(self.step, seconds, values)
            due = self.step % log_every == 0 or self.step == self.steps
            if due and not self._skipped:
                record: dict[str, object] = {"stage": self.name, "step": self.step, **values}
                if self.student.gates is not None and (
                    self.step % histogram_every == 0 or self.step in (1, self.steps)
                ):
                    record["gates"] = gate_histograms(self.student.gates)
                log.write({**record, "audio_seconds_per_second": round(progress.audio_rate, 2)})
                if self.accelerator.trackers:
                    self.accelerator.log({f"{self.title}/{k}": v for k, v in values.items()}, step=self.step)
            if after_step is not None:
                after_step(self._timeline.position(self.step - 1), self._timeline.position(self.step))
            if report is not None:
                report(values)
            if look is not None and (timeline := look(self.step, self._timeline)) is not None:
                self._timeline = timeline
                progress.resize(self.steps)
                log_every = max(1, min(log_every, self.steps // 1000))
                histogram_every = log_every * max(1, self.steps // (GATE_HISTOGRAMS * log_every))
            if stopping or saving:
                save(self.state_dict())
                saved = time.monotonic()
            if stopping:
                raise RunInterrupted(
                    f"stopped after step {self.step} of stage {self.title}, with its state saved; the same call"
                    " resumes from there"
                )
        if self._skipped and not self.optimisers[WEIGHTS].state:
            raise SlimvoxError(
                f"no step of stage {self.title} had a finite gradient, so that nothing was trained; start again with a"
                f" lower learning rate, such as `--set {self._slower}`, with more steps, or with `--precision float32`"
            )

    def _train_step(self, batches: Iterator[AudioBatch]) -> tuple[dict[str, float], float]:
        """One optimiser step; returns the values to log, and the seconds of audio of all processes."""
        batch: AudioBatch | None = None

        def load() -> tuple[tuple[int, ...], float]:
            nonlocal batch
            batch = next(batches)
            return batch.slots, batch.seconds

        shares = self.processes.gather(load)
        assert batch is not None
        present = [slot for slots, _ in shares for slot in slots]
        noise = self._noise(batch, present)
        most = max(len(slots) for slots, _ in shares)
        while (losses := self._backward(batch, noise, len(present))) is None:
            self.micro_batches.shrink(most, batch.waveforms.shape[1])
        return self._update(losses), sum(seconds for _, seconds in shares)

    def rehearse(self, waveforms: torch.Tensor, recompute: bool) -> None:
        """Add the gradients of some waveforms (clips, samples) in one pass, without a step; for measuring."""
        clips = range(len(waveforms))
        batch = AudioBatch(waveforms=waveforms, seconds=0.0, step=0, slots=tuple(clips), planned=len(clips))
        before = self.micro_batches
        self.micro_batches = MicroBatches(Division(seconds=math.inf, recompute=recompute))
        try:
            self._accumulate(batch, self._noise(batch, clips), len(clips))
        finally:
            self.micro_batches = before

    def forget_gradients(self) -> None:
        """Remove all gradients."""
        for parameter in self.student.parameters():
            parameter.grad = None

    def _noise(self, batch: AudioBatch, present: Sequence[int]) -> StepNoise:
        """Random numbers of this step, the same in all processes."""
        stream = (NOISE_STREAM, self.seed, self.step, 0)
        seed = int(np.random.SeedSequence(stream).generate_state(1, np.uint64)[0]) >> 1
        frames = self.teacher.anatomy.frames(batch.waveforms.shape[1])
        return self.student.draw_noise(batch.planned, frames, torch.Generator().manual_seed(seed), present)

    def _backward(self, batch: AudioBatch, noise: StepNoise, clips: int) -> dict[str, torch.Tensor] | None:
        """Compute the gradients of the step in all processes; return its losses, or None if memory ran out in one.

        Gradients are exchanged once, after all processes have reported that their micro-batches succeeded. While they
        are computed no process waits for another, so that any number of micro-batches, running out of memory and errors
        are handled separately in each process.

        Args:
            batch: clips of this process.
            noise: noise of the step.
            clips: number of clips of all processes.
        """
        losses: dict[str, torch.Tensor] = {}

        def compute() -> tuple[tuple[str, ...], tuple[bool, ...]] | None:
            try:
                losses.update(self._accumulate(batch, noise, clips))
            except Exception as error:
                if not ran_out_of_memory(error):
                    raise
                return None
            return tuple(losses), tuple(each.grad is not None for each in self.student.parameters())

        results = self.processes.gather(compute)
        finished = [each for each in results if each is not None]
        if len(finished) < len(results):
            self.forget_gradients()
            losses.clear()
            release_memory()
            return None
        if self.processes.count > 1:
            used = [any(flags) for flags in zip(*(each[1] for each in finished), strict=True)]
            for parameter, is_used in zip(self.student.parameters(), used, strict=True):
                if is_used:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    self.processes.add(parameter.grad)
        names = max((each[0] for each in finished), key=len)
        return {name: losses.get(name, torch.zeros((), device=self.accelerator.device)) for name in names}

    def _accumulate(self, batch: AudioBatch, noise: StepNoise, clips: int) -> dict[str, torch.Tensor]:
        """Add the gradients of this process's clips up; returns its part of the losses, times the number of processes,
        so that their mean over processes is the loss of the step.
        """
        device, division = self.accelerator.device, self.micro_batches.division
        sums: dict[str, torch.Tensor] = {}
        parts = division.parts(*batch.waveforms.shape)
        for part in parts:
            if len(parts) > 1 and device.type == "cpu":
                trim_heap()  # gradients are scattered between freed activations, which leaves holes that a heap keeps
            waveforms = batch.waveforms[part].to(device, non_blocking=True)
            share = len(waveforms) / clips
            with torch.no_grad(), self.accelerator.autocast():
                teacher_states = self.teacher(waveforms)
            with self.accelerator.autocast():
                losses: dict[str, torch.Tensor] = self.student(
                    waveforms,
                    teacher_states,
                    noise=noise.part(batch.slots[part], device),
                    target_sparsity=self._current_target_sparsity,
                    forced=self.settings.forced(self._timeline.position(self.step)),
                    recompute=division.recompute,
                )
            self.accelerator.backward(losses["loss"] * share)
            for name, loss in losses.items():
                weighted = loss.detach() * (share * self.processes.count)
                sums[name] = sums[name] + weighted if name in sums else weighted
            del teacher_states, losses
        return sums

    def _update(self, losses: dict[str, torch.Tensor]) -> dict[str, float]:
        """Step all optimisers with the present gradients; returns the values to log.

        The host waits for the device once. Gates and multipliers step before that, so that their new values are among
        those that it reads; if the gradient turns out not to be finite they are restored.
        """
        before, after = (self._timeline.position(step) for step in (self.step, self.step + 1))
        rate = self.settings.learning_rate * schedule_rates(self.optimisers, before, self.settings, after)
        scale = None if self.scaler is None else self.scaler.scale(torch.ones_like(losses["loss"]))
        norm, finite = self._clip()
        figures = {**losses, "gradient_norm": norm, "finite": finite}
        if scale is not None:
            figures["loss_scale"] = scale
        controls = [optimiser for name, optimiser in self.optimisers.items() if name not in OF_WEIGHTS]
        snapshot = Snapshot(controls)
        figures.update(step_controls(self.student, controls, self._current_target_sparsity))
        values = read_scalars(figures)
        where = f"step {self.step + 1} of stage {self.name}"
        self._skipped = not values.pop("finite")
        self._skips.count(self._skipped, where, self._slower, values.get("loss_scale", 0.0))
        values.update(learning_rate=rate)
        if self.student.gates is not None:
            values.update(target_sparsity=self._current_target_sparsity)
        if math.isnan(values.get("lambda1", 0.0)):
            del values["lambda1"]  # no multiplier brings the gates to the target
        if self._skipped:
            snapshot.restore()
        for name, optimiser in self.optimisers.items():
            if name in OF_WEIGHTS and not self._skipped:
                optimiser.step()
            optimiser.zero_grad()
        if self.scaler is not None:
            self.scaler.update()
        return values

    @property
    def _slower(self) -> str:
        """Setting of a recipe with a lower learning rate, for error messages."""
        return f"{self.name}.learning_rate={self.settings.learning_rate / 4:.1e}"

    @property
    def steps(self) -> int:
        """Number of steps of the stage."""
        return self._timeline.steps

    @property
    def last_target_sparsity(self) -> float:
        """Target sparsity t of the last finished step; of the first one if none is finished."""
        return self._target_after(max(1, self.step))

    @property
    def _current_target_sparsity(self) -> float:
        """Target sparsity t of the step that is being computed, the one after the last finished one."""
        return self._target_after(self.step + 1)

    def _target_after(self, step: int) -> float:
        return 0.0 if self.schedule is None else self.schedule.target(self._timeline.position(step))

    def _clip(self) -> tuple[torch.Tensor, torch.Tensor]:
        """See `clip_gradients`."""
        return clip_gradients(self.student, self.optimisers, self.settings.gradient_clip, self.scaler)
