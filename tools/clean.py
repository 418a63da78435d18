"""Clean the notebooks: what nbdev_clean does, and no progress bars or widget state.

With --check, only name those that are not clean."""

import copy
import json
import re
import sys
from pathlib import Path

from execnb.nbio import read_nb, write_nb
from nbdev.clean import clean_nb

ROOT = Path(__file__).resolve().parents[1]
BAR = re.compile(r"\d+%\||\[\d\d:\d\d<|\d(it|s)/(s|it)\]")


def is_bar(output) -> bool:
    "Whether an output is a progress bar, as a widget or as text."
    if any("widget-view" in kind for kind in output.get("data", {})):
        return True
    return output.get("name") == "stderr" and bool(BAR.search("".join(output["text"])))


def clean(notebook) -> dict:
    "A clean copy of `notebook`."
    notebook = copy.deepcopy(notebook)
    notebook["metadata"].pop("widgets", None)
    clean_nb(notebook)
    for c in notebook["cells"]:
        if "outputs" in c:
            c["outputs"] = [o for o in c["outputs"] if not is_bar(o)]
    return notebook


def main(argv) -> int:
    dirty = []
    for path in sorted((ROOT / "nbs").rglob("[!.]*.ipynb")):
        before = json.loads(path.read_text(encoding="utf-8"))
        if clean(before) == before:
            continue
        dirty.append(path.relative_to(ROOT / "nbs").as_posix())
        if "--check" not in argv:
            write_nb(clean(read_nb(path)), path)
            print(f"cleaned {path.relative_to(ROOT / 'nbs').as_posix()}")
    if "--check" in argv and dirty:
        print(f"not clean: {', '.join(dirty)}; run: make clean-notebooks", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
