"""Make README.md from nbs/index.ipynb.

With --check, only say whether it is in sync (exit status 1 if not)."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTE = "<!-- Made from nbs/index.ipynb by tools/readme.py: edit that, then `make readme`. -->\n"


def text_of(value) -> str:
    return value if isinstance(value, str) else "".join(value)


def fenced(text, language="") -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def output(o) -> str:
    "One output as Markdown; pictures and stderr are left out."
    data = o.get("data", {})
    if "text/markdown" in data:
        return text_of(data["text/markdown"]).strip()
    if o.get("name") == "stdout":
        return fenced(text_of(o["text"]))
    return fenced(text_of(data["text/plain"])) if "text/plain" in data else ""


def cell(c) -> list[str]:
    "The Markdown parts of one cell, obeying nbdev's `hide` and `echo: false`."
    source = text_of(c["source"])
    if c["cell_type"] == "markdown":
        return [source]
    directives = re.findall(r"^#\|\s*(.+?)\s*$", source, re.MULTILINE)
    if "hide" in directives:
        return []
    code = re.sub(r"^#\|.*\n?", "", source, flags=re.MULTILINE).strip()
    return [
        *([fenced(code, "python")] if code and "echo: false" not in directives else []),
        *map(output, c["outputs"]),
    ]


def readme(notebook: dict) -> str:
    "README.md for a notebook that lies in nbs/."
    text = "\n\n".join(part.strip() for c in notebook["cells"] for part in cell(c) if part.strip())
    text = re.sub(r"\]\(((?:\w+/)?\d\d_\w+\.ipynb)", r"](nbs/\1", text)
    return NOTE + "\n" + text.replace("](../", "](") + "\n"


def main(argv) -> int:
    notebook, target = ROOT / "nbs/index.ipynb", ROOT / "README.md"
    text = readme(json.loads(notebook.read_text(encoding="utf-8")))
    if "--check" not in argv:
        target.write_text(text, encoding="utf-8")
    elif not target.exists() or target.read_text(encoding="utf-8") != text:
        print("README.md is not what nbs/index.ipynb says; run: make readme", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
