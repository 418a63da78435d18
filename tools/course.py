"""Write docs/course.md: what each lesson of the story asks of a reader, counted from the notebooks.

With --check, only say whether it is up to date (status 1 if not)."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/course.md"
STORY = ("01", "20", "25", "30", "32", "40", "45", "50", "60", "70", "75", "80")
QUESTIONS = ("92", "93", "94")
WORDS_A_MINUTE, LINES_A_MINUTE, MINUTES_A_PUZZLE = 150, 20, 4
HEAD = """# The course in figures

Counted by `python tools/course.py`; run it after a lesson has changed. *Words* are those of the
prose. *Code* is lines on screen without imports and checkers, *of it exported* what becomes the
library. *Pictures* are drawn by cells. A *puzzle* is a function to fill in, with a checker.
*Minutes* are for reading: {words} words, {lines} lines of code a minute, and {puzzle} minutes for
a puzzle. *Shape* says what a lesson has of **h** *you have, you build, next*, **d** a drawing,
**n** a naive version before the exported one, **r** a summary to remember.

| lesson | minutes | words | code | of it exported | pictures | puzzles | shape |
|---|---|---|---|---|---|---|---|
"""


def lines_of(source: str) -> int:
    "Lines of code that a reader reads: no blanks, comments, imports, checkers."
    if source.startswith("# checkers"):
        return 0
    skip = ("#", "import ", "from ")
    return sum(1 for line in source.splitlines() if line.strip() and not line.startswith(skip))


def has_picture(output: dict) -> bool:
    data = output.get("data", {})
    html = "".join(data.get("text/html", []))
    return "image/png" in data or "image/svg+xml" in data or "<svg" in html or "<mark" in html


def count(path: Path) -> dict:
    "The figures of one lesson."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = [(c["cell_type"], "".join(c["source"])) for c in cells]
    prose = "\n".join(s for kind, s in sources if kind == "markdown")
    code = [s for kind, s in sources if kind == "code"]
    figures = {
        "title": sources[0][1].splitlines()[0].lstrip("# "),
        "words": len(re.findall(r"\w+", re.sub(r"```.*?```", "", prose, flags=re.DOTALL))),
        "code": sum(map(lines_of, code)),
        "exported": sum(lines_of(s) for s in code if s.startswith("#| export")),
        "pictures": sum(any(map(has_picture, c.get("outputs", []))) for c in cells),
        "puzzles": sum(s.startswith("# puzzle") for s in code),
    }
    first = sources[0][1]
    has = {
        "h": all(f"**{word}" in first for word in ("You have", "You build", "Next")),
        "d": figures["pictures"] > 0,
        "n": bool(re.search(r"[Nn]aive", prose + " ".join(code))),
        "r": bool(re.search(r"^## (In short|Remember)|\*\*Summary", prose, re.MULTILINE)),
    }
    figures["shape"] = "".join(name for name, there in has.items() if there)
    minutes = figures["words"] / WORDS_A_MINUTE + figures["code"] / LINES_A_MINUTE
    figures["minutes"] = 5 * max(1, round((minutes + MINUTES_A_PUZZLE * figures["puzzles"]) / 5))
    return figures


def page() -> str:
    "The text of docs/course.md."
    rows, total = [], {"minutes": 0, "words": 0, "code": 0, "exported": 0}
    total |= {"pictures": 0, "puzzles": 0}
    paths = [next((ROOT / "nbs").rglob(f"{n}_*.ipynb")) for n in (*STORY, *QUESTIONS)]
    for path in paths:
        figures = count(path)
        for name in total:
            total[name] += figures[name]
        cells = " | ".join(f"{figures[name]:,}" for name in total)
        where = path.relative_to(ROOT).as_posix()
        rows.append(f"| [{figures['title']}](../{where}) | {cells} | {figures['shape']} |")
    rows.append(f"| all | {' | '.join(f'{n:,}' for n in total.values())} | |")
    settings = {"words": WORDS_A_MINUTE, "lines": LINES_A_MINUTE, "puzzle": MINUTES_A_PUZZLE}
    return HEAD.format(**settings) + "\n".join(rows) + "\n"


def main(argv) -> int:
    text = page()
    if "--check" not in argv:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        print("docs/course.md is out of date; run: python tools/course.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
