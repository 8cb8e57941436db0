"""`slimvox inspect`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import tyro
from rich.console import Console

from slimvox.cli.help import readable_help


@readable_help
@dataclass(frozen=True, kw_only=True)
class InspectCommand:
    """Show what an encoder is made of: per layer what is kept of what there was, parameters, MACs."""

    model: tyro.conf.Positional[str]
    """`embedded`, a local directory, or a model id on the Hugging Face hub."""
    json: bool = False
    """Print JSON: parameters, parameters_dense, macs_10s, macs_10s_dense, layers."""

    imports: ClassVar = ("slimvox.checkpoint", "slimvox.cli.tables")

    def run(self, console: Console) -> None:
        """Run the command."""
        from slimvox.checkpoint import load_model
        from slimvox.cli.tables import anatomy_table

        loaded = load_model(self.model)
        if self.json:
            print(_dumps(loaded.encoder.anatomy, loaded.encoder.dense_anatomy))
            return
        anatomy_table(console, self.model, loaded.encoder.anatomy, loaded.encoder.dense_anatomy)
        if loaded.left_aside:
            console.print(f"left aside, not part of the encoder: {', '.join(loaded.left_aside)}")


def _dumps(anatomy: Any, dense: Any) -> str:
    from slimvox.costs.inspection import inspection

    return json.dumps(inspection(anatomy, dense), indent=1)
