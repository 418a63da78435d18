"""Make data/pocket: the towers of nbs/70_pretrain after ICT and after REALM, their corpus and log.

Runs the lesson's own cells (imports, `# pocket`, `# train`), about half a minute on one core."""

import ast
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]
POCKET = ROOT / "data/pocket"
LESSON = ROOT / "nbs/70_pretrain.ipynb"


def cells(path, *marks: str) -> list[str]:
    "The lesson's imports, library included, and its code cells that begin with one of `marks`."
    notebook = json.loads(Path(path).read_text(encoding="utf-8"))
    sources = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    exported = [s for s in sources if s.startswith("#| export")]
    nodes = [node for s in sources for node in ast.parse(s).body]
    imports = [ast.unparse(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    if exported:
        room = Path(path).relative_to(ROOT / "nbs").with_suffix("")
        name = room.name.split("_", 1)[1]
        imports.append(f"from realm_nb.{'.'.join([*room.parts[:-1], name])} import *")
    return [*imports, *(s for s in sources if s.startswith(tuple(f"# {m}" for m in marks)))]


def halve(path: Path):
    "Keep the numbers of a safetensors file in two bytes each."
    save_file({name: w.to(torch.float16) for name, w in load_file(path).items()}, path)


def main() -> int:
    sys.path.insert(0, str(ROOT / "nbs"))  # for `checkers`
    there: dict = {"__name__": "pocket"}
    for source in cells(LESSON, "pocket", "train"):
        exec(source, there)
    POCKET.mkdir(exist_ok=True)
    with open(POCKET / "documents.jsonl", "w", encoding="utf-8") as f:
        for d in there["documents"]:
            f.write(json.dumps({"title": d.title, "text": d.text}) + "\n")
    with open(POCKET / "metrics.jsonl", "w", encoding="utf-8") as f:
        for step, line in enumerate(there["logs"]["REALM"], 1):
            line = {name: round(float(value), 4) for name, value in line.items()}
            f.write(json.dumps({"step": step, **line}) + "\n")
    for name, mode in (("ict", "after ICT"), ("realm", "REALM")):
        folder = POCKET / name
        folder.mkdir(exist_ok=True)
        there["trained"][mode].save(folder)
        halve(folder / "towers.safetensors")
        (folder / "towers.safetensors").chmod(0o644)
        print(folder.relative_to(ROOT), (folder / "towers.safetensors").stat().st_size, "bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
