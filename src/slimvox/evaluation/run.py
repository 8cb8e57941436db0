"""The command `slimvox evaluate` as a function."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from slimvox.checkpoint import Model, encoder_of, name_of
from slimvox.checkpoint.resolve import at_revision
from slimvox.evaluation import suite as suites
from slimvox.evaluation.against import Difference, differences
from slimvox.evaluation.feature_cache import DEFAULT_MAX_BYTES
from slimvox.evaluation.forecast import TaskForecast, forecast
from slimvox.evaluation.protocols import SuiteName
from slimvox.evaluation.result_table import fixed_rows, mini_estimate, overall
from slimvox.evaluation.results import TaskResult, read_results
from slimvox.evaluation.suite import EvaluationPlan
from slimvox.evaluation.upstreams import EncoderUpstream, Precision, Upstream, load_upstream
from slimvox.util.devices import Device
from slimvox.util.environment import hub_token
from slimvox.util.validation import Count, Range, Threads, checked_arguments


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Results of an encoder on several tasks."""

    results: tuple[TaskResult, ...]
    """Results, one per task, in the order in which the tasks ran."""
    overall: Mapping[str, float]
    """Scores over all tasks, by name; empty unless every task of the suite ran on its own data."""
    half_widths: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Half of the 95 % confidence interval of scores in `overall`."""
    against: str | None = None
    """Name of the model that this one is compared with."""
    differences: tuple[Difference, ...] = ()
    """Differences from that model, by metric, and of the points over all tasks if there are some."""
    plan: tuple[TaskForecast, ...] = ()
    """Forecast for each task, if only the plan was requested."""

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON types."""
        if self.plan:
            return {"plan": [{**dataclasses.asdict(each), "hours": each.hours} for each in self.plan]}
        return {
            "results": [dataclasses.asdict(result) for result in self.results],
            "overall": dict(self.overall),
            "half_widths": dict(self.half_widths),
            "against": self.against,
            "differences": [each.to_dict() for each in self.differences],
        }


@checked_arguments
def evaluate(
    model: Model,
    data: str | Path,
    *,
    suite: SuiteName = "mini",
    tasks: Sequence[str] = (),
    manifests: Mapping[str, str | Path | Sequence[str | Path]] | None = None,
    seeds: Count | None = None,
    overrides: Sequence[str] = (),
    against: Model | None = None,
    out: str | Path | None = None,
    cache: str | Path = "auto",
    cache_gib: Annotated[float, Range(above=0, at_most=1e9)] = DEFAULT_MAX_BYTES / 2**30,
    device: Device = "auto",
    precision: Precision = "float32",
    workers: Threads | None = None,
    plan: bool = False,
    revision: str | None = None,
    token: str | None = None,
    on_progress: Callable[[str], None] = lambda message: None,
) -> Evaluation:
    """Score a frozen encoder on SUPERB's ten tasks, or on mini-SUPERB, the same tasks on small sets.

    Features are computed once and cached. For each task a head is trained on them, with the learning rate that scores
    best on dev. The same call with `out` continues where an earlier one stopped.

    Args:
        model: encoder: `embedded`, a directory, a model id on the Hugging Face hub, a file written by `slimvox export`,
            `fbank` (log-mel baseline), or random:MODEL (random weights). In Python also an encoder or a model of
            `transformers`.
        data: data folder; docs/evaluation.md describes its layout.
        suite: data and protocol: mini (small sets, short training) or official. Scores of the two are not comparable.
        tasks: names of the tasks to run (see docs/evaluation.md); by default, all that the suite has data for or, with
            `manifests`, those that have a table.
        manifests: tables with your own data, such as ks=commands.tsv; several tables of one task are its folds. In
            Python a mapping from tasks to their table or tables.
        seeds: number of heads trained at the best learning rate; by default 3 in mini and 1 in the official suite.
        overrides: fields of the protocol to override, such as ks.steps=2000 sid.learning_rates=0.1,0.01. In Python a
            list of such texts.
        against: second encoder, to which the first is compared. Both get heads with the same seeds and the same test
            clips, and each difference is printed with its 95 % confidence interval. Its results are kept in a subfolder
            of `out`. The folder of an earlier evaluation may be given instead of a model.
        out: output folder with one JSON file per task; finished tasks are not repeated.
        cache: folder for features. With auto, features that fit are kept in the user's cache folder, and others are
            computed whenever they are read; with none, no features are written to disk.
        cache_gib: maximum size of the cache in GiB; the least recently used features are removed. Features that are not
            on disk take at most as much memory, and at most a quarter of what is available.
        device: device for encoding and for training heads; auto selects a GPU if there is one.
        precision: precision of the encoder and the heads; bf16 is autocast.
        workers: number of threads that decode audio; by default half of the processors, at most 8.
        plan: instead of evaluating, print the cost of each task (audio, steps, size of the features, hours) at the pace
            of this machine, which is measured in a few seconds per task; nothing is written.
        revision: branch, tag or commit of `model` on the Hugging Face hub; the same as MODEL@REVISION.
        token: access token for the hub; by default the one in HF_TOKEN, or the one that `hf auth login` stored.
        on_progress: called with a short text about the current work.

    Returns:
        The results, and scores over all tasks.

    Raises:
        SlimvoxError: for invalid settings, before anything is computed, and for data that cannot be scored.
    """
    own = {
        name: tuple(Path(each) for each in ([given] if isinstance(given, str | os.PathLike) else given))
        for name, given in (manifests or {}).items()
    }
    model = at_revision(model, revision)
    name = name_of(model)
    settings = EvaluationPlan(
        model=name,
        data=Path(data),
        suite=suite,
        manifests=own,
        tasks=tuple(tasks),
        seeds=seeds,
        overrides=tuple(overrides),
        out=None if out is None else Path(out),
        cache=cache,
        cache_bytes=round(cache_gib * 2**30),
        device=device,
        precision=precision,
        workers=workers,
    )
    upstream = _given(model, settings)

    def scored(
        settings: EvaluationPlan, upstream: Upstream | None, comparable: Sequence[TaskResult] = ()
    ) -> tuple[TaskResult, ...]:
        results = []
        for result in suites.evaluate(
            settings,
            report=lambda name, done, total: on_progress(
                f"{name.upper()}: {done} of {total} recordings read"
            ),
            upstream=upstream,
            comparable=comparable,
        ):
            results.append(result)
            on_progress(f"{result.task.upper()} done")
        return tuple(results)

    with hub_token(token):
        if plan:
            forecasts = forecast(
                settings, report=lambda name: on_progress(f"{name.upper()}: measuring"), upstream=upstream
            )
            return Evaluation(results=(), overall={}, plan=tuple(forecasts))
        others: tuple[TaskResult, ...] = ()
        second: Upstream | None = None
        if against is not None:
            if isinstance(against, str | os.PathLike) and Path(against).is_dir():
                others = read_results(Path(against))
            if not others:  # a model that cannot be loaded is an error before anything is computed
                second = _given(against, settings) or load_upstream(
                    name_of(against), device=device, precision=precision
                )
        results = scored(settings, upstream, others)
        if against is not None and second is not None:
            folder = None if settings.out is None else settings.out / "against"
            others = scored(dataclasses.replace(settings, model=name_of(against), out=folder), second)
    estimate = None if own else mini_estimate(results)
    return Evaluation(
        results=results,
        overall=overall(results, own_data=bool(own)),
        half_widths={} if estimate is None else {"mini": estimate.half_width},
        against=None if against is None else str(others[0].configuration["model"]),
        differences=differences(results, others, None if own else fixed_rows()) if others else (),
    )


def _given(model: Model, plan: EvaluationPlan) -> Upstream | None:
    """The upstream of a model in memory; None for one that has to be loaded."""
    if isinstance(model, str | os.PathLike):
        return None
    encoder = copy.deepcopy(encoder_of(model))
    return EncoderUpstream(encoder, name_of(model), device=plan.device, precision=plan.precision)
