"""Break one thing at a time in the marginal and in exclusion, and see whether a test notices:
`python benchmarks/mutations.py marginal|retrieval [--list]`.

Works on a copy of the library in a temporary folder. Every operator, comparison, constant,
negation and softening call (`masked_fill`, `clamp_min`, …) of the functions below is changed, and
every statement deleted, one at a time; each mutant runs in a forked process, so that torch is
imported once. Exit status 1 if one survives that is not listed as equivalent."""

import argparse
import ast
import copy
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {
    "marginal": [
        "token_marginal",
        "sequence_log_p",
        "sequence_marginal",
        "realm_loss",
        "posterior",
        "document_reward",
        "token_reward",
        "retrieval_utility",
        "inspection",
        "marginal_vocabulary",
    ],
    "retrieval": ["top_k_valid", "merge_results", "overfetch", "search", "_best", "log_p_z"],
}
SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.Gt: ast.GtE,
    ast.Lt: ast.LtE,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
SLOW = ("plane", "damaged", "store", "repeated", "learned", "mapped", "settings")  # tests left out
SOFTENERS = {
    "masked_fill",
    "clamp_min",
    "exp",
    "log",
    "float",
    "clip",
    "log_softmax",
    "softmax",
    "sum",
    "to",
    "unsqueeze",
    "permutation",
}
# Mutants that change nothing a caller can see, and why; #2 is the second of one description.
EQUIVALENT = {
    "token_marginal: `0.0` -> `1.0`": "the first fill only keeps what is not finite out of the sum",
    "token_reward: `0.0` -> `1.0`": "likewise; the padding is multiplied by 0 afterwards",
    "_best: `new.amax(1) > scores[:, -1]` -> `new.amax(1) >= scores[:, -1]`": (
        "only which of two equal scores is kept"
    ),
}


def mutants(tree, names):
    "Yield (description, mutated tree) for every change."
    seen = {}
    functions = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.FunctionDef)
        and n.name in names
        and not (len(n.body) == 1 and isinstance(n.body[0], ast.Expr))
    ]
    for f in functions:
        for path, node in places(f):
            for text, change in changes(node):
                other = copy.deepcopy(tree)
                target = next(
                    n
                    for n in ast.walk(other)
                    if isinstance(n, ast.FunctionDef) and n.name == f.name and n.lineno == f.lineno
                )
                for field, i in path[:-1]:
                    target = getattr(target, field) if i is None else getattr(target, field)[i]
                field, i = path[-1]
                new = change(copy.deepcopy(node))
                if i is None:
                    setattr(target, field, new)
                else:
                    getattr(target, field)[i] = new
                text = f"{f.name}: {text}"
                seen[text] = seen.get(text, 0) + 1
                yield (
                    text + (f" #{seen[text]}" if seen[text] > 1 else ""),
                    ast.fix_missing_locations(other),
                )


def places(node, path=()):
    "Yield (path, node) for all below `node` but docstrings, decorators and annotations."
    for field, value in ast.iter_fields(node):
        if field in ("decorator_list", "returns", "annotation"):
            continue
        for i, child in (
            [(None, value)]
            if isinstance(value, ast.AST)
            else enumerate(value)
            if isinstance(value, list)
            else []
        ):
            if not isinstance(child, ast.AST) or (
                isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            ):
                continue
            here = (*path, (field, i))
            yield here, child
            yield from places(child, here)


def changes(node):
    "Yield (what, function from a node to its replacement)."
    say = lambda new: f"`{ast.unparse(node)}` -> `{ast.unparse(new)}`"

    def offer(make):
        new = make(copy.deepcopy(node))
        return say(new), make

    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in SWAPS:
        yield offer(lambda n: (setattr(n, "op", SWAPS[type(n.op)]()), n)[1])
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield offer(lambda n: (setattr(n, "ops", [SWAPS[type(n.ops[0])]()]), n)[1])
    if isinstance(node, ast.UnaryOp):
        yield offer(lambda n: n.operand)
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        yield offer(
            lambda n: ast.Constant(not n.value if isinstance(n.value, bool) else n.value + 1)
        )
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in SOFTENERS
        and not (isinstance(node.func.value, ast.Name) and node.func.value.id in ("torch", "np"))
    ):
        yield offer(lambda n: n.func.value)
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("min", "max")
        and len(node.args) == 2
    ):
        yield offer(
            lambda n: (setattr(n.func, "id", {"min": "max", "max": "min"}[n.func.id]), n)[1]
        )
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("top_k_valid", "overfetch")
        and not isinstance(node.args[-1], ast.Starred)
    ):
        yield offer(lambda n: (n.args.pop(), n)[1])
    if isinstance(node, ast.IfExp):
        yield offer(lambda n: n.body)
        yield offer(lambda n: n.orelse)
    if isinstance(node, (ast.Assign, ast.AugAssign, ast.If, ast.Raise)):
        yield f"delete `{ast.unparse(node).splitlines()[0]}`", lambda n: ast.Pass()


def fate(module: str, source: str, folder: Path, limit: float = 400) -> str:
    """`killed`, `SURVIVED` or `TIMED OUT` (which counts as survived).

    That is what the tests say of `source` as the module, in a fork."""
    (folder / "realm_nb" / f"{module}.py").write_text(source, encoding="utf-8")
    if pid := os.fork():
        began = time.time()
        while not (done := os.waitpid(pid, os.WNOHANG))[0]:
            if time.time() - began > limit:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return "TIMED OUT"
            time.sleep(0.02)
        return "killed" if done[1] else "SURVIVED"
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        import pytest

        tests = {"marginal": "test_marginal.py", "retrieval": "test_retrieval.py"}[module]
        options = [
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            "--rootdir",
            str(folder),
            f"{folder}/tests/{tests}",
        ]
        if module == "retrieval":
            options += [
                f"{folder}/tests/test_marginal.py::test_scores_are_float32_under_autocast",
                "-k",
                " and ".join(f"not {word}" for word in SLOW),
            ]
        status = int(pytest.main(options))
    finally:
        os._exit(status)


def main(argv=None) -> int:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("module", choices=TARGETS)
    p.add_argument("--list", action="store_true")
    p.add_argument("--only", default="", help="only mutants whose description holds this")
    p.add_argument("--part", default="1/1", help="i/n: every n-th mutant, from the i-th")
    a = p.parse_args(argv)
    source = (ROOT / "realm_nb" / f"{a.module}.py").read_text(encoding="utf-8")
    i, n = map(int, a.part.split("/"))
    tried = [m for m in mutants(ast.parse(source), TARGETS[a.module]) if a.only in m[0]][i - 1 :: n]
    if a.list:
        print(*(d for d, _ in tried), sep="\n")
        return 0
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        for name in ("realm_nb", "tests", "data"):
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        import faiss
        import hypothesis
        import torch
        import torch.distributed
        from transformers import BertModel  # noqa

        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True
        import realm_nb.ict  # and what they import
        import realm_nb.text.sources

        if a.module == "marginal":
            import realm_nb.retrieval  # noqa
        hypothesis.settings.register_profile(
            "find", phases=[hypothesis.Phase.generate], report_multiple_bugs=False, database=None
        )  # finding is enough: do not shrink
        hypothesis.settings.load_profile("find")
        torch.set_num_threads(1)
        faiss.omp_set_num_threads(1)
        if fate(a.module, source, folder) != "SURVIVED":
            print("the tests do not pass without any mutation")
            return 1
        alive = 0
        for text, tree in tried:
            said, excused = fate(a.module, ast.unparse(tree), folder), EQUIVALENT.get(text)
            if said != "killed" and excused:
                said, text = "equivalent", f"{text} ({excused})"
            alive += said in ("SURVIVED", "TIMED OUT")
            print(f"{said:10} {text}", flush=True)
    print(f"{len(tried)} mutants of {a.module}, {alive} survived")
    return int(alive > 0)


if __name__ == "__main__":
    sys.exit(main())
