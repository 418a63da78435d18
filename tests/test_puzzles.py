"Puzzles of the lessons: each stub fails, each folded solution passes, typical mistakes are named."

import ast
import itertools
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "nbs").rglob("[0-9][0-9]_*.ipynb"), key=lambda path: path.name)
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


def test_the_first_lesson_has_three_puzzles():
    assert len(puzzles(ROOT / "nbs/01_one_page.ipynb")) == 3


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
