"""Try the readers of official SUPERB on corpora of the true layout and the true number of files.

    python benchmarks/superb_scale/run.py [--share 0.1] [--corpora VoxCeleb1 ...]

Each corpus is made in a temporary folder from hard links of a few clips, read by its tasks in a process of its own, and
removed. The table has seconds for: reading, describing the data (for the configuration of a result), the key of cached
features (a stat per file), the lengths of all recordings (a header per file); and the peak memory that they take.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpora import CORPORA

COLUMNS = ("read", "describe", "key", "lengths")


def main() -> None:
    """Make, try and remove each corpus."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, default=1.0, help="share of the true number of files")
    parser.add_argument("--corpora", nargs="+", choices=list(CORPORA), default=list(CORPORA), metavar="NAME")
    parser.add_argument("--try", dest="tried", nargs=2, metavar=("TASK", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that folders are removed
    if arguments.tried is not None:
        print(json.dumps(try_reader(arguments.tried[0], Path(arguments.tried[1]))))
        return
    print("| corpus | files | task | recordings | read, s | describe, s | key, s | lengths, s | peak, MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in arguments.corpora:
        corpus = CORPORA[name]
        with tempfile.TemporaryDirectory(prefix="superb-scale-") as folder:
            corpus.make(Path(folder), arguments.share)
            for task in corpus.tasks:
                command = [sys.executable, __file__, "--try", task, folder]
                found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                seconds = " | ".join(f"{found[column]:.1f}" for column in COLUMNS)
                count = round(arguments.share * corpus.files)
                cells = f"{name} | {count:,} | {task} | {found['recordings']:,} | {seconds}"
                print(f"| {cells} | {found['peak_mib']:.0f} |", flush=True)


def try_reader(name: str, data: Path) -> dict[str, Any]:
    """Read a task's official data, with times and memory."""
    from slimvox.evaluation.data_fingerprint import describe_data
    from slimvox.evaluation.feature_cache import FeatureCache
    from slimvox.evaluation.tasks import task
    from slimvox.evaluation.upstreams import FilterBankUpstream
    from slimvox.evaluation.waveforms import Excerpt, measure_excerpts

    before = _peak_mib()
    found: dict[str, Any] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        found[step] = time.perf_counter() - started
        return result

    folds = timed("read", lambda: task(name).read_official(data))
    timed("describe", lambda: describe_data(folds, data))
    recordings = {each.id: each for fold in folds for x in fold.examples for each in task(name).recordings(x)}
    for fold in folds:
        recordings |= getattr(fold, "recordings", {})
    excerpts = [Excerpt(recording=each) for each in recordings.values()]
    cache = FeatureCache(upstream=FilterBankUpstream(), directory=None)
    timed("key", lambda: cache._key(excerpts, "frames", ()))
    lengths = timed("lengths", lambda: measure_excerpts(excerpts, 2))
    assert all(lengths.values()), "a recording cannot be read"
    return {**found, "recordings": len(excerpts), "peak_mib": _peak_mib() - before}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
