"""Turn index, lessons and library into a site in _docs/ that opens from file://.

Notebooks become markdown pages with their committed outputs, equations become MathML, and the
library's docstrings a page for each module; mkdocs does the rest. Nothing is run or fetched."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml
from latex2mathml.converter import convert
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "_proc/docs"
SHIM = "https://unpkg.com/iframe-worker/shim"  # which mkdocs-material would fetch
STYLE = """.md-grid { max-width: 68rem }
.md-typeset img { max-width: 100% }
.md-typeset math[display="block"] { overflow-x: auto; overflow-y: hidden; max-width: 100% }
[data-md-color-scheme="slate"] .md-typeset img { background: #fff; border-radius: 4px }
"""
WINGS = {
    "text": "Workshop: text",
    "core": "Workshop: tools",
    "builder": "Workshop: builder",
    "hub": "Workshop: released weights",
    "qa": "Questions",
    "show": "Pictures and app",
}
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?!\s)([^$\n]+?)(?<!\s)\$(?![\w$])", re.DOTALL)
LINK = re.compile(r"(\[[^\]]*\])\(([^)\s]+)\)")


def mathml(found: re.Match) -> str:
    "An equation as MathML, which markdown leaves alone."
    block = found[1] is not None
    text = convert((found[1] or found[2]).strip(), display="block" if block else "inline")
    text = text.replace("_", "&#95;").replace("*", "&#42;").replace("\n", " ")
    return f"\n\n<div>{text}</div>\n\n" if block else text


def relink(page: Path):
    "What to do with a link of the notebook `page`: to another page, to the web, or plain text."

    def new(found: re.Match) -> str:
        target, _, anchor = found[2].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return found[0]
        if target.endswith(".ipynb") and (page.parent / target).resolve().is_file():
            return f"{found[1]}({target[:-6]}.md{'#' + anchor if anchor else ''})"
        return found[1][1:-1]

    return new


def prose(text: str, page: Path) -> str:
    "A markdown cell of the notebook `page` for the site."
    parts = CODE.split(text.replace("<details>", '<details markdown="1">'))
    for i in range(0, len(parts), 2):
        parts[i] = LINK.sub(relink(page), MATH.sub(mathml, parts[i]))
    return "".join(parts)


def prepare(notebook, page: Path):
    "Leave out nbdev's directives, and fold what a reader need not read."
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = prose(cell.source, page)
            continue
        if "#| echo: false" in cell.source:
            cell.source = ""
        cell.source = re.sub(r"^#\|.*\n*", "", cell.source, flags=re.MULTILINE)
        cell.source = re.sub(r"\A# (pocket|train|claim)\n", "", cell.source)
        cell.outputs = [o for o in cell.outputs if "widget-view" not in str(o.get("data", {}))]
    notebook.cells = [c for c in notebook.cells if c.source.strip() or c.get("outputs")]
    return notebook


def write_page(path: Path):
    "Write the notebook `path` as a page, its pictures beside it."
    name = path.relative_to(ROOT / "nbs").with_suffix("")
    notebook = prepare(nbformat.read(path, 4), path)
    pictures = f"{name.name}_files"
    settings = {"output_files_dir": pictures, "unique_key": name.name}
    text, extra = MarkdownExporter().from_notebook_node(notebook, settings)
    text = re.sub(r"```python\n\s*```\n", "", text)
    text = re.sub(  # what puzzles hide
        r"```python\n# checkers\n(.*?)```",
        r'<details markdown="1"><summary>Checkers</summary>\n\n```python\n\1```\n\n</details>',
        text,
        flags=re.DOTALL,
    )
    target = PAGES / name.with_suffix(".md")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    for file, data in extra["outputs"].items():
        (target.parent / file).parent.mkdir(exist_ok=True)
        (target.parent / file).write_bytes(data)


def signature(node) -> str:
    "A function or class as it is called."
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}" + (f"({', '.join(map(ast.unparse, node.bases))})")
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({ast.unparse(node.args)}){returns}"


def described(node, level: int) -> list[str]:
    "The lines of a page about a function or class, and its public methods."
    if node.name.startswith("_"):
        return []
    lines = [f"{'#' * level} {node.name}", f"```python\n{signature(node)}\n```"]
    lines.append(ast.get_docstring(node) or "")
    if isinstance(node, ast.ClassDef):
        for child in node.body:
            if isinstance(child, ast.FunctionDef):
                lines += described(child, level + 1)
    return lines


def write_api(path: Path) -> Path:
    "Write the page of one module of the library; its place among the pages."
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = path.relative_to(ROOT).with_suffix("")
    lines = [f"# {'.'.join(name.parts)}", ast.get_docstring(tree) or ""]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            lines += described(node, 2)
    target = Path("api") / f"{'.'.join(name.parts)}.md"
    (PAGES / target).parent.mkdir(parents=True, exist_ok=True)
    (PAGES / target).write_text("\n\n".join(lines), encoding="utf-8")
    return target


def bring_worker(site: Path):
    "Put our own worker for file:// in place of the one that would be fetched."
    shutil.copy(ROOT / "tools/docs_worker.js", site / "assets/worker.js")
    for page in site.rglob("*.html"):
        ours = "../" * (len(page.relative_to(site).parts) - 1) + "assets/worker.js"
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(SHIM, ours), encoding="utf-8")


def order(path: Path) -> tuple:
    return re.sub(r"\D", "", path.name.split("_")[0]), path.name


def main() -> int:
    shutil.rmtree(PAGES, ignore_errors=True)
    lessons = sorted((ROOT / "nbs").rglob("[0-9][0-9]_*.ipynb"), key=order)
    for path in [ROOT / "nbs/index.ipynb", *lessons]:
        write_page(path)
    (PAGES / "extra.css").write_text(STYLE, encoding="utf-8")
    pages = [p.relative_to(ROOT / "nbs").with_suffix(".md") for p in lessons]
    story = [str(p) for p in pages if len(p.parts) == 1]
    nav: list = ["index.md", {"Course": [p for p in story if p < "82"]}]
    for wing, title in WINGS.items():
        nav.append({title: [str(p) for p in pages if p.parts[0] == wing]})
    nav.insert(3, {"Workshop: a run": [p for p in story if p >= "82"]})
    modules = sorted((ROOT / "realm_nb").rglob("[!_]*.py"))
    nav.append({"Library": [str(write_api(path)) for path in modules]})
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    config = ROOT / "_proc/mkdocs.yml"
    settings |= {"nav": nav, "docs_dir": str(PAGES), "site_dir": str(ROOT / "_docs")}
    config.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--clean", "-f", str(config)]
    failed = subprocess.run(command, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}).returncode
    if not failed:
        bring_worker(ROOT / "_docs")
    return failed


if __name__ == "__main__":
    sys.exit(main())
