"Two processes give one process's loss, gradient and search results."
import json, os, subprocess, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    "What each of two processes found; CPU and gloo."
    out = tmp_path_factory.mktemp("processes")
    run = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(ROOT / "tests/processes.py"), str(out)], capture_output=True, text=True, timeout=240,
                         env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])})
    assert run.returncode == 0, run.stderr[-3000:]
    found = [json.loads((out / f"{r}.json").read_text()) for r in range(2)]
    assert all(f["world"] == 2 for f in found)
    return found


@pytest.mark.parametrize("what", ["ict", "ict, two towers", "realm, token", "realm, sequence"])
def test_loss_and_gradient_are_those_of_one_process(found, what): assert all(f[what] < 1e-5 for f in found), [f[what] for f in found]


@pytest.mark.parametrize("what", ["exact plain", "exact excluded", "flat plain", "flat excluded", "approximate", "fewer than k", "no query here"])
def test_search_in_shares_is_search_in_one(found, what): assert all(f[what] for f in found)


def test_gradients_travel_home_from_uneven_shares(found): assert all(f["uneven gather"] for f in found)
