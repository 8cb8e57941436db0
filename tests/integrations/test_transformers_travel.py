"""Directories that leave: code that travels with them, saving again, and the hub."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, AutoModelForCTC, dynamic_module_utils

import slimvox
from slimvox.checkpoint.carry import load_with_head
from slimvox.encoder.pretrained import PretrainedMethods
from slimvox.hf.directory_format import AUTO_MAP, CODE_FILES, ENCODER_CODE, WHISPER_AUTO_MAP
from slimvox.hf.travelling_code import join, parse_module, travelling_files
from without_slimvox import run_without_slimvox

ELSEWHERE = """
import sys
directory, large, inputs, out = sys.argv[1:]
from types import SimpleNamespace
import torch
from huggingface_hub import HfApi, ModelCard
from transformers import AutoModel, AutoModelForAudioClassification

inputs = torch.load(inputs)
with torch.no_grad():
    model = AutoModel.from_pretrained(directory, trust_remote_code=True)
    states = model(**inputs, output_hidden_states=True).hidden_states
    fields = {"num_labels": 3, "use_weighted_layer_sum": True, "trust_remote_code": True}
    head = AutoModelForAudioClassification.from_pretrained(directory, **fields).eval()
    large = AutoModel.from_pretrained(large, trust_remote_code=True)
    states += large(**inputs, output_hidden_states=True).hidden_states
    head.save_pretrained(out)
    again = AutoModelForAudioClassification.from_pretrained(out, trust_remote_code=True)
    uploaded = {}
    HfApi.create_repo = lambda *_, **__: SimpleNamespace(repo_id="someone/small")
    HfApi.create_commit = lambda *_, operations, **__: uploaded.update(
        (each.path_in_repo, open(each.path_or_fileobj, "rb").read()) for each in operations
    )
    ModelCard.load = lambda *_, **__: ModelCard("# A card")
    again.push_to_hub("someone/small")
    for name in ("configuration_slimvox.py", "modeling_slimvox.py"):
        assert uploaded[name] == open(f"{directory}/{name}", "rb").read()
    logits = head(**inputs).logits
    assert torch.equal(logits, again(**inputs).logits)
beside = set(sys.modules) & {f"{module.rpartition('.')[0]}.{name}" for module in [type(model).__module__]
                             for name in ("configuration_slimvox", "modeling_slimvox")}
assert len(beside) == 2 and not any(name.startswith("slimvox") for name in sys.modules)
torch.save({"states": states, "logits": logits, "module": type(model).__module__}, out + ".pt")
"""


@pytest.mark.usefixtures("kernels_of_this_processor")
def test_a_directory_loads_to_the_bit_where_slimvox_is_not_installed(
    pruned: Path, pruned_large: Path, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(batch, tmp_path / "inputs.pt")
    out = tmp_path / "saved-again"
    arguments = (pruned, pruned_large, tmp_path / "inputs.pt", out)
    run_without_slimvox(ELSEWHERE, *arguments, modules=tmp_path / "modules")
    theirs = torch.load(f"{out}.pt")
    assert theirs["module"].startswith("transformers_modules.")
    with torch.no_grad():
        encoders = (slimvox.load(pruned), slimvox.load(pruned_large))
        outputs = [encoder(batch["input_values"], batch["attention_mask"]) for encoder in encoders]
    ours = [states for output in outputs for states in output.hidden_states]
    for a, b in zip(theirs["states"], ours, strict=True):
        assert torch.equal(a, b)

    from transformers import AutoModelForAudioClassification

    head = AutoModelForAudioClassification.from_pretrained(out)
    assert type(head).__module__ == "slimvox.hf.heads"
    with torch.no_grad():
        assert torch.equal(head(**batch).logits, theirs["logits"])
    for name in ENCODER_CODE:
        assert (out / name).read_text() == travelling_files()[name]


def test_the_travelling_code_needs_nothing_but_torch_and_transformers() -> None:
    files = travelling_files()
    allowed = {"torch", "transformers", "huggingface_hub"} | set(sys.stdlib_module_names)
    for name, source in files.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert f"{node.module}.py" in files, name
            elif isinstance(node, ast.ImportFrom):
                assert str(node.module).partition(".")[0] in allowed, name
            elif isinstance(node, ast.Import):
                assert {alias.name.partition(".")[0] for alias in node.names} <= allowed, name


def test_definitions_travel_as_they_are_in_the_package() -> None:
    sections = {}
    for source in travelling_files().values():
        pieces = re.split(r"^# ---- (\S+) ----$", source, flags=re.MULTILINE)[1:]
        sections |= dict(zip(pieces[::2], pieces[1::2], strict=True))
    assert {"slimvox.structures.anatomy", "slimvox.encoder.model", "slimvox.hf.heads"} <= {*sections}
    assert len(ast.parse(sections.pop("slimvox.encoder.pretrained")).body) == 1  # see the next test
    for module, text in sections.items():
        own = {ast.dump(node) for node in ast.parse(inspect.getsource(importlib.import_module(module))).body}
        assert {ast.dump(node) for node in ast.parse(text).body} <= own, module


def test_methods_that_need_slimvox_stay_behind() -> None:
    (home,) = (source for source in travelling_files().values() if "class PretrainedMethods" in source)
    (stub,) = (node for node in ast.parse(home).body if getattr(node, "name", None) == "PretrainedMethods")
    assert isinstance(stub, ast.ClassDef) and len(stub.body) == 1
    assert ast.get_docstring(stub) == inspect.getdoc(PretrainedMethods)
    assert "slimvox.checkpoint" not in home and "AnyEncoder" not in home


def test_three_files_travel_that_hold_the_auto_classes_and_nothing_unused() -> None:
    files = travelling_files()
    assert tuple(files) == CODE_FILES
    references = (*AUTO_MAP.values(), *WHISPER_AUTO_MAP.values())
    trees = {name: ast.parse(source) for name, source in files.items()}
    for reference in references:
        home, _, name = reference.rpartition(".")
        assert name in {getattr(node, "name", None) for node in trees[f"{home}.py"].body}
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    defined = {
        node.name
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert defined - used == {each.rpartition(".")[2] for each in references} - used
    assert "HasEncoder" not in defined and "record_choices" not in defined


@pytest.mark.parametrize(
    "line",
    [
        "import slimvox.encoder",
        "from slimvox import encoder",
        "from . import a",
        "from slimvox.encoder.model import SpeechEncoder as Encoder",
        "def f(): from slimvox.encoder.model import SpeechEncoder",
    ],
)
def test_imports_that_cannot_travel_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"here, line 2: .* must be imported as"):
        parse_module(f"import torch\n{line}\n", "here")


def joined(*sources: str, wanted: str = "wanted") -> str:
    modules = [parse_module(source, f"slimvox.{name}") for name, source in zip("abc", sources, strict=False)]
    return join({"file.py": modules}, {wanted})["file.py"]


def test_only_what_is_needed_is_joined() -> None:
    first = '"""First."""\n\nimport os\nimport math\n\nPI = math.pi\n"""Half a turn."""\nTEXT = os.name\n'
    second = (
        "from slimvox.a import PI\n\n\n# A comment.\ndef wanted():\n    return PI\n\n\ndef spare(): pass\n"
    )
    source = joined(first, second)
    assert source.startswith('"""Part of slimvox')
    assert "import math\n" in source and "import os" not in source
    assert "# First\n" in source and '"""Half a turn."""' in source
    assert "# A comment.\ndef wanted" in source and "spare" not in source and "slimvox.a import" not in source
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    assert namespace["wanted"]() == math.pi


def test_statements_with_effects_travel_unasked() -> None:
    source = joined(
        "names = []\nnames.append(1)\nregistered = f(names)\n@register\ndef g(): pass\nspare = 1\n"
    )
    assert "append" in source and "registered" in source and "def g" in source and "spare" not in source


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("def _size(): ...\n", "def _size(): ...\n", r"`_size` must have one meaning .* `slimvox.a._size`"),
        ("from math import sin\n", "from numpy import sin\n", r"`sin` .* both `math.sin` and `numpy.sin`"),
        ("import torch\n", "torch = 1\n", r"`torch` .* both `torch` and `slimvox.b.torch`"),
        ("x = 1\n", "from slimvox.a import part\n", r"slimvox.b imports part, which must be defined"),
        ("list = 1\n", "", r"`slimvox.a.list` must not have the name of a builtin"),
    ],
)
def test_names_with_two_meanings_are_refused(first: str, second: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        joined(first, second)


def test_directories_that_name_the_configuration_in_the_model_file_load(
    pruned: Path, batch: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    shutil.copytree(pruned, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"]["AutoConfig"] = "modeling_slimvox.SlimvoxConfig"
    (tmp_path / "config.json").write_text(json.dumps(config))
    expected = AutoModel.from_pretrained(pruned)(**batch).last_hidden_state
    for trusted in (False, True):
        model = AutoModel.from_pretrained(tmp_path, trust_remote_code=trusted)
        assert torch.equal(model(**batch).last_hidden_state, expected)
    ours = slimvox.load(tmp_path)
    assert torch.equal(ours(batch["input_values"], batch["attention_mask"]).last_hidden_state, expected)


def test_saving_again_keeps_everything(pruned: Path, batch: dict[str, Tensor], tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(pruned)
    with torch.no_grad():
        model.layer_norm.weight.mul_(2)
    model.save_pretrained(tmp_path)
    for name in ("README.md", "kept_indices.json", "preprocessor_config.json", *ENCODER_CODE):
        assert (tmp_path / name).read_bytes() == (pruned / name).read_bytes()
    before, after = (json.loads((path / "config.json").read_text()) for path in (pruned, tmp_path))
    assert before == after
    assert set(load_file(tmp_path / "model.safetensors")) == set(load_file(pruned / "model.safetensors"))
    expected = model(**batch).last_hidden_state
    assert torch.equal(AutoModel.from_pretrained(tmp_path)(**batch).last_hidden_state, expected)
    ours = slimvox.load(tmp_path)
    assert torch.equal(ours(batch["input_values"], batch["attention_mask"]).last_hidden_state, expected)
    assert ours.dense_anatomy == slimvox.load(pruned).dense_anatomy


def test_a_model_with_a_head_is_saved_and_its_encoder_loads_alone(pruned: Path, tmp_path: Path) -> None:
    model = AutoModelForCTC.from_pretrained(pruned, vocab_size=7).eval()
    model.save_pretrained(tmp_path)
    waveforms = torch.randn(1, 2000)
    again = AutoModelForCTC.from_pretrained(tmp_path)
    assert torch.equal(again(waveforms).logits, model(waveforms).logits)
    expected = slimvox.load(pruned)(waveforms).last_hidden_state
    assert torch.equal(slimvox.load(tmp_path)(waveforms).last_hidden_state, expected)
    assert torch.equal(AutoModel.from_pretrained(tmp_path)(waveforms).last_hidden_state, expected)
    assert slimvox.load(tmp_path).anatomy == slimvox.load(pruned).anatomy


def test_a_model_saved_in_half_precision_loads_in_slimvox(pruned: Path, tmp_path: Path) -> None:
    AutoModel.from_pretrained(pruned, dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path).dtype == torch.bfloat16
    encoder = slimvox.load(tmp_path)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


class Hub:
    """Takes what would be uploaded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, card: str | None = None) -> None:
        self.files: dict[str, bytes] = {}

        class Created:
            repo_id = "someone/small"

        def commit(_: Any, *, operations: Any, **__: Any) -> None:
            for operation in operations:
                self.files[operation.path_in_repo] = Path(operation.path_or_fileobj).read_bytes()

        def load_card(*_: Any, **__: Any) -> ModelCard:
            if card is None:
                raise EntryNotFoundError("no README.md")
            return ModelCard(card)

        monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: Created())
        monkeypatch.setattr(HfApi, "create_commit", commit)
        monkeypatch.setattr(ModelCard, "load", load_card)


@pytest.mark.parametrize("way", ["push_to_hub", "save_pretrained"])
def test_pushing_uploads_code_and_card(
    way: str, pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(monkeypatch)
    model = AutoModel.from_pretrained(pruned)
    if way == "push_to_hub":
        model.push_to_hub("someone/small")
    else:
        model.save_pretrained(tmp_path / "small", push_to_hub=True, repo_id="someone/small")
    expected = {*ENCODER_CODE, "config.json", "model.safetensors", "preprocessor_config.json"}
    assert set(hub.files) == expected | {"README.md", "kept_indices.json"}
    assert hub.files["README.md"] == (pruned / "README.md").read_bytes()


def test_pushing_leaves_a_card_that_is_on_the_hub_alone(
    pruned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(monkeypatch, card="---\nlicense: mit\n---\n# My own words\n")
    AutoModel.from_pretrained(pruned).push_to_hub("someone/small")
    assert b"My own words" in hub.files["README.md"]


def cached(cache: Path, *directories: Path) -> None:
    """A cache of the hub with the branches `v0`, `v1` and so on of `someone/small`; `main` is `v0`."""
    repository = cache / "models--someone--small"
    (repository / "refs").mkdir(parents=True)
    for number, directory in enumerate(directories):
        commit = str(number) * 40
        shutil.copytree(directory, repository / "snapshots" / commit)
        for name in (f"v{number}", "main")[: 1 if number else 2]:
            (repository / "refs" / name).write_text(commit)


@pytest.mark.parametrize("way", ["model", "encoder"])
def test_a_revision_is_saved_with_its_own_files(way: str, pruned: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        shutil.copytree(pruned, path)
        (path / "README.md").write_text(f"# {path.name}")
    cached(tmp_path / "cache", first, second)
    model = AutoModelForCTC.from_pretrained(
        "someone/small", revision="v1", cache_dir=tmp_path / "cache", local_files_only=True, vocab_size=7
    )
    (model if way == "model" else model.as_encoder()).save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "README.md").read_text() == "# second"
    assert model.origin == model.slimvox.origin == model.as_encoder().origin


def test_the_folder_may_change_between_loading_and_saving(
    pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(pruned, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    model = AutoModel.from_pretrained("model")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model.save_pretrained("saved")
    assert Path("saved/kept_indices.json").read_bytes() == (pruned / "kept_indices.json").read_bytes()
    shutil.rmtree(tmp_path / "model")
    with pytest.warns(UserWarning, match="no longer there"):
        model.save_pretrained("again")


def test_a_head_that_was_carried_over_is_saved_with_the_files_of_the_encoder(
    pruned: Path, tmp_path: Path
) -> None:
    AutoModelForCTC.from_pretrained(pruned, vocab_size=7).save_pretrained(tmp_path / "ctc")
    load_with_head(tmp_path / "ctc").save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "kept_indices.json").is_file()
