"""`slimvox inspect`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import Console

from slimvox.cli.command import MODEL, VerboseOption, command

if TYPE_CHECKING:
    from slimvox.checkpoint import LoadedModel


@command("slimvox.checkpoint.resolve.load_model", model=MODEL)
class InspectCommand(VerboseOption):
    """Show an encoder's structure: kept and original widths per layer, parameters and MACs."""

    if TYPE_CHECKING:
        model: str

    token: str | None = None
    """Access token for the Hugging Face hub; by default the one in HF_TOKEN, or the one that `hf auth login` stored."""
    json: bool = False
    """Print JSON: family, parameters, parameters_dense, macs_10s, macs_10s_dense, blocks, layers and structures."""

    imports: ClassVar[tuple[str, ...]] = ("slimvox.cli.tables",)

    def run(self, console: Console) -> None:
        """Run the command."""
        from slimvox.cli.tables import anatomy_table

        loaded: LoadedModel = self.call()
        if self.json:
            print(_dumps(loaded.encoder.anatomy, loaded.encoder.dense_anatomy))
            return
        anatomy_table(console, self.model, loaded.encoder.anatomy, loaded.encoder.dense_anatomy)
        if loaded.head_modules:
            console.print(f"ignored, not part of the encoder: {', '.join(loaded.head_modules)}")


def _dumps(anatomy: Any, dense: Any) -> str:
    from slimvox.costs.inspection import inspection

    return json.dumps(inspection(anatomy, dense), indent=1)
