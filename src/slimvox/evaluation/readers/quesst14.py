"""QUESST 2014, its English part: spoken queries, and documents to look for them in."""

from __future__ import annotations

from pathlib import Path

from slimvox.evaluation.examples import ExampleSet, QuerySearch, Recording, Split
from slimvox.evaluation.readers.corpus import Corpus
from slimvox.util.errors import SlimvoxError

QUESST14 = Corpus(
    name="QUESST 2014",
    folder="quesst14Database",
    marker="scoring",
    download="Download quesst14Database.tgz from https://speech.fit.vutbr.cz/files/quesst14Database.tgz and unpack it",
    layout="""Audio/*.wav
dev_queries/*.wav
eval_queries/*.wav
scoring/language_key_utterances.lst
scoring/language_key_dev.lst
scoring/language_key_eval.lst
scoring/groundtruth_quesst14_dev/quesst14_dev.rttm
scoring/groundtruth_quesst14_eval/quesst14_eval.rttm""",
)
ENGLISH = "nnenglish"


def read_quesst14(data: Path) -> ExampleSet[QuerySearch]:
    """QbE: the dev queries and the evaluation queries, both in the same documents.

    SUPERB searches the English part alone, while QUESST's scorer counts all queries and documents, those of other
    languages as not searched. Their numbers are passed on, so that the value equals that of the scorer.

    Raises:
        SlimvoxError: if the corpus is missing or incomplete.
    """
    root = QUESST14.find(data)
    documents, other_documents = _listed(root, "utterances")
    searches = []
    names: tuple[tuple[Split, str], ...] = (("dev", "dev"), ("test", "eval"))
    for split, name in names:
        queries, _ = _listed(root, name)
        occurrences = _occurrences(root, name)
        searched = {query.id for query in queries}, {document.id for document in documents}
        matches = frozenset((q, d) for q, d in occurrences if q in searched[0] and d in searched[1])
        if not matches:
            raise SlimvoxError(f"QUESST 2014: no English query of {name} occurs in an English document")
        searches.append(
            QuerySearch(
                split=split,
                queries=queries,
                documents=documents,
                matches=matches,
                unscored_queries=len({query for query, _ in occurrences} - searched[0]),
                unscored_documents=other_documents,
            )
        )
    return ExampleSet(name="QUESST 2014 (English)", examples=tuple(searches))


def _listed(root: Path, name: str) -> tuple[tuple[Recording, ...], int]:
    """The English recordings of a list, and the number of others."""
    english, others = [], 0
    for path, language in QUESST14.fields(root / "scoring" / f"language_key_{name}.lst", 2):
        if language == ENGLISH:
            # Paths begin with the corpus's own folder.
            inside = Path(*Path(path).parts[1:])
            english.append(Recording.of_file(inside.stem, root / inside))
        else:
            others += 1
    if not english:
        raise SlimvoxError(
            f"QUESST 2014: language_key_{name}.lst names no recording of the language {ENGLISH}"
        )
    return tuple(english), others


def _occurrences(root: Path, name: str) -> set[tuple[str, str]]:
    """(query, document): LEXEME DOCUMENT CHANNEL START SECONDS QUERY ... a line."""
    rttm = root / "scoring" / f"groundtruth_quesst14_{name}" / f"quesst14_{name}.rttm"
    fields = [line.split() for line in QUESST14.lines(rttm) if line.startswith("LEXEME")]
    if any(len(line) < 6 for line in fields):
        raise SlimvoxError(f"QUESST 2014: {rttm} has a LEXEME line of fewer than six fields")
    return {(line[5], line[1]) for line in fields if line[5] != "NO_KEYWORD"}
