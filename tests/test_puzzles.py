"Puzzles of the lessons: each stub fails, each folded solution passes, typical mistakes are named."

import ast
import importlib.util
import itertools
import json
import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "nbs").rglob("[0-9][0-9]_*.ipynb"), key=lambda path: path.name)
sys.path.insert(0, str(ROOT / "nbs"))  # where `checkers` lies
spec = importlib.util.find_spec("checkers")
spec.loader.exec_module(checkers := importlib.util.module_from_spec(spec))
SOLUTION = re.compile(r"<summary>Solution</summary>\s+```python\n(.+?)```", re.DOTALL)


def cells(path) -> list[tuple[str, str]]:
    "(kind, source) of each cell."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [(c["cell_type"], "".join(c["source"])) for c in notebook["cells"]]


def puzzles(path) -> list[tuple[str, str, str]]:
    "(stub, call of the checker, text above) of each cell that begins with `# puzzle`."
    found, there = [], cells(path)
    for (_, above), (kind, source) in itertools.pairwise(there):
        if kind == "code" and source.startswith("# puzzle"):
            *stub, check = ast.parse(source).body
            found.append(("\n".join(map(ast.unparse, stub)), ast.unparse(check), above))
    return found


def names(path) -> dict:
    "What a reader has when the puzzles begin: the lesson's imports and its checkers."
    code = [source for kind, source in cells(path) if kind == "code"]
    nodes = [node for source in code for node in ast.parse(source).body]
    wanted = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    checkers = [source for source in code if source.startswith("# checkers")]
    there: dict = {}
    exec("\n".join([*map(ast.unparse, wanted), *checkers]), there)
    return there


PRIOR = "s.masked_fill(~t, -torch.inf).log_softmax(1)"
PUZZLES = [
    pytest.param(path, *puzzle, id=f"{path.stem}-{i}")
    for path in LESSONS
    for i, puzzle in enumerate(puzzles(path), 1)
]


@pytest.mark.parametrize("path, stub, check, above", PUZZLES)
def test_a_stub_fails_and_the_solution_passes(path, stub, check, above, capsys):
    there = names(path)
    exec(stub, there)
    exec(check, there)
    assert capsys.readouterr().out.startswith("✗ ")
    assert "<summary>Hint</summary>" in above
    exec(SOLUTION.search(above)[1], there)
    exec(check, there)
    assert capsys.readouterr().out == "✓ right\n"


def test_the_first_lesson_has_three_puzzles_and_the_others_twelve():
    assert len(puzzles(ROOT / "nbs/01_one_page.ipynb")) == 3
    asked = [ast.unparse(ast.parse(call)) for _, _, call, _ in (p.values for p in PUZZLES)]
    asked = re.findall(r"checkers\.(\w+)\.check", " ".join(asked))
    assert sorted(asked) == sorted(CHECKERS) and len(asked) >= 12


CHECKERS = {name: p for name, p in vars(checkers).items() if isinstance(p, checkers.Puzzle)}
MISTAKES = [
    pytest.param(puzzle, *mistake, id=f"{name}-{i}")
    for name, puzzle in CHECKERS.items()
    for i, mistake in enumerate(puzzle.mistakes)
]


@pytest.mark.parametrize("puzzle, message, wrong", MISTAKES)
def test_each_typical_mistake_gets_its_own_message(puzzle, message, wrong, capsys):
    puzzle.check(wrong)
    said = capsys.readouterr().out
    assert said.startswith("✗ ") and len(said) > 15
    others = [p for p in puzzle.mistakes if p[1] is not wrong and isinstance(p[0], str)]
    assert said == f"✗ {message}\n" if isinstance(message, str) else "{" not in said
    assert isinstance(message, str) or said[2:-1] not in [m for m, _ in others]


@pytest.mark.parametrize("name", CHECKERS)
def test_differences_are_shown_in_red_and_nothing_else_is(name):
    puzzle = CHECKERS[name]
    assert "background" not in puzzle.show(puzzle.right).data
    assert "background" in puzzle.show(puzzle.mistakes[0][1]).data
    assert "background" in puzzle.show(lambda *arguments: ...).data


@pytest.mark.parametrize(
    "name, attempt, message",
    [
        ("inside", "lambda s, a, b: (s[:, 0] < b) & (s[:, 1] > a)", "only half inside"),
        ("pack", "lambda c, t, m: list(range(len(c) + 1))", "the shape is [6]"),
        ("ict", "lambda s: -s.log_softmax(1)[:, 0].mean()", "right for row 0 only"),
        ("top_k", "lambda s, k, e: s.argsort(1, descending=True)[:, :k]", "its own block"),
        ("top_k", "lambda s, k, e: s.topk(k)", "the shape is [2, 2, 2]"),
        ("p_z", "lambda x, z, v: torch.einsum('bd,bkd->bk', x, z).softmax(1)", "mask before"),
        ("token_form", "lambda p, y, r: ((p.exp()[..., None] * y).sum(1)) * r", "Jensen"),
        ("reward", "lambda p, y: (p + y).softmax(1)", "Σ r = 1.0, it must be 0"),
        ("ru", "lambda y: y - y[:, -1, None]", "∅ is column 0"),
        (
            "realm_step",
            "lambda x, z, s, y: -(s.softmax(1) * y.exp()).sum(1).log().mean()",
            "you took the index's scores",
        ),
        ("realm_step", "lambda x, z, s, y: 1.5", "a tensor with one number"),
        ("due", "lambda step, every: step and not step % every", "step 0 trains without"),
    ],
)
def test_a_readers_own_mistake_is_named(name, attempt, message, capsys):
    CHECKERS[name].check(eval(attempt, {"torch": torch}))
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(
    "checker, attempt, message",
    [
        ("check_marginal", f"lambda s, t, y: ({PRIOR}.exp() * y).sum(1)", "you averaged log p"),
        ("check_marginal", "lambda s, t, y: (s.log_softmax(1) + y).logsumexp(1)", "mask before"),
        (
            "check_marginal",
            "lambda s, t, y: (s.log_softmax(1) + y).masked_fill(~t, -torch.inf).logsumexp(1)",
            "mask before the softmax",
        ),
        ("check_marginal", f"lambda s, t, y: ({PRIOR} + y).logsumexp(1).exp()", "its logarithm"),
        ("check_marginal", f"lambda s, t, y: -({PRIOR} + y).logsumexp(1)", "the other sign"),
        ("check_marginal", f"lambda s, t, y: ({PRIOR} + y).exp().sum(1).log()", "stay in log"),
        ("check_marginal", f"lambda s, t, y: ({PRIOR} + y).sum()", "the shape is [], it must be"),
        ("check_marginal", f"lambda s, t, y: ({PRIOR} - y).logsumexp(1)", "row 0:"),
        ("check_top", "lambda s, own: s.topk(2).indices", "its own document, 0"),
        ("check_top", "lambda s, own: s.topk(3).indices[:, 1:]", "its own document, 2"),
        (
            "check_top",
            "lambda s, own: s.scatter_(1, own[:, None], -torch.inf).topk(2).indices",
            "work on a copy",
        ),
        (
            "check_top",
            "lambda s, own: s.scatter(1, own[:, None], 0.0).topk(2).indices",
            "sentence 2 came back with its own document",
        ),
        (
            "check_top",
            "lambda s, own: s.scatter(1, own[:, None], -torch.inf).topk(2).indices.flip(1)",
            "row 0: [3.0, 2.0], not [2.0, 3.0]",
        ),
        ("check_pull", "lambda s, y: (s + y).softmax(1)", "subtract the prior"),
        ("check_pull", "lambda s, y: s.softmax(1) - (s + y).softmax(1)", "sign"),
        ("check_pull", "lambda s, y: y - y[:, :1]", "this is RU"),
        (
            "check_pull",
            "lambda s, y: (y.exp() / (s.softmax(1) * y.exp()).sum(1, True) - 1) * s.softmax(1)",
            "0/0",
        ),
        ("check_pull", "lambda s, y: y - s", "row 0:"),
    ],
)
def test_a_typical_mistake_is_named(checker, attempt, message, capsys):
    there = names(ROOT / "nbs/01_one_page.ipynb")
    there[checker](eval(attempt, there))
    out = capsys.readouterr().out
    assert out.startswith("✗ ") and message in out


def test_the_course_in_figures_is_up_to_date():
    spec = importlib.util.spec_from_file_location("course", ROOT / "tools/course.py")
    spec.loader.exec_module(course := importlib.util.module_from_spec(spec))
    assert course.main(["--check"]) == 0
    for number in course.STORY[1:]:
        path = next((ROOT / "nbs").rglob(f"{number}_*.ipynb"))
        promised = re.search(r"It takes about (\d+) minutes", cells(path)[0][1])
        assert abs(int(promised[1]) - course.count(path)["minutes"]) <= 5, path.name
