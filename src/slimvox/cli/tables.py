"""Tables printed by the commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from slimvox.costs import BLOCK_KINDS, LAYER_BLOCKS
from slimvox.costs.inspection import inspection
from slimvox.util.quantities import short_number

if TYPE_CHECKING:
    from slimvox.comparison.distance import Distance
    from slimvox.pruning import PruneResult
    from slimvox.structures.anatomy import EncoderAnatomy


def anatomy_table(console: Console, name: str, anatomy: EncoderAnatomy, dense: EncoderAnatomy) -> None:
    """Print the kept and original units, the parameters and the MACs of each block."""
    data = inspection(anatomy, dense)
    per_layer = {
        structure: entry
        for structure, entry in data["structures"].items()
        if entry["per_layer"] and entry["kind"] != "block"
    }
    table = Table(title=f"{name}: {anatomy.family}, width {anatomy.width}", title_justify="left")
    table.add_column("")
    for column in (*(entry["column"] for entry in per_layer.values()), "parameters", "MACs/10 s"):
        table.add_column(column, justify="right", no_wrap=True)
    empty = [""] * len(per_layer)
    for block, title in BLOCK_KINDS.items():
        if block not in LAYER_BLOCKS:
            table.add_row(title, *empty, *_costs(data["blocks"][block]))
    table.add_section()
    for index, layer in enumerate(data["layers"]):
        kept = (_kept(*layer[structure]) if structure in layer else "" for structure in per_layer)
        table.add_row(f"layer {index + 1}", *kept, *_costs(layer))
    table.add_section()
    table.add_row("total", *empty, *_costs(data))
    if anatomy != dense:
        share = [f"{data[key] / data[f'{key}_dense']:.1%}" for key in ("parameters", "macs_10s")]
        table.add_row("dense", *empty, *_costs(data, "_dense"))
        table.add_row("kept", *empty, *share)
    console.print(table)
    for entry in data["structures"].values():
        if not entry["per_layer"]:
            kept = (_kept(*pair) for pair in entry["units"].values())
            console.print(f"{entry['title']}: {' '.join(kept)}")


def _costs(entry: Mapping[str, Any], suffix: str = "") -> tuple[str, str]:
    return short_number(entry["parameters" + suffix]), short_number(entry["macs_10s" + suffix])


def prune_summary(console: Console, result: PruneResult) -> None:
    """Print the size, distance and speed of a run's result."""
    table = Table()
    for column in ("", "dense", "pruned", "kept"):
        table.add_column(column, justify="left" if not column else "right")
    for title, before, after in (
        ("parameters", result.parameters_dense, result.parameters),
        ("MACs for 10 s", result.macs_10s_dense, result.macs_10s),
    ):
        table.add_row(title, short_number(before), short_number(after), f"{after / before:.1%}")
    console.print(table)
    for when, distance in (
        ("after surgery", result.distance_after_prune),
        ("at the end", result.distance_after_finish),
    ):
        if distance is not None:
            console.print(
                f"distance to the teacher {when}: relative error {distance.relative_error:.3f},"
                f" 1 - cosine {distance.cosine:.3f} ({_held_out(distance)})"
            )
    if result.speed_up is not None:
        predicted = result.predicted_speed_up
        console.print(
            f"speed: {result.speed_up:.2f}x the dense encoder's, measured side by side"
            + ("" if predicted is None else f" ({predicted:.2f}x predicted)"),
            soft_wrap=True,
        )
    elif result.predicted_speed_up is not None:
        console.print(
            f"speed: {result.predicted_speed_up:.2f}x the dense encoder's, predicted for {result.predicted_for}; not"
            " measured on this machine",
            soft_wrap=True,
        )
    _skipped(console, result)
    console.print(
        f"written to {result.directory}; try: slimvox inspect {shlex.quote(str(result.directory))}",
        soft_wrap=True,
    )


def sizes_summary(console: Console, results: Sequence[PruneResult]) -> None:
    """Print one row per size of a run for several sizes."""
    first, last = results[0], results[-1]
    whole = f"{short_number(first.parameters_dense)} parameters, {short_number(first.macs_10s_dense)} MACs for 10 s"
    table = Table(title=f"dense: {whole}", title_justify="left")
    speeds = [result.predicted_speed_up if last.speed_up is None else result.speed_up for result in results]
    columns = (
        "",
        "parameters",
        "MACs/10 s",
        "after surgery",
        "at the end",
        *([] if speeds[-1] is None else ["speed" if last.speed_up is not None else "predicted speed"]),
    )
    for column in columns:
        table.add_column(column, justify="left" if not column else "right")
    for result, speed in zip(results, speeds, strict=True):
        distances = (result.distance_after_prune, result.distance_after_finish)
        table.add_row(
            result.directory.name,
            f"{short_number(result.parameters)} ({result.parameters / result.parameters_dense:.1%})",
            f"{short_number(result.macs_10s)} ({result.macs_10s / result.macs_10s_dense:.1%})",
            *("-" if distance is None else f"{distance.relative_error:.3f}" for distance in distances),
            *([] if speed is None else [f"{speed:.2f}x"]),
        )
    console.print(table)
    if last.distance_after_finish is not None:
        console.print(
            "after surgery, at the end: relative error of the hidden states against the teacher's"
            f" ({_held_out(last.distance_after_finish)})",
            soft_wrap=True,
        )
    _skipped(console, last)
    console.print(
        f"written to {last.directory.parent}; try: slimvox inspect {shlex.quote(str(last.directory))}",
        soft_wrap=True,
    )


def _held_out(distance: Distance) -> str:
    silence = distance.silent_seconds
    left_out = f", {silence:.1f} s of silence left out" if silence >= 0.1 else ""
    return f"{distance.seconds:.0f} s held out{left_out}"


def _skipped(console: Console, result: PruneResult) -> None:
    if result.skipped_files:
        counts = ", ".join(f"{count} {reason}" for reason, count in result.skipped_files.items())
        console.print(f"audio files skipped: {counts}")


def _kept(now: int, before: int) -> str:
    return str(now) if now == before else f"{now}/{before}"
