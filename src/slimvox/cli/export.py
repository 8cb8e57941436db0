"""`slimvox export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from slimvox.cli.command import MODEL, Argument, VerboseOption, command, showing
from slimvox.exporters import export_format_names

if TYPE_CHECKING:
    from slimvox.exporters import ExportResult, Int8Errors


@command(
    "slimvox.exporters.run.export",
    model=MODEL,
    calibration=Argument(type=tuple[str, ...], metavar="AUDIO..."),
    format=Argument(metavar="{" + ",".join(export_format_names()) + "}"),
)
class ExportCommand(VerboseOption):
    """Export an encoder, or a model with its task head, to a file that runs without slimvox.

    The file accepts any batch size and any length (an ExecuTorch program: one clip of at most 30 s). It is compared
    with torch, and removed if it differs.
    """

    def run(self, console: Console) -> None:
        """Run the command."""
        with showing("loading") as show:
            result: ExportResult = self.call(report=show)
        cases = ", ".join(f"{batch} x {samples}" for batch, samples in result.compared)
        lines = [
            f"written to {result.path} ({result.bytes / 1e6:.1f} MB)",
            f"reads {', '.join(result.inputs)}; returns {_span(result.outputs)}",
            f"worst difference from torch{'' if result.int8_errors is None else ' before quantisation'}:"
            f" {result.worst_difference:.1e} of an output's largest value (clips x samples: {cases})",
        ]
        if result.decoder is not None:
            lines.append(f"the decoder is in {result.decoder}")
        if result.int8_errors is not None:
            lines += _int8_lines(result.int8_errors)
        if result.head_left_out is not None:
            lines.append(f"the model's task head ({result.head_left_out}) was left out; --heads exports it")
        for line in lines:
            console.print(line, soft_wrap=True)


def _int8_lines(errors: Int8Errors) -> list[str]:
    """Lines that state the quantisation error of hidden states and head outputs."""
    lines = []
    if errors.mean_of_states is not None:
        lines.append(
            f"int8 changes the hidden states by {errors.mean_of_states:.2%} on {errors.source} (mean relative"
            f" error; worst layer {max(errors.states.values()):.2%})"
        )
    if errors.head:
        changes = ", ".join(f"the {name} by {error:.2%}" for name, error in errors.head.items())
        lines.append(f"int8 changes {changes} on {errors.source} (relative error)")
    return lines


def _span(names: tuple[str, ...]) -> str:
    """Names of outputs, with numbered ones abbreviated to first ... last."""
    numbered = [name for name in names if name.startswith("hidden_state_")]
    others = [name for name in names if name not in numbered]
    return ", ".join(([f"{numbered[0]} ... {numbered[-1]}"] if numbered else []) + others)
