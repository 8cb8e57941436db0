"""`slimvox inspect`."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import tyro
from rich.console import Console

from slimvox.cli.command import command
from slimvox.cli.options import ModelOptions


@command()
class InspectCommand(ModelOptions):
    """Show an encoder's structure: kept and original widths per layer, parameters and MACs."""

    model: tyro.conf.Positional[str]
    """Encoder: `embedded`, a local directory, or a model id on the Hugging Face hub."""
    json: bool = False
    """Print JSON with parameters, parameters_dense, macs_10s, macs_10s_dense and layers."""

    imports: ClassVar[tuple[str, ...]] = ("slimvox.checkpoint", "slimvox.cli.tables")

    def run(self, console: Console) -> None:
        """Run the command."""
        from slimvox.checkpoint import load_model
        from slimvox.cli.tables import anatomy_table

        loaded = load_model(self.model, revision=self.revision)
        if self.json:
            print(_dumps(loaded.encoder.anatomy, loaded.encoder.dense_anatomy))
            return
        anatomy_table(console, self.model, loaded.encoder.anatomy, loaded.encoder.dense_anatomy)
        if loaded.left_aside:
            console.print(f"ignored, not part of the encoder: {', '.join(loaded.left_aside)}")


def _dumps(anatomy: Any, dense: Any) -> str:
    from slimvox.costs.inspection import inspection

    return json.dumps(inspection(anatomy, dense), indent=1)
