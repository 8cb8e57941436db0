"""The model card of a pruned encoder: its sizes, its origin and its measurements."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from slimvox.audio.huggingface_datasets import HUB_PREFIX
from slimvox.costs import macs, parameters
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.util.quantities import short_number

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_EXAMPLE = """\
```python
import slimvox, torch
encoder = slimvox.load("PATH")
states = encoder(torch.randn(1, 16_000)).hidden_states  # layers + 1 tensors (batch, frames, width)
```"""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Teacher and data of a pruned encoder, for its model card."""

    teacher: str
    """Name of the teacher, as given by the user."""
    teacher_licence: str | None
    """Licence of the teacher, as given in its model card."""
    teacher_parameters: int
    """Number of the teacher's parameters, which is less than the dense encoder's if the teacher was itself pruned."""
    earlier: tuple[str, ...]
    """The teacher's teacher, the teacher of that one and so on, if the teacher was itself pruned."""
    audio: tuple[str, ...]
    """Names of the audio sources."""
    audio_hours: float
    """Hours of training audio."""


def licence_of(directory: Path) -> str | None:
    """The `license` in the front matter of a model's README.md, if it has one."""
    card = directory / "README.md"
    if not card.is_file():
        return None
    try:
        licence = ModelCard.load(card, ignore_metadata_errors=True).data.get("license")
    except Exception:  # unreadable files, text that is not UTF-8, front matter that is not YAML
        return None
    return ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence) if licence else None


def model_card(
    anatomy: EncoderAnatomy,
    dense: EncoderAnatomy,
    provenance: Provenance,
    *,
    recipe: str,
    figures: Mapping[str, str],
    metrics: Mapping[str, float],
) -> str:
    """A README.md in the form of the Hugging Face hub.

    Args:
        anatomy: anatomy of the pruned encoder.
        dense: anatomy of the encoder that it was pruned from.
        provenance: teacher and data.
        recipe: the recipe, as text to be shown.
        figures: measurements of the run, as label and text.
        metrics: distances to the teacher on held-out audio, by name, for the hub's table of evaluation results.
    """
    licence = provenance.teacher_licence
    seconds = 10.0
    rows = [
        ("parameters", parameters(dense), parameters(anatomy)),
        (f"MACs for {seconds:g} s", macs(dense, seconds), macs(anatomy, seconds)),
    ]
    table = "\n".join(
        f"| {name} | {short_number(before)} | {short_number(after)} | {after / before - 1:+.1%} |"
        for name, before, after in rows
    )
    measured = "\n".join(f"| {name} | {value} |" for name, value in figures.items())
    title = f"{anatomy.family} encoder, pruned"
    return "\n".join(
        [
            "---",
            _metadata(title, provenance, metrics).to_yaml(),
            "---",
            "",
            f"# {title}",
            "",
            f"A smaller encoder with the hidden states of `{provenance.teacher}`, made by structured pruning and"
            " distillation with slimvox.",
            "",
            _EXAMPLE,
            "",
            "With `transformers` (slimvox does not need to be installed):",
            "",
            "```python",
            "from transformers import AutoFeatureExtractor, AutoModel",
            'model = AutoModel.from_pretrained("PATH", trust_remote_code=True)',
            'prepare = AutoFeatureExtractor.from_pretrained("PATH")',
            'inputs = prepare(waveform, sampling_rate=16_000, return_tensors="pt")',
            "states = model(**inputs, output_hidden_states=True).hidden_states",
            "```",
            "",
            "| | dense | pruned | change |",
            "|---|---|---|---|",
            table,
            "",
            "## Origin",
            "",
            f"- Teacher: `{provenance.teacher}`; licence: {licence or 'not stated in its model card'}."
            " The pruned weights are derived from the teacher's, so the same terms apply.",
            *_steps(anatomy, dense, provenance),
            f"- Data: {provenance.audio_hours:.2f} h of unlabelled audio from {_names(provenance.audio)}.",
            "- Input: 16 kHz mono waveforms. `kept_indices.json` lists the kept structures of the dense encoder.",
            "",
            "## Pruning run",
            "",
            "| | |",
            "|---|---|",
            measured,
            "",
            "```toml",
            recipe.strip(),
            "```",
            "",
        ]
    )


def short_card(anatomy: EncoderAnatomy, dense: EncoderAnatomy, *, licence: str | None) -> str:
    """A README.md for an encoder that was saved from memory, with an unknown history apart from its licence."""
    size = f"{short_number(parameters(anatomy))} parameters"
    if anatomy != dense:
        size += f", pruned from {short_number(parameters(dense))}"
    metadata = ModelCardData(
        library_name="slimvox",
        license=licence,
        pipeline_tag="feature-extraction",
        tags=["speech", "feature-extraction"],
    )
    return "\n".join(
        [
            "---",
            metadata.to_yaml(),
            "---",
            "",
            f"# {anatomy.family} encoder",
            "",
            f"A speech encoder with {size}, saved by slimvox. Input: 16 kHz mono waveforms.",
            "",
            _EXAMPLE,
            "",
        ]
    )


def _metadata(title: str, provenance: Provenance, metrics: Mapping[str, float]) -> ModelCardData:
    """The front matter, which the hub searches. Models and data sets that are not on the hub are left out."""
    models = [name for name in (provenance.teacher, *provenance.earlier) if _HUB_ID.fullmatch(name)]
    sources = (name for name in provenance.audio if name.startswith(HUB_PREFIX))
    names = (name.removeprefix(HUB_PREFIX).partition(":")[0] for name in sources)
    results = [
        EvalResult(
            task_type="feature-extraction",
            dataset_type="audio",
            dataset_name="held-out audio of the run",
            metric_type=name.lower().replace(" ", "_"),
            metric_name=f"{name}, all hidden states, to {provenance.teacher}",
            metric_value=round(value, 6),
        )
        for name, value in metrics.items()
    ]
    return ModelCardData(
        base_model=models[0] if models else None,
        datasets=sorted({name for name in names if _HUB_ID.fullmatch(name)}) or None,
        library_name="slimvox",
        license=provenance.teacher_licence,
        pipeline_tag="feature-extraction",
        tags=["speech", "feature-extraction", "structured-pruning"],
        model_name=title if results else None,
        eval_results=results or None,
    )


def _steps(anatomy: EncoderAnatomy, dense: EncoderAnatomy, provenance: Provenance) -> list[str]:
    """The line for an encoder that was pruned in more than one run."""
    if not provenance.earlier:
        return []
    whole, teacher = parameters(dense), provenance.teacher
    before, after = provenance.teacher_parameters / whole, parameters(anatomy) / whole
    origin = ", in turn from ".join(f"`{name}`" for name in provenance.earlier)
    return [
        f"- Pruned in {len(provenance.earlier) + 1} runs: `{teacher}` came from {origin} with {before:.1%} of the dense"
        f" encoder's parameters, this encoder from `{teacher}` with {after:.1%}. `dense` above is what it all began"
        f" with; the run below is the last one, and its distances are to `{teacher}`."
    ]


def _names(names: tuple[str, ...], shown: int = 5) -> str:
    """The first few names, and the number of the others."""
    listed = ", ".join(f"`{name}`" for name in names[:shown])
    return listed + (f" and {len(names) - shown} more" if len(names) > shown else "")
