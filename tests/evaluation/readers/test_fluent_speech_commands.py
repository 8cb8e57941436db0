from pathlib import Path

import pytest

from slimvox.evaluation.tasks import task
from slimvox.util.errors import SlimvoxError

ROOT = "fluent_speech_commands_dataset"
HEADER = ",path,speakerId,transcription,action,object,location"


@pytest.fixture
def corpus(tmp_path: Path, sound, text) -> Path:
    for split in ("train", "valid", "test"):
        sound(f"{ROOT}/wavs/speakers/x/{split}-1.wav")
        text(
            f"{ROOT}/data/{split}_data.csv",
            HEADER,
            f'0,wavs/speakers/x/{split}-1.wav,x,"Lights, please",activate,lights,none',
            f"1,wavs/speakers/x/{split}-2.wav,x,Heat,increase,,none",
        )
    return tmp_path


def test_three_labels(corpus: Path) -> None:
    (data,) = task("ic").read_official(corpus)
    assert data.label_names == ("action", "object", "location")
    assert [(each.split, each.labels) for each in data.examples] == [
        (split, ("activate", "lights", "none")) for split in ("train", "dev", "test")
    ]
    assert all(each.recording.clips[0].path.is_file() for each in data.examples)
    assert data.skipped == {"no label": 3}


def test_what_is_wrong_is_said(corpus: Path, text) -> None:
    table = f"{ROOT}/data/valid_data.csv"
    text(table, HEADER, "0,wavs/a.wav,x,Heat,,,")
    with pytest.raises(SlimvoxError, match=r"no labelled recording in .*valid_data.csv"):
        task("ic").read_official(corpus)
    text(table, "path,action,object")
    with pytest.raises(SlimvoxError, match="has no column `location`"):
        task("ic").read_official(corpus)
    (corpus / table).unlink()
    with pytest.raises(SlimvoxError, match=r"(?s)there is no .*valid_data.csv.*fluent.ai"):
        task("ic").read_official(corpus)
