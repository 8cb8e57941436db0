"""`slimvox encode`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from slimvox.cli.command import AUDIO, MODEL, Argument, VerboseOption, command

if TYPE_CHECKING:
    from slimvox.encoding.encode import EncodeResult


@command(
    "slimvox.encoding.encode.encode_files",
    model=MODEL,
    audio=AUDIO,
    layers=Argument(metavar="all|last|N,N,..."),
)
class EncodeCommand(VerboseOption):
    """Write the hidden states of all layers for each audio file.

    One .npz or .safetensors file per audio file: layer_00, layer_01, ... of shape (frames, width), or
    last_hidden_state; and frame_rate_hz. Long audio is encoded in overlapping chunks. The same command resumes where
    an earlier one stopped.
    """

    def run(self, console: Console) -> None:
        """Run the command."""
        result: EncodeResult = self.call(console=console)
        parts = [f"{result.written} written ({result.seconds:.1f} s of audio)"]
        if result.already_there:
            parts.append(f"{result.already_there} already there")
        parts += [f"{count} skipped as {reason}" for reason, count in result.skipped.items()]
        console.print(f"{', '.join(parts)}; in {result.directory}", soft_wrap=True)
