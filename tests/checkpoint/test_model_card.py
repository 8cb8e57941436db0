"""The model card: front matter that the hub reads, licences of teachers."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from slimvox.checkpoint.model_card import Provenance, licence_of, model_card
from slimvox.hf.configuration import SlimvoxConfig


def card(**fields: object) -> ModelCard:
    given: dict[str, object] = {
        "teacher": "microsoft/wavlm-base-plus",
        "teacher_licence": "mit",
        "teacher_parameters": 95_000_000,
        "earlier": (),
        "audio": ("hf:openslr/librispeech_asr:clean:train.100", "speech", "hf:folder:train"),
        "audio_hours": 100.0,
    }
    anatomy = SlimvoxConfig().encoder_anatomy
    provenance = Provenance(**{**given, **fields})  # type: ignore[arg-type]
    metrics = {"relative error": 0.25, "cosine distance": 0.03}
    return ModelCard(
        model_card(anatomy, anatomy, provenance, recipe="seed = 0", figures={"seed": "0"}, metrics=metrics)
    )


def test_the_hub_finds_base_model_data_and_metrics() -> None:
    data = card().data
    assert data.base_model == "microsoft/wavlm-base-plus" and data.license == "mit"
    assert data.datasets == ["openslr/librispeech_asr"]
    assert data.pipeline_tag == "feature-extraction" and data.library_name == "slimvox"
    assert "structured-pruning" in data.tags
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {
        "relative_error": 0.25,
        "cosine_distance": 0.03,
    }


def test_local_names_stay_out_of_the_front_matter() -> None:
    pruned_before = card(teacher="finished", earlier=("someone/dense", "x/y"), teacher_licence=None)
    assert pruned_before.data.base_model == "someone/dense" and pruned_before.data.license is None
    local = card(teacher="embedded", audio=("speech",))
    assert local.data.base_model is None and local.data.datasets is None
    assert "- Teacher: `embedded`; licence: mit." in local.text


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: mit\n---\n# Title\n", "mit"),
        ("---\nlicense: 'cc-by-4.0'  # as the data\ntags: [a]\n---\n", "cc-by-4.0"),
        ("---\nlicense:\n- mit\n- apache-2.0\n---\n", "mit, apache-2.0"),
        ("---\nlanguage: en\n---\nlicense: mit\n", None),
        ("license: mit\n", None),
        ("---\nlicense: [mit\n---\n", None),
        (b"---\nlicense: mit\xff\n---\n", None),
    ],
)
def test_the_licence_is_read_from_the_front_matter(
    tmp_path: Path, text: str | bytes, licence: str | None
) -> None:
    assert licence_of(tmp_path) is None
    (tmp_path / "README.md").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert licence_of(tmp_path) == licence
