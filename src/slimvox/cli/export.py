"""`slimvox export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro
from rich.console import Console

from slimvox.cli.command import command
from slimvox.cli.options import ModelOptions
from slimvox.exporters import export_format_names
from slimvox.util.validation import Positive

if TYPE_CHECKING:
    from slimvox.exporters import Int8Errors


@command()
class ExportCommand(ModelOptions):
    """Export an encoder, or a model with its task head, to a file that runs without slimvox.

    The file accepts any batch size and length. It is compared with torch first, and not written if it differs.
    """

    model: tyro.conf.Positional[str]
    """Model: `embedded`, a local directory, or a model id on the Hugging Face hub."""
    format: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(export_format_names()) + "}")] = "onnx"
    """File format, such as `onnx`, or `torch-export`, a .pt2 file for AOTInductor, ExecuTorch or torch itself."""
    out: Path | None = None
    """Output file. By default, `encoder` or `encoder-int8` with the format's ending, such as encoder.onnx, in the
    model's directory; with --heads, `model` and so on."""
    int8: bool = False
    """Quantise matrix products to int8; the error is measured on the embedded speech."""
    max_error: Positive = 0.05
    """Maximum mean relative error of the int8 hidden states or logits."""
    heads: bool = False
    """Include the task head: return its logits (and the embeddings of an x-vector head)."""
    layers: Literal["all", "last", "none"] | None = None
    """Hidden states to return: all, only the last, or none. Default: none with --heads, otherwise all."""
    mask: bool = False
    """Add an attention mask over samples to the inputs, and the mask over frames to the outputs."""
    opset: int | None = None
    """Operator set version, where the format has such versions. By default, the format's own (ONNX: 20)."""
    force: bool = False
    """Replace an existing file, and accept an int8 error above --max-error."""

    imports: ClassVar[tuple[str, ...]] = ("slimvox.exporters",)

    def run(self, console: Console) -> None:
        """Run the command."""
        from slimvox.exporters import export_encoder

        with console.status("loading") as status:
            result = export_encoder(
                self.model,
                self.out,
                format=self.format,
                int8=self.int8,
                heads=self.heads,
                layers=self.layers,
                mask=self.mask,
                opset=self.opset,
                max_error=self.max_error,
                force=self.force,
                revision=self.revision,
                report=status.update,
            )
        cases = ", ".join(f"{batch} x {samples}" for batch, samples in result.compared)
        lines = [
            f"written to {result.path} ({result.bytes / 1e6:.1f} MB)",
            f"reads {', '.join(result.inputs)}; returns {_span(result.outputs)}",
            f"worst difference from torch{' before quantisation' if self.int8 else ''}: {result.worst_difference:.1e}"
            f" of an output's largest value (clips x samples: {cases})",
        ]
        if result.int8_errors is not None:
            lines += _int8_lines(result.int8_errors)
        if result.head_left_out is not None:
            lines.append(f"the model's task head ({result.head_left_out}) was left out; --heads exports it")
        for line in lines:
            console.print(line, soft_wrap=True, markup=False)


def _int8_lines(errors: Int8Errors) -> list[str]:
    """Lines that state the quantisation error of hidden states and head outputs."""
    lines = []
    if errors.mean_of_states is not None:
        lines.append(
            f"int8 changes the hidden states by {errors.mean_of_states:.2%} on the embedded speech (mean relative"
            f" error; worst layer {max(errors.states.values()):.2%})"
        )
    if errors.head:
        changes = ", ".join(f"the {name} by {error:.2%}" for name, error in errors.head.items())
        lines.append(f"int8 changes {changes} on the embedded speech (relative error)")
    return lines


def _span(names: tuple[str, ...]) -> str:
    """Names of outputs, with numbered ones abbreviated to first ... last."""
    numbered = [name for name in names if name.startswith("hidden_state_")]
    others = [name for name in names if name not in numbered]
    return ", ".join(([f"{numbered[0]} ... {numbered[-1]}"] if numbered else []) + others)
