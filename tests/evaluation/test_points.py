import math

import pytest
from published_scores import PublishedModel, published_models

from slimvox.evaluation.points import (
    ERROR_RATES,
    METRICS,
    SUPERB_SCALE,
    FixedRows,
    Scale,
    mean11,
    mini_score,
    scaled_score,
    superb_s,
    task_points,
)
from slimvox.util.errors import SlimvoxError


@pytest.mark.parametrize("model", published_models(), ids=lambda model: model.name)
def test_the_published_numbers_come_out(model: PublishedModel) -> None:
    assert tuple(model.scores) == METRICS
    assert round(superb_s(model.scores)) == model.superb_s
    assert math.isclose(mean11(model.scores), model.mean11, abs_tol=0.05 + 1e-9)


def test_the_table_is_whole() -> None:
    models = published_models()
    assert len(models) == 12
    assert len({model.name for model in models}) == 12
    assert next(model for model in models if model.name == "DPHuBERT").macs == 654.1
    assert next(model for model in models if model.name == "DistilHuBERT").macs is None


def test_the_fixed_rows_are_0_and_1000() -> None:
    scale = SUPERB_SCALE
    assert superb_s(scale.low) == 0
    assert superb_s(scale.high) == pytest.approx(1000)
    assert all((scale.high[name] < scale.low[name]) == (name in ERROR_RATES) for name in METRICS)


def test_slot_filling_averages_its_two_metrics() -> None:
    scale = Scale(low={"sf_f1": 50.0, "sf_cer": 60.0}, high={"sf_f1": 100.0, "sf_cer": 20.0})
    assert task_points({"sf_f1": 100.0, "sf_cer": 50.0}, scale) == {"sf": pytest.approx((1000 + 250) / 2)}
    assert task_points({"sf_f1": 100.0}, scale) == {}


def test_one_metric_moves_the_score_by_its_tenth() -> None:
    scale = SUPERB_SCALE
    scores = {**scale.low, "ks": scale.high["ks"]}
    assert scaled_score(scores, scale) == pytest.approx(100)
    assert mean11(scores) - mean11(scale.low) == pytest.approx((96.66 - 41.38) / 11)


def test_mini_is_between_its_own_rows() -> None:
    low = dict.fromkeys(METRICS, 10.0) | dict.fromkeys(ERROR_RATES, 90.0)
    high = dict.fromkeys(METRICS, 80.0) | dict.fromkeys(ERROR_RATES, 20.0)
    half = {name: (low[name] + high[name]) / 2 for name in METRICS}
    assert mini_score(low, FixedRows(fbank=low, teacher=high)) == 0
    assert mini_score(high, FixedRows(fbank=low, teacher=high)) == pytest.approx(1000)
    assert mini_score(half, FixedRows(fbank=low, teacher=high)) == pytest.approx(500)


def test_missing_unknown_and_useless_metrics() -> None:
    scores = dict(SUPERB_SCALE.high)
    with pytest.raises(SlimvoxError, match="is not a metric"):
        superb_s({**scores, "wer": 3.0})
    for incomplete in (superb_s, mean11):
        with pytest.raises(SlimvoxError, match="there is no ks"):
            incomplete({name: value for name, value in scores.items() if name != "ks"})
    with pytest.raises(SlimvoxError, match="`ks` is 40 in both"):
        mini_score(scores, FixedRows(fbank={**SUPERB_SCALE.low, "ks": 40.0}, teacher={**scores, "ks": 40.0}))
