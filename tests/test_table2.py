"Table 2: rows share what they have in common, are measured on one set, and go on after a stop."

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from realm_nb.qa.table2 import FLAGS, LABELS, MIXED, PAPER, inversions, rank_correlation

ROWS = "realm,realm_retriever,realm_encoder,orqa,random,no_ict,no_null"


def table2(environment, folder, *more):
    command = [sys.executable, "-m", "realm_nb", "table2", "--recipe", "smoke", "--run"]
    command += [str(folder), "--tests", "mini", "--corpus", "mini", "--seeds", "1", *more]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def made(smoke_environment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables") / "table2"
    done = table2(smoke_environment, folder, "--rows", ROWS, "--examples", "40")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_every_row_is_in_the_table_and_in_the_folder(made):
    folder, said = made
    text = (folder / "table2.md").read_text()
    assert text.strip() in said
    for row in ROWS.split(","):
        assert f"| {LABELS[row]} |" in text
        assert (folder / "seed0" / f"{row}.npz").exists()
    assert "rank correlation" in text and (folder / "figure4.png").stat().st_size > 5000


def test_rows_share_the_stages_before_realm_and_no_others(made):
    folder, _ = made

    def lines(row, stage):
        every = (folder / "seed0" / row / "metrics.jsonl").read_text().splitlines()
        found = [m for m in map(json.loads, every) if m["stage"] == stage]
        return [m["seconds"] for m in found]

    assert lines("random", "ict") == lines("realm", "ict") != []
    assert lines("random", "pretrain") != lines("realm", "pretrain")
    assert lines("no_ict", "warmup") == lines("realm", "warmup") and not lines("no_ict", "ict")


def test_mixed_rows_take_their_halves_from_two_moments(made):
    folder, _ = made
    rows = {row: np.load(folder / "seed0" / f"{row}.npz") for row in ROWS.split(",")}
    for row, (retriever, encoder) in MIXED.items():
        same = "realm" if retriever == "after" else "orqa"
        assert (rows[row]["recall@5"] == rows[same]["recall@5"]).all()
        reads = "realm" if encoder == "after" else "orqa"
        assert np.allclose(rows[row]["ll_null"], rows[reads]["ll_null"], atol=1e-4)
    assert (rows["no_null"]["p_null"] == 0).all() and (rows["realm"]["p_null"] > 0).all()


def test_a_second_call_computes_nothing_and_says_the_same(made, smoke_environment):
    folder, said = made
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.npz")}
    again = table2(smoke_environment, folder, "--rows", ROWS, "--examples", "40")
    assert again.returncode == 0 and again.stdout == said
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*.npz")}
    assert not (folder / "seed0" / "random" / "checkpoints").exists()


@pytest.mark.parametrize(
    "flags, needle",
    [
        (("--rows", "realm,nonsense"), "nonsense"),
        (("--options", "--pretrain.stops 3"), "stops"),
        (("--options", "'open"), "close the quotation"),
        (("--recipe", "slow"), "slow"),
    ],
)
def test_a_wrong_word_is_one_line_before_any_work(flags, needle, tmp_path):
    done = table2({**os.environ, "REALM_NB_QUIET": "1"}, tmp_path / "new", *flags)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert needle in done.stderr and not (tmp_path / "new").exists()


def test_the_order_of_rows_is_compared_as_spearman_does():
    assert rank_correlation([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [30, 20, 10]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert rank_correlation([1, 2, 2], [1, 2, 3]) == pytest.approx(0.866, abs=1e-3)
    assert inversions({"a": 1, "b": 2}, {"a": 2, "b": 1}) == [("a", "b")]
    assert set(PAPER) <= set(LABELS) and set(LABELS) == set(FLAGS) | set(MIXED)
