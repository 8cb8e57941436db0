from pathlib import Path

import pytest

from slimvox.evaluation.tasks import task
from slimvox.util.errors import SlimvoxError

ROOT = "quesst14Database"


def occurrence(document: str, query: str) -> str:
    return f"LEXEME {document} 1 0.500 1.200 {query} lex <NA> 0.9"


@pytest.fixture
def corpus(tmp_path: Path, sound, text) -> Path:
    documents = [
        ("quesst14_00001", "nnenglish"),
        ("quesst14_00002", "nnenglish"),
        ("quesst14_00003", "czech"),
    ]
    text(
        f"{ROOT}/scoring/language_key_utterances.lst",
        *(f"{ROOT}/Audio/{name}.wav {language}" for name, language in documents),
    )
    for part in ("dev", "eval"):
        text(
            f"{ROOT}/scoring/language_key_{part}.lst",
            f"{ROOT}/{part}_queries/quesst14_{part}_0001.wav\tnnenglish",
            f"{ROOT}/{part}_queries/quesst14_{part}_0002.wav\tczech",
        )
        sound(f"{ROOT}/{part}_queries/quesst14_{part}_0001.wav")
        text(
            f"{ROOT}/scoring/groundtruth_quesst14_{part}/quesst14_{part}.rttm",
            "SPEAKER quesst14_00001 1 0 9 <NA> <NA> x <NA>",
            occurrence("quesst14_00002", f"quesst14_{part}_0001"),
            occurrence("quesst14_00003", f"quesst14_{part}_0002"),
            occurrence("quesst14_00001", "NO_KEYWORD"),
        )
    for name, _ in documents:
        sound(f"{ROOT}/Audio/{name}.wav")
    return tmp_path


def test_the_english_part(corpus: Path) -> None:
    (data,) = task("qbe").read_official(corpus)
    dev, test = data.examples
    assert (dev.split, test.split) == ("dev", "test")
    assert [query.id for query in test.queries] == ["quesst14_eval_0001"]
    assert [document.id for document in test.documents] == ["quesst14_00001", "quesst14_00002"]
    assert test.matches == {("quesst14_eval_0001", "quesst14_00002")}
    assert all(each.clips[0].path.is_file() for each in (*dev.queries, *test.queries, *test.documents))


def test_other_languages_count_as_not_searched(corpus: Path) -> None:
    (data,) = task("qbe").read_official(corpus)
    assert [(each.unscored_queries, each.unscored_documents) for each in data.examples] == [(1, 1), (1, 1)]


def test_what_is_wrong_is_said(corpus: Path, text) -> None:
    rttm = f"{ROOT}/scoring/groundtruth_quesst14_dev/quesst14_dev.rttm"
    text(rttm, "LEXEME quesst14_00002 1")
    with pytest.raises(SlimvoxError, match="fewer than six fields"):
        task("qbe").read_official(corpus)
    text(rttm, occurrence("quesst14_00003", "quesst14_dev_0001"))
    with pytest.raises(SlimvoxError, match="no English query of dev occurs"):
        task("qbe").read_official(corpus)
    (corpus / rttm).unlink()
    with pytest.raises(SlimvoxError, match=r"(?s)there is no .*quesst14_dev.rttm.*quesst14Database.tgz"):
        task("qbe").read_official(corpus)
