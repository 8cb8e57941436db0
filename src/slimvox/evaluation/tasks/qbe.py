"""QbE: does a spoken query occur in a document? Subsequence dynamic time warping, no training; MTWV.

Hidden states are normalised per dimension over all queries and documents of a split; the distance of two frames is
exp(cosine distance) - 1, brought to 0 to 1 over each query frame's row; each query frame is used once while the
document may advance by 0, 1 or 2 frames; the score is minus the mean distance, normalised per query to zero mean and
unit variance over the documents. The hidden state is chosen on dev.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.evaluation.examples import ExampleSet, QuerySearch, Recording
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.features import Features
from slimvox.evaluation.manifests import searches
from slimvox.evaluation.metrics.term_weighted_value import (
    TermWeightedValue,
    maximum_term_weighted_value,
)
from slimvox.evaluation.outcomes import Outcomes
from slimvox.evaluation.protocols import SearchProtocol
from slimvox.evaluation.readers.quesst14 import read_quesst14
from slimvox.evaluation.tasks.base import Metric, Scores, Task, add_counts
from slimvox.evaluation.waveforms import Excerpt
from slimvox.util.errors import SlimvoxError


class QueryByExample(Task[ExampleSet[QuerySearch], SearchProtocol]):
    """Query by example; nothing is trained, so the result does not depend on seeds."""

    def run(
        self, data: ExampleSet[QuerySearch], cache: FeatureCache, protocol: SearchProtocol, *, seeds: int
    ) -> Scores:
        """Search with every hidden state on dev, and with the best of them on test."""
        dev, test = self._only(data, "dev"), self._only(data, "test")
        recordings = {
            each.id: Excerpt(recording=each)
            for search in (dev, test)
            for each in (*search.queries, *search.documents)
        }
        features = cache.features(list(recordings.values()), task=self.name)
        started, encoded = time.perf_counter(), cache.encoding.seconds
        by_layer = [self._found(dev, features, layer, protocol).value for layer in range(features.layers)]
        best = int(np.argmax(by_layer))
        found = self._found(test, features, best, protocol)
        matches = _matches(test, features)
        asked = [each for each in test.queries if each.id in features]
        outcomes = Outcomes.of(
            [
                each.sources
                for each, occurs in zip(asked, np.atleast_1d(matches.any(axis=1)).tolist(), strict=True)
                if occurs
            ],
            [[(each, 1.0) for each in found.of_queries]],
            factor=len(found.of_queries) / (len(found.of_queries) + test.unscored_queries),
        )
        random = np.random.default_rng(0).standard_normal(matches.shape)
        return Scores(
            test={"qbe": (found.value,)},
            outcomes={"qbe": outcomes},
            chance={"qbe": maximum_term_weighted_value(random, matches).value},
            chance_is="random scores",
            counts={"dev": len(dev.queries), "test": len(test.queries)},
            skipped=add_counts(data.skipped, features.skipped),
            chosen={"layer": best, "dev_mtwv_by_layer": [round(each, 4) for each in by_layer]},
            details={
                "documents": {"dev": len(dev.documents), "test": len(test.documents)},
                "frame_rate_hz": features.frame_rate_hz,
            },
            fit_seconds=time.perf_counter() - started - (cache.encoding.seconds - encoded),
        )

    def search_seconds(
        self, data: ExampleSet[QuerySearch], cache: FeatureCache, protocol: SearchProtocol
    ) -> float:
        """Time for all searches, extrapolated from two queries in a few documents."""
        recordings = {each.id: each for example in data.examples for each in self.recordings(example)}
        features = cache.features([Excerpt(recording=each) for each in recordings.values()], task=self.name)

        def known(recordings: Sequence[Recording]) -> list[str]:
            return [each.id for each in recordings if each.id in features]

        def frames(ids: Sequence[str]) -> int:
            return sum(features.frames(id) for id in ids)

        seconds = 0.0
        for example in data.examples:
            queries, documents = known(example.queries), known(example.documents)
            few, some = queries[:2], documents[: protocol.batch]
            states = [[each[:, 0] for (each,) in features.read([id] for id in ids)] for ids in (few, some)]
            started = time.perf_counter()
            search_scores(*states, shortest_query=1, batch=protocol.batch)
            per_pair = (time.perf_counter() - started) / max(1, frames(few) * frames(some))
            layers = features.layers if example.split == "dev" else 1
            seconds += layers * per_pair * frames(queries) * frames(documents)
        return seconds

    def recordings(self, example: QuerySearch) -> tuple[Recording, ...]:
        """Queries and documents."""
        return (*example.queries, *example.documents)

    def _only(self, data: ExampleSet[QuerySearch], split: str) -> QuerySearch:
        found = [each for each in data.examples if each.split == split]
        if len(found) != 1 or not found[0].queries or not found[0].documents:
            raise SlimvoxError(
                f"{self.name}: there must be queries and documents in {split}; the layer is chosen on dev"
            )
        if not found[0].matches:
            raise SlimvoxError(f"{self.name}: no query of {split} occurs in a document of {split}")
        return found[0]

    def _found(
        self, search: QuerySearch, features: Features, layer: int, protocol: SearchProtocol
    ) -> TermWeightedValue:
        """MTWV of a split by one hidden state."""
        queries, documents = (
            [
                states[:, layer].to(features.device)
                for (states,) in features.read([each.id] for each in recordings if each.id in features)
            ]
            for recordings in (search.queries, search.documents)
        )
        shortest = round(protocol.shortest_query_seconds * features.frame_rate_hz)
        scores = search_scores(queries, documents, shortest_query=shortest, batch=protocol.batch)
        return maximum_term_weighted_value(
            scores,
            _matches(search, features),
            unscored_queries=search.unscored_queries,
            unscored_documents=search.unscored_documents,
        )


@torch.inference_mode()
def search_scores(
    queries: Sequence[Tensor], documents: Sequence[Tensor], *, shortest_query: int, batch: int
) -> npt.NDArray[np.float32]:
    """Scores (queries, documents), normalised per query; higher means more likely to occur.

    Args:
        queries: queries, (frames, width) each.
        documents: documents, (frames, width) each.
        shortest_query: queries of fewer frames score 0 everywhere.
        batch: number of documents searched at once.
    """
    everything = torch.cat([*queries, *documents])
    mean, deviation = everything.mean(0), everything.std(0).clamp_min(1e-9)
    queries = [F.normalize((query - mean) / deviation, dim=-1) for query in queries]
    order = sorted(range(len(documents)), key=lambda index: len(documents[index]))
    scores = torch.zeros(len(queries), len(documents), device="cpu")
    for first in range(0, len(order), batch):
        chosen = order[first : first + batch]
        lengths = torch.tensor([len(documents[index]) for index in chosen], device=mean.device)
        padded = nn.utils.rnn.pad_sequence(
            [F.normalize((documents[index] - mean) / deviation, dim=-1) for index in chosen], batch_first=True
        )
        for number, query in enumerate(queries):
            if len(query) >= shortest_query:
                distances = torch.exp(1 - query @ padded.transpose(1, 2)) - 1
                scores[number, chosen] = -subsequence_distance(distances, lengths).cpu()
    spread = scores.std(1, correction=0, keepdim=True).clamp_min(1e-9)
    result: npt.NDArray[np.float32] = ((scores - scores.mean(1, keepdim=True)) / spread).numpy()
    return result


def subsequence_distance(distances: Tensor, lengths: Tensor) -> Tensor:
    """Least mean distance of a query along a path through each document.

    Each row is first brought to 0 to 1. The path begins and ends anywhere; with each query frame the document
    advances by 0, 1 or 2 frames.

    Args:
        distances: (documents, query frames, document frames).
        lengths: (documents,) frames that count.

    Returns:
        (documents,), 0 to 1.
    """
    outside = torch.arange(distances.shape[-1], device=lengths.device) >= lengths.unsqueeze(-1)
    low = distances.masked_fill(outside.unsqueeze(1), torch.inf).amin(-1, keepdim=True)
    high = distances.masked_fill(outside.unsqueeze(1), -torch.inf).amax(-1, keepdim=True)
    scaled = (distances - low) / (high - low).clamp_min(1e-9)
    scaled = scaled.masked_fill(outside.unsqueeze(1), torch.inf)
    path = scaled[:, 0]
    for row in scaled.unbind(1)[1:]:
        before = F.pad(path, (2, 0), value=torch.inf)
        path = row + torch.minimum(torch.minimum(before[:, 2:], before[:, 1:-1]), before[:, :-2])
    return path.amin(-1) / scaled.shape[1]


def _matches(search: QuerySearch, features: Features) -> npt.NDArray[np.bool_]:
    return np.array(
        [
            [
                (query.id, document.id) in search.matches
                for document in search.documents
                if document.id in features
            ]
            for query in search.queries
            if query.id in features
        ]
    )


QBE = QueryByExample(
    name="qbe",
    title="query by example",
    metrics=(Metric(name="qbe", title="MTWV", higher_is_better=True, percent=False),),
    protocols={"official": SearchProtocol(), "mini": SearchProtocol()},
    read_table=searches,
    read_corpus=read_quesst14,
)
