"""Run tasks on a model and keep each result as a JSON file, so that an interrupted run can be resumed."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from slimvox._version import __version__
from slimvox.evaluation.comparable import COMPARED, LATER_ENTRIES, check_same
from slimvox.evaluation.data_fingerprint import describe_audio, describe_data
from slimvox.evaluation.examples import ExampleSet
from slimvox.evaluation.feature_cache import DEFAULT_MAX_BYTES, FeatureCache, cache_directory
from slimvox.evaluation.outcomes import mean_of_folds
from slimvox.evaluation.protocols import HeadProtocol, SuiteName, overridden
from slimvox.evaluation.results import YARDSTICK, TaskResult, as_json, read_result
from slimvox.evaluation.tasks import task, task_names, tasks
from slimvox.evaluation.tasks.base import Metric, Scores, Task, add_counts
from slimvox.evaluation.upstreams import Precision, Upstream, load_upstream
from slimvox.util.devices import Device, find_device
from slimvox.util.errors import SlimvoxError
from slimvox.util.files import write_atomically
from slimvox.util.imports import require
from slimvox.util.output_paths import check_output_folder
from slimvox.util.validation import Count, Threads, check_fields

RESULT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """Settings of an evaluation."""

    model: str
    """Model, as `slimvox.evaluation.upstreams.load_upstream` takes it."""
    data: Path
    """Folder of the audio."""
    suite: SuiteName = "mini"
    """Suite, which determines data and protocol."""
    manifests: Mapping[str, tuple[Path, ...]] = dataclasses.field(default_factory=dict)
    """The user's own tables by task, instead of the suite's data; several are folds."""
    tasks: tuple[str, ...] = ()
    """Names of registered tasks. None: those of `manifests` if there are some, else all that the suite has data for."""
    seeds: Count | None = None
    """Heads per task at the best learning rate; None for 3 in `mini`, where one more costs seconds, and 1 otherwise."""
    overrides: tuple[str, ...] = ()
    """Overrides of the protocol, such as TASK.FIELD=VALUE."""
    out: Path | None = None
    """Folder for the results, one TASK.json each; None to write none."""
    cache: str | Path = "auto"
    """Folder for features; `auto` for the user's cache if they fit, and `none` to encode them when they are read."""
    cache_bytes: int = DEFAULT_MAX_BYTES
    device: Device = "cpu"
    """Device for the encoder and for the training of heads."""
    precision: Precision = "float32"
    """Precision of the encoder and the heads; `bf16` is autocast."""
    workers: Threads | None = None
    """Threads that decode audio; None for half of the processors, at most 8."""

    @property
    def heads(self) -> int:
        """Number of heads per task at the best learning rate."""
        return self.seeds or (3 if self.suite == "mini" else 1)


def evaluate(
    plan: EvaluationPlan,
    *,
    report: Callable[[str, int, int], None] | None = None,
    upstream: Upstream | None = None,
    comparable: Sequence[TaskResult] = (),
) -> Iterator[TaskResult]:
    """Evaluate task by task; each result is written before it is yielded.

    Args:
        plan: settings of the evaluation.
        report: called with the task and the numbers of recordings done and in all, while features are computed.
        upstream: model to evaluate, instead of loading `plan.model`.
        comparable: results of another model, with which the results will be compared.

    Raises:
        SlimvoxError: for bad settings, and if `comparable` has other data or protocols, before anything is computed;
            and for data that cannot be scored.
    """
    protocols, sets = prepared(plan)
    described = {
        name: _data_configuration(plan, name, folds, protocols[name]) for name, folds in sets.items()
    }
    if comparable:
        _check_against(described, comparable)
    if upstream is None:
        upstream = load_upstream(plan.model, device=plan.device, precision=plan.precision)
    cache = feature_cache(plan, upstream)
    for name, folds in sets.items():
        configuration = _configuration(plan, upstream) | described[name]
        path = None if plan.out is None else plan.out / f"{name}.json"
        found = None if path is None else read_result(path)
        if found is not None:
            if _without_unknown(configuration, found.configuration) != found.configuration:
                raise SlimvoxError(
                    f"{path} is the result of another configuration ({_difference(found, configuration)});"
                    " give another --out, or remove that file"
                )
            yield dataclasses.replace(found, reused=True)
            continue
        if report is not None:
            cache.report = lambda done, total, name=name: report(name, done, total)
        started, encoded = time.perf_counter(), cache.encoding.seconds
        started_processor = time.process_time()
        runs = [task(name).run(fold, cache, protocols[name], seeds=plan.heads) for fold in folds]
        seconds = {
            "encode": cache.encoding.seconds - encoded,
            "fit": sum(run.fit_seconds for run in runs),
            "total": time.perf_counter() - started,
            "processor": time.process_time() - started_processor,
        }
        result = _result(name, configuration, runs, {key: round(value, 2) for key, value in seconds.items()})
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, as_json(result).encode())
        yield result


def prepared(plan: EvaluationPlan) -> tuple[dict[str, HeadProtocol], dict[str, list[ExampleSet[Any]]]]:
    """Protocols and data of a plan's tasks, by name.

    Raises:
        SlimvoxError: for invalid settings, and for missing data.
    """
    _check(plan)
    with_manifest = tuple(name for name in task_names() if name in plan.manifests)
    names = plan.tasks or with_manifest or default_tasks(plan.suite)
    for name in names:
        require(task(name).packages, f"the task {name}", extra="evaluation")
    protocols = {name: overridden(name, task(name).protocols[plan.suite], plan.overrides) for name in names}
    return protocols, {name: read_folds(plan, name) for name in names}


def feature_cache(plan: EvaluationPlan, upstream: Upstream) -> FeatureCache:
    """The features of a plan's upstream."""
    return FeatureCache(
        upstream=upstream,
        directory=cache_directory(plan.cache),
        only_if_it_fits=str(plan.cache) == "auto",
        max_bytes=plan.cache_bytes,
        device=find_device(plan.device),
        bf16=plan.precision == "bf16",
        workers=plan.workers or max(1, min(8, (os.cpu_count() or 1) // 2)),
    )


def default_tasks(suite: SuiteName) -> tuple[str, ...]:
    """Names of the registered tasks that a suite has data for."""
    return tuple(each.name for each in tasks() if each.has_data(suite))


def read_folds(plan: EvaluationPlan, name: str) -> list[ExampleSet[Any]]:
    """The data of a task, one set per fold."""
    chosen = task(name)
    if name in plan.manifests:
        return [fold for path in plan.manifests[name] for fold in chosen.read_folds(path, plan.data)]
    if plan.suite == "official":
        return list(chosen.read_official(plan.data))
    folds = [fold for path in chosen.mini_tables() for fold in chosen.read_folds(path, plan.data)]
    if not folds:
        raise SlimvoxError(f"mini-SUPERB has no data for {name}; give --manifest {name}=FILE")
    for fold in folds:
        _check_mini_audio(chosen, fold, plan.data)
    return folds


def _check_mini_audio(chosen: Task[Any, Any], fold: ExampleSet[Any], data: Path) -> None:
    """Check that no recording of mini-SUPERB is missing, since scores would not be comparable."""
    recordings = [recording for example in fold.examples for recording in chosen.recordings(example)]
    missing = [
        clip.path for recording in recordings for clip in recording.clips[:1] if not clip.path.is_file()
    ]
    if missing:
        raise SlimvoxError(
            f"{chosen.name}: {len(missing)} of {len(recordings)} recordings of mini-SUPERB are not in {data},"
            f" such as {missing[0].relative_to(data)}; docs/evaluation.md says which sets it takes"
        )


def _check(plan: EvaluationPlan) -> None:
    check_fields(plan)
    for name in (*plan.tasks, *plan.manifests):
        task(name)
    for override in plan.overrides:
        owner = override.partition(".")[0]
        if owner not in task_names():
            raise SlimvoxError(
                f"`--set` must be TASK.FIELD=VALUE, such as ks.steps=500, but is {override!r} instead"
            )
    if not plan.data.is_dir():
        raise SlimvoxError(f"there is no data folder {plan.data}")
    if plan.out is not None:
        check_output_folder(plan.out, "--out")
    directory = cache_directory(plan.cache)
    if directory is not None:
        check_output_folder(directory, "--cache")


def _check_against(described: Mapping[str, Mapping[str, Any]], others: Sequence[TaskResult]) -> None:
    """Check that another model was scored on some of the tasks, with the same data and protocols."""
    common = [each for each in others if each.task in described]
    if not common:
        raise SlimvoxError(
            f"the results to compare with are of {', '.join(each.task for each in others)}, and none of"
            f" {', '.join(described)}; choose other --tasks"
        )
    for each in common:
        check_same(
            each.task, ("this evaluation", described[each.task]), ("the earlier one", each.configuration)
        )


def _configuration(plan: EvaluationPlan, upstream: Upstream) -> dict[str, Any]:
    """Entries of a result's configuration on the program and the model."""
    return {
        "result_version": RESULT_VERSION,
        "slimvox": __version__,
        "torch": torch.__version__,
        "model": plan.model,
        "model_fingerprint": upstream.fingerprint,
        "parameters": upstream.parameters,
    }


def _data_configuration(
    plan: EvaluationPlan, name: str, folds: Sequence[ExampleSet[Any]], settings: Any
) -> dict[str, Any]:
    """Entries of a result's configuration on the data and the protocol."""
    recordings = (each for fold in folds for each in task(name).all_recordings(fold))
    configuration = {
        "suite": plan.suite,
        "data": [fold.name for fold in folds],
        "data_fingerprint": describe_data(folds, plan.data),
        "audio_fingerprint": describe_audio(recordings, plan.data),
        "seeds": plan.heads,
        "protocol": dataclasses.asdict(settings),
    }
    if plan.suite == "mini" and name not in plan.manifests:
        configuration["yardstick"] = YARDSTICK
    if plan.precision != "float32":
        configuration["precision"] = plan.precision
    plain: dict[str, Any] = json.loads(json.dumps(configuration))
    return plain


def _without_unknown(configuration: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without entries that results of earlier versions do not have."""
    return {key: value for key, value in configuration.items() if key in found or key not in LATER_ENTRIES}


def _difference(found: TaskResult, configuration: Mapping[str, Any]) -> str:
    known = _without_unknown(configuration, found.configuration)
    changed = [COMPARED.get(key, key) for key in known if found.configuration.get(key) != known[key]]
    return f"different {', '.join(changed)}" if changed else "of an older format"


def _result(
    name: str, configuration: Mapping[str, Any], runs: Sequence[Scores], seconds: Mapping[str, float]
) -> TaskResult:
    """Mean over folds, seed by seed."""

    def described(metric: Metric) -> dict[str, Any]:
        by_seed = [
            statistics.fmean(values) for values in zip(*(run.test[metric.name] for run in runs), strict=True)
        ]
        return {
            "title": runs[0].titles.get(metric.name, metric.title),
            "percent": metric.percent,
            "higher_is_better": metric.higher_is_better,
            "mean": statistics.fmean(by_seed),
            "spread": statistics.stdev(by_seed) if len(by_seed) > 1 else None,
            "seeds": by_seed,
            "folds": [list(run.test[metric.name]) for run in runs],
            "chance": statistics.fmean(run.chance[metric.name] for run in runs),
        }

    result = TaskResult(
        task=name,
        configuration=configuration,
        scores={metric.name: described(metric) for metric in task(name).metrics},
        chance_is=runs[0].chance_is,
        counts=add_counts(*(run.counts for run in runs)),
        skipped=add_counts(*(run.skipped for run in runs)),
        chosen=[run.chosen for run in runs],
        details=[run.details for run in runs],
        seconds=seconds,
        outcomes={
            name: dataclasses.asdict(mean_of_folds([run.outcomes[name] for run in runs]))
            for name in runs[0].outcomes
        },
    )
    # As it will be read back.
    return TaskResult(**json.loads(json.dumps(dataclasses.asdict(result))))
