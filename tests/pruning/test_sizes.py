"""Several sizes from one run: each as a run of its own would leave it, stopped and resumed wherever that happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import slimvox
from interruptions import interrupted_after, kill_when
from slimvox.cli.main import run
from slimvox.pruning import checked_files
from slimvox.pruning.budget import SparsitySchedule
from slimvox.report.runs import read_runs
from slimvox.structures.kept_indices import KeptIndices
from tiny_runs import SETTINGS, make_run

SIZES = {"keep-50": 0.5, "keep-28": 0.28, "keep-20": 0.2}
STEPS = {"prune.steps": 9}
CUTS = {"keep-50": 3, "keep-28": 6, "keep-20": 9}
"""After which step of stage 1 each is cut: three steps of climbing (geometrically), six of waiting."""


def make_sizes(teacher: Path, speech: Path, out: Path, **arguments: Any) -> slimvox.PruneResult:
    return make_run(out, teacher, speech, settings=STEPS, **{"sizes": "50%,28%,20%", **arguments})


def weights(out: Path) -> dict[str, bytes]:
    return {name: (out / name / "model.safetensors").read_bytes() for name in SIZES}


def log(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "run" / "log.jsonl").read_text().splitlines()
    return [{**json.loads(line), "audio_seconds_per_second": 0} for line in lines]


@pytest.fixture(scope="module")
def finished(teacher: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an uninterrupted run."""
    out = tmp_path_factory.mktemp("sizes") / "finished"
    make_sizes(teacher, speech, out)
    return out


def test_the_schedule_climbs_to_each_size_and_waits() -> None:
    schedule = SparsitySchedule(sparsities=(0.4, 0.8), ramp_steps=4, steps=10)
    assert schedule.ends == (5, 10)
    assert [schedule.target(step) for step in range(1, 11)] == pytest.approx(
        [0.2, 0.4, 0.4, 0.4, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8]
    )
    alone = SparsitySchedule(sparsities=(0.8,), ramp_steps=4, steps=6)
    assert alone.ends == (6,)
    assert [alone.target(step) for step in range(1, 7)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    short = SparsitySchedule(sparsities=(0.2, 0.4, 0.8), ramp_steps=5000, steps=2)
    assert short.ends[-1] == 2 and min(short.ends) >= 1 and short.target(2) == pytest.approx(0.8)


def test_every_size_meets_its_target_and_serves_as_a_run_of_its_own(
    finished: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense = slimvox.load(teacher)
    assert sorted(path.name for path in finished.iterdir()) == sorted([*SIZES, "run"])
    for name, share in SIZES.items():
        encoder = slimvox.load(finished / name)
        assert 0.995 * share <= encoder.parameter_count / dense.parameter_count <= share
        kept_json = json.loads((finished / name / "kept_indices.json").read_text())
        kept = KeptIndices.from_dict(kept_json, dense.anatomy)
        assert kept.anatomy(dense.anatomy) == encoder.anatomy
        card = (finished / name / "README.md").read_text()
        assert f"keep = {share}" in card and f"cut out of the student after step {CUTS[name]} of 9" in card
        steps = [(record["stage"], record["step"]) for record in log(finished / name)]
        first = [("prune", step) for step in range(1, CUTS[name] + 1)]
        assert steps == first + [("finish", step) for step in range(1, SETTINGS["finish.steps"] + 1)]
        assert run(["inspect", str(finished / name), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["parameters"] == encoder.parameter_count
    targets = {record["step"]: record["target_sparsity"] for record in log(finished)}
    assert {name: 1 - targets[step] for name, step in CUTS.items()} == pytest.approx(SIZES)
    assert not list(finished.rglob("*.pt"))
    assert sorted(each.label for each in read_runs([finished])) == sorted(SIZES)
    assert all(each.finished for each in read_runs([finished]))
    assert run(["report", str(finished), "--out", str(tmp_path / "page.html")]) == 0
    assert "3 runs compared" in (tmp_path / "page.html").read_text()


def test_the_last_size_is_what_a_run_for_it_alone_gives_on_the_same_schedule(
    teacher: Path, speech: Path, tmp_path: Path
) -> None:
    several = make_sizes(teacher, speech, tmp_path / "several", sizes=["20%"])
    alone = make_run(tmp_path / "alone", teacher, speech, settings=STEPS, target_parameters="20%")
    assert (
        several.directory == tmp_path / "several" / "keep-20" and several.sizes[0].encoder is several.encoder
    )
    for name, tensor in alone.encoder.state_dict().items():
        assert torch.equal(tensor, several.encoder.state_dict()[name])


@pytest.mark.parametrize(
    ("title", "step"),
    [
        ("prune", 3),
        ("prune", 4),
        ("finish keep-50", 2),
        ("finish keep-20", 4),
    ],
)
def test_an_interrupted_run_ends_with_the_same_weights(
    title: str,
    step: int,
    finished: Path,
    teacher: Path,
    speech: Path,
    tmp_path: Path,
) -> None:
    """Ctrl-C before, at and after a cut, and in each stage 2; the same call goes on and ends bit-identically."""
    with interrupted_after(title, step):
        make_sizes(teacher, speech, tmp_path / "out")
    assert not (tmp_path / "out" / "keep-20" / "config.json").exists()
    result = make_sizes(teacher, speech, tmp_path / "out")
    assert weights(tmp_path / "out") == weights(finished)
    assert [each.directory.name for each in result.sizes] == list(SIZES)
    for name in SIZES:
        assert log(tmp_path / "out" / name) == log(finished / name)
        for file in ("kept_indices.json", "README.md", "config.json"):
            assert (tmp_path / "out" / name / file).read_bytes() == (finished / name / file).read_bytes()


@pytest.mark.parametrize(
    ("written", "lines"), [("keep-28/run/cut.pt", 0), ("keep-28/run/log.jsonl", CUTS["keep-28"] + 2)]
)
def test_a_killed_run_ends_with_the_same_weights(
    written: str, lines: int, finished: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    """SIGKILL of a process of its own, once it has cut a size, and in a stage 2 that follows a finished one."""
    out = tmp_path / "out"
    code = (
        "import time, slimvox\n"
        "from pathlib import Path\n"
        "from tiny_runs import make_run\n"
        "from slimvox.pruning import stage\n"
        "step = stage.Stage._train_step\n"
        "stage.Stage._train_step = lambda self, batches: (time.sleep(0.2), step(self, batches))[1]\n"
        f"make_run(Path({str(out)!r}), Path({str(teacher)!r}), Path({str(speech)!r}), settings={STEPS!r},"
        " sizes='50%,28%,20%', checkpoint_seconds=0)\n"
    )
    kill_when(code, out / written, lines)
    assert (out / "keep-50" / "model.safetensors").exists() == bool(lines)
    assert not (out / "keep-28" / "model.safetensors").exists()
    make_sizes(teacher, speech, out)
    assert weights(out) == weights(finished)


def test_a_full_disk_at_a_cut_is_made_good(
    finished: Path, teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, save = tmp_path / "out", torch.save

    def failing(state: object, file: Any) -> None:
        if Path(file.name).parent.parent.name == "keep-28":
            file.write(b"half of it")
            raise OSError(28, "No space left on device")
        save(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(checked_files.torch, "save", failing)
        with pytest.raises(slimvox.SlimvoxError, match="disk full"):
            make_sizes(teacher, speech, out, checkpoint_seconds=0)
    left = [str(path.relative_to(out)) for path in sorted(out.rglob("*.*")) if path.suffix in (".pt", ".tmp")]
    assert left == [
        "keep-50/run/backup/cut.pt",
        "keep-50/run/cut.pt",
        "run/backup/checkpoint.pt",
        "run/checkpoint.pt",
    ]
    make_sizes(teacher, speech, out)
    assert weights(out) == weights(finished)


def test_a_finished_run_or_that_of_other_sizes_is_left_alone(
    finished: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    before = weights(finished)
    with pytest.raises(slimvox.SlimvoxError, match=r"finished run of another command \(different seed\)"):
        make_sizes(teacher, speech, finished, seed=1)
    assert weights(finished) == before
    with interrupted_after("prune", 1):
        make_sizes(teacher, speech, tmp_path / "out")
    with pytest.raises(slimvox.SlimvoxError, match=r"another command.*sizes"):
        make_sizes(teacher, speech, tmp_path / "out", sizes="60%,28%,20%")


def test_sizes_in_macs_and_of_a_pruned_encoder(finished: Path, speech: Path, tmp_path: Path) -> None:
    result = make_run(
        tmp_path / "out",
        finished / "keep-50",
        speech,
        settings={"target.kind": "macs", "target.seconds": 10.0},
        sizes=[0.125, 0.2],
        max_steps=4,
    )
    assert [each.directory.name for each in result.sizes] == ["keep-20", "keep-12.5"]
    for share, each in zip((0.2, 0.125), result.sizes, strict=True):
        assert 0.995 * share <= each.macs_10s / each.macs_10s_dense <= share


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": ""}, "empty"),
        ({"sizes": []}, "empty"),
        ({"sizes": "50%,0%"}, "between 0 and 100%.*'0%'"),
        ({"sizes": "50%,100%"}, "'100%'"),
        ({"sizes": [0.5, 1.5]}, "'1.5'"),
        ({"sizes": [0.5, -0.1]}, "'-0.1'"),
        ({"sizes": "50%,26M"}, "'26M'"),
        ({"sizes": "half"}, "'half'"),
        ({"sizes": "28%,50%,0.28"}, "28% in it more than once"),
        ({"sizes": "50%,0.1%"}, "cannot be reached"),
        ({"target_parameters": "28%"}, "only one of"),
        ({"target_speed": "2x"}, "only one of"),
        ({"control": "random"}, "a control learns no gates"),
    ],
)
def test_bad_requests_say_what_to_do(
    arguments: dict[str, Any], message: str, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    with pytest.raises(slimvox.SlimvoxError, match=message):
        make_sizes(teacher, speech, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_the_command(teacher: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [f"{name}={value}" for name, value in SETTINGS.items()]
    command = ["prune", str(teacher), str(speech), "--out", str(tmp_path / "out"), "--recipe", "quick"]
    assert run([*command, "--device", "cpu", "--sizes", "50%,28%", "--set", *overrides]) == 0
    said = capsys.readouterr().out
    assert "keep-50" in said and "keep-28" in said and "at the end" in said
    assert slimvox.load(tmp_path / "out" / "keep-28").parameter_count
    assert run([*command, "--device", "cpu", "--sizes", "50%,28%", "--target-macs", "20%"]) == 2
