"""Is the library easy to read? Prints what is counted, and where a limit is passed (status 1).

What is said is counted in nodes of Python's syntax tree, however it is laid out."""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {
    "nodes": 127_500,
    "nodes a code line": 11.5,
    "lines over 100 columns": 0,
    "functions over 50 lines": 0,
    "functions over 7 parameters": 0,
    "docstrings that lean on a neighbour": 0,
    "tensor functions without shapes": 0,
}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
LEANS = re.compile(r"(The same|Same as|As above)\b")
TENSOR = re.compile(r"Tensor|ndarray|np\.|torch\.")


def code_lines(tree: ast.Module, lines: list[str]) -> list[str]:
    "The lines that are neither blank, nor a comment, nor in a docstring."
    hidden = set()
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTION, ast.ClassDef, ast.Module)) and ast.get_docstring(node):
            hidden.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    shown = (line.strip() for i, line in enumerate(lines, 1) if i not in hidden)
    return [line for line in shown if line and not line.startswith("#")]


def written_lines(tree: ast.Module, lines: list[str]) -> list[str]:
    "All lines but those of `__all__`, which nbdev lays out by itself."
    listed = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            listed.update(range(node.lineno, node.end_lineno + 1))
    return [line for i, line in enumerate(lines, 1) if i not in listed]


def judge_function(node, where: str) -> dict[str, list[str]]:
    "What is wrong with one function: `{limit: [where]}`."
    a, found = node.args, {}
    parameters = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    parameters = [p for p in parameters if p not in ("self", "cls")]
    signature = ast.unparse(a) + (ast.unparse(node.returns) if node.returns else "")
    doc = ast.get_docstring(node) or ""
    public_tensors = not node.name.startswith("_") and TENSOR.search(signature)
    faults = {
        "functions over 50 lines": node.end_lineno - node.lineno + 1 > 50,
        "functions over 7 parameters": len(parameters) > 7,
        "docstrings that lean on a neighbour": bool(LEANS.match(doc)),
        "tensor functions without shapes": bool(public_tensors) and "[" not in doc,
    }
    for name, wrong in faults.items():
        if wrong:
            found[name] = [f"{where}:{node.lineno} {node.name}"]
    return found


def measure(folder: Path) -> tuple[dict[str, float], dict[str, list[str]]]:
    "(figures, places that pass a limit) of the modules in `folder`."
    nodes = code = 0
    places: dict[str, list[str]] = {name: [] for name in LIMITS}
    for path in sorted(folder.rglob("*.py")):
        if path.name == "_modidx.py":
            continue
        text, where = path.read_text(encoding="utf-8"), path.relative_to(folder).as_posix()
        tree, lines = ast.parse(text), text.splitlines()
        nodes += sum(1 for _ in ast.walk(tree))
        code += len(code_lines(tree, lines))
        wide = [line for line in written_lines(tree, lines) if len(line) > 100]
        places["lines over 100 columns"] += [f"{where}: {line.strip()[:60]}…" for line in wide]
        for node in ast.walk(tree):
            if isinstance(node, FUNCTION):
                for name, found in judge_function(node, where).items():
                    places[name] += found
    figures = {name: float(len(found)) for name, found in places.items()}
    return figures | {"nodes": nodes, "nodes a code line": round(nodes / max(1, code), 1)}, places


def main(argv) -> int:
    "Print the table; exit status 1 if a limit is passed."
    figures, places = measure(Path(argv[0]) if argv else ROOT / "realm_nb")
    passed = [name for name, most in LIMITS.items() if figures[name] > most]
    for name, most in LIMITS.items():
        mark = "  ← too many" if name in passed else ""
        print(f"{name:36} {figures[name]:>9,g}   at most {most:,g}{mark}")
    for name in passed:
        print(*(f"  {name}: {place}" for place in places[name][:20]), sep="\n")
    return int(bool(passed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
