"What lessons claim of trained towers holds, and fails when their weights are replaced by noise."

import importlib.util
from pathlib import Path

import matplotlib
import pytest
import torch

from realm_nb.towers import Towers

ROOT = Path(__file__).resolve().parents[1]
POCKET = ROOT / "data/pocket"
spec = importlib.util.spec_from_file_location("pocket", ROOT / "tools/pocket.py")
spec.loader.exec_module(pocket := importlib.util.module_from_spec(spec))
LESSONS = sorted(
    path
    for path in (ROOT / "nbs").rglob("[0-9][0-9]_*.ipynb")
    if any(source.startswith("# claim") for source in pocket.cells(path, "claim"))
)
real_load = Towers.load


@torch.no_grad()
def noise(folder, device="cpu") -> Towers:
    "The towers of `folder` with every weight drawn at random, as widely spread as it was."
    towers, g = real_load(folder, device), torch.Generator().manual_seed(0)
    for weight in towers.parameters():
        spread = weight.std() if weight.numel() > 1 else 1.0
        weight.copy_(torch.randn(weight.shape, generator=g) * spread)
    return towers


def judged(path, load, monkeypatch) -> list[bool]:
    "Whether each claim of the lesson `path` holds, with towers that `load` gives."
    matplotlib.use("agg")
    monkeypatch.chdir(path.parent)
    monkeypatch.syspath_prepend(ROOT / "nbs")  # for `checkers`
    monkeypatch.setattr(Towers, "load", load)
    start, after = (load(POCKET / name).eval() for name in ("ict", "realm"))
    there: dict = {"__name__": "lesson"}
    if path.stem == "70_pretrain":  # which trains them; here they are those of the tool
        there["trained"] = {"after ICT": start, "REALM": after, "frozen": start, "random": start}
    held = []
    for source in pocket.cells(path, "pocket", "claim"):
        try:
            exec(source, there)
        except AssertionError:
            if not source.startswith("# claim"):
                raise
            held.append(False)
        else:
            held += [True] * source.startswith("# claim")
    return held


def test_retrieval_pretraining_and_evaluation_claim_something():
    assert {"45_retrieval", "70_pretrain", "80_evaluate"} <= {path.stem for path in LESSONS}


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_claims_hold_with_the_trained_weights_and_fail_with_noise(path, monkeypatch):
    assert all(judged(path, real_load, monkeypatch))
    assert not any(judged(path, noise, monkeypatch))
