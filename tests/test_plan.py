"The plan's formulas against what a small run really takes."

import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig

from realm_nb.core.config import settings
from realm_nb.plan import TEXT, WIKIPEDIA, PlanOptions, disk_bytes, plan, sizes, step_memory
from realm_nb.workspace import Workspace, recipe


@pytest.fixture
def workspace(smoke_run, smoke_environment, monkeypatch):
    monkeypatch.setenv("REALM_NB_HOME", smoke_environment["REALM_NB_HOME"])
    return Workspace.open(smoke_run)


def bert_of(workspace):
    raw = json.loads((Path(workspace.base) / "config.json").read_text())
    return BertConfig(**raw)


def test_parameters_are_those_of_the_towers(workspace):
    towers = workspace.towers()
    counted = [sum(p.numel() for p in t.parameters()) for t in (towers.embedder, towers.encoder)]
    assert list(sizes(workspace.config, bert_of(workspace))[:2]) == counted


def test_a_checkpoint_is_as_large_as_planned(workspace):
    planned = disk_bytes(workspace.config, bert_of(workspace), len(workspace.store))["checkpoints"]
    found = sum(p.stat().st_size for p in workspace.run.checkpoints.rglob("*.safetensors"))
    assert 0.6 < found / planned < 1.2, (found, planned)  # `keep` says at most


def test_the_text_is_as_large_as_planned(workspace):
    store = workspace.store
    found = sum(p.stat().st_size for p in store.folder.glob("*.bin")) / len(store.token_ids)
    assert 0.6 < found / TEXT < 1.6, found


def test_a_step_holds_what_is_planned(workspace):
    "The formula is for full lengths and with dropout; these have less of both."
    from realm_nb.pretrain import realm_step

    c, realm, saved = workspace.config, workspace.realm(), []
    realm.towers.requires_grad_(True).train()
    examples, seen = workspace.held_out_examples(8), set()

    def note(t):
        if t.untyped_storage().data_ptr() not in seen:
            seen.add(t.untyped_storage().data_ptr())
            saved.append(t.untyped_storage().nbytes())
        return t

    index = workspace.index()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        realm_step(realm, examples, index, c.pretrain.candidates)
    c.pretrain.batch, c.precision = 8, "fp32"
    ratio = step_memory(c, bert_of(workspace), "pretrain") / sum(saved)
    assert 0.4 < ratio < 4, ratio


def test_more_gpus_take_less_time_and_memory():
    few, many = (
        plan(recipe("paper"), BertConfig(), WIKIPEDIA, PlanOptions(gpus=n)) for n in (8, 64)
    )
    hours = [float(lines["in all"].split()[0]) for lines in (few, many)]
    assert 6 < hours[0] / hours[1] < 10
    assert "DOES NOT FIT" in few["memory of a GPU"] and "fits" in many["memory of a GPU"]


def test_plan_runs_nothing_and_writes_nothing(monkeypatch, tmp_path, capsys):
    from realm_nb.train import main

    monkeypatch.chdir(tmp_path)
    assert main(["--recipe", "paper", "--plan", "--gpus", "8"]) == 0
    said = capsys.readouterr().out
    for name in ("towers", "pretrain", "in all", "memory of a GPU", "disk", "refresh", "traffic"):
        assert f"{name}" in said
    assert main(["--plan", "--corpus", "somewhere.jsonl"]) == 2
    assert "--blocks" in capsys.readouterr().err
    assert not list(tmp_path.iterdir()) and settings(recipe("paper"))
