"""`slimvox encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from rich.console import Console

from slimvox.cli.command import command
from slimvox.cli.options import ModelOptions
from slimvox.util.validation import Seconds, SecondsOrZero


@command()
class EncodeCommand(ModelOptions):
    """Write the hidden states of all layers for each audio file.

    One .npz or .safetensors file per audio file: layer_00, layer_01, ... of shape (frames, width), and frame_rate_hz.
    Long audio is encoded in overlapping chunks. The same command resumes where an earlier one stopped.
    """

    model: tyro.conf.Positional[str]
    """Encoder: `embedded`, a local directory, or a model id on the Hugging Face hub such as
    microsoft/wavlm-base-plus."""
    audio: tyro.conf.Positional[tuple[str, ...]]
    """Audio sources: files, folders, lists (.txt), manifests (.tsv, .csv, .jsonl), or Hugging Face data sets (hf:NAME,
    hf:NAME:CONFIGURATION:SPLIT, .parquet, a save_to_disk folder)."""
    out: Path
    """Output directory; files are named after the audio."""
    format: Literal["npz", "safetensors"] = "npz"
    """File format of the outputs: `npz` (numpy) or `safetensors`."""
    layers: Annotated[str, tyro.conf.arg(metavar="all|N,N,...")] = "all"
    """Hidden states to write: `all`, or numbers such as 0,6,12; 0 is the input of the first layer."""
    dtype: Literal["float32", "float16"] = "float32"
    """Data type of the hidden states in the files."""
    chunk_seconds: Seconds = 30.0
    """Chunk length in seconds; longer audio is encoded in chunks."""
    overlap_seconds: SecondsOrZero = 2.0
    """Overlap of neighbouring chunks in seconds; each chunk contributes half of it."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to run on; `auto` is a GPU where there is one."""
    overwrite: bool = False
    """Replace existing outputs; by default, outputs of the same encoder and options are kept."""

    imports: ClassVar[tuple[str, ...]] = ("slimvox.encoding.encode",)

    def run(self, console: Console) -> None:
        """Run the command."""
        from slimvox.encoding.encode import encode_files

        result = encode_files(
            self.model,
            self.audio,
            self.out,
            format=self.format,
            layers=self.layers,
            dtype=self.dtype,
            chunk_seconds=self.chunk_seconds,
            overlap_seconds=self.overlap_seconds,
            device=self.device,
            overwrite=self.overwrite,
            revision=self.revision,
            console=console,
        )
        parts = [f"{result.written} written ({result.seconds:.1f} s of audio)"]
        if result.already_there:
            parts.append(f"{result.already_there} already there")
        parts += [f"{count} skipped as {reason}" for reason, count in result.skipped.items()]
        console.print(f"{', '.join(parts)}; in {result.directory}", soft_wrap=True, markup=False)
