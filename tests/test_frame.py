"Settings, notebooks, library and README agree, and keep the rules of CONTRIBUTING.md."

import ast
import configparser
import functools
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "nbs").rglob("[!.]*.ipynb"), key=lambda p: p.name)
NUMBERED = [p for p in NOTEBOOKS if p.name != "index.ipynb"]
MODULES = sorted(p for p in (ROOT / "realm_nb").rglob("*.py") if not p.name.startswith("_"))
ORDERED = {
    "torch",
    "transformers",
    "faiss-cpu",
    "datasets",
    "accelerate",
}  # wanted, whether or not a module imports them yet
ALONE = {"01_one_page.ipynb"}  # exports nothing, and needs nothing of the library
name_of = lambda path: path.name
module_of = lambda path: ".".join([*path.relative_to(ROOT / "nbs").parent.parts, path.stem[3:]])
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)


def tool(name):
    "A script of tools/ as a module."
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell):
    return "".join(cell["source"])


def code_cells(path):
    return [source(c) for c in load(path)["cells"] if c["cell_type"] == "code"]


def exports(path):
    return [s for s in code_cells(path) if re.match(r"#\|\s*export\b", s)]


@functools.cache
def imports(code) -> set[str]:
    "Dotted names of the modules that `code` imports, anywhere in it."
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {
                f"{node.module}.{a.name}" if node.module == "realm_nb" else node.module
                for a in node.names
            }
    return found


# ---- settings


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def settings():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(parser["DEFAULT"])


def test_twins(project, settings):
    import realm_nb

    p = project["project"]
    assert {k: settings[k] for k in project["tool"]["nbdev"]} == {
        k: str(v) for k, v in project["tool"]["nbdev"].items()
    }
    assert (
        settings["lib_name"] == p["name"]
        and settings["description"] == p["description"]
        and settings["keywords"].split() == p["keywords"]
    )
    assert (
        ">=" + settings["min_python"] == p["requires-python"]
        and settings["author"] == p["authors"][0]["name"]
    )
    assert settings["version"] == realm_nb.__version__ and p["dynamic"] == ["version"]
    assert (settings["license"], p["license"]) == ("apache2", "Apache-2.0") and settings[
        "update_pyproject"
    ] == "False"
    # nbdev 3 reads these of [tool.nbdev], and takes lib_name and the rest from [project]
    read = {
        "nbs_path",
        "lib_path",
        "doc_path",
        "tst_flags",
        "recursive",
        "readme_nb",
        "clean_ids",
        "clear_all",
        "put_version_in_init",
        "jupyter_hooks",
        "custom_sidebar",
        "branch",
        "title",
    }
    assert set(project["tool"]["nbdev"]) == read


def test_pins(project):
    dev = project["project"]["optional-dependencies"]["dev"]
    assert {
        "realm_nb[notebooks,app]",
        "nbdev==2.4.14",
        "execnb<0.2",
        "fastcore<2",
        "ghapi<2",
        "fastgit<0.0.5",
    } <= set(dev)
    for requirement in project["project"]["dependencies"]:
        assert ">=" in requirement, f"{requirement}: without a lower bound"
    assert project["project"]["scripts"] == {"realm": "realm_nb.__main__:main"}
    assert "network" in "".join(project["tool"]["pytest"]["ini_options"]["markers"])


def test_dependencies_are_those_imported(project):
    plain = lambda name: re.split(r"[<>=\[~! ]", name)[0].lower().replace("_", "-")
    declared = {plain(r) for r in project["project"]["dependencies"]}
    extras = {
        plain(r)
        for extra in ("notebooks", "app")
        for r in project["project"]["optional-dependencies"][extra]
    }  # only inside functions
    owners = importlib.metadata.packages_distributions()
    used = set()
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        first = {
            i.split(".")[0]
            for i in imports(
                "\n".join(
                    line
                    for line in ast.unparse(ast.parse(text)).splitlines()
                    if re.match("import |from ", line)
                )
            )
        }
        for name in (
            {i.split(".")[0] for i in imports(text)} - set(sys.stdlib_module_names) - {"realm_nb"}
        ):
            distributions = {plain(d) for d in owners.get(name, [name])}
            assert distributions & (declared if name in first else declared | extras), (
                f"{path.name} imports {name}, which pyproject.toml does not declare"
            )
            used |= distributions
    assert declared - used <= ORDERED, "declared, but imported nowhere"


def test_licence():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert (
        "Apache License" in text
        and "Version 2.0, January 2004" in text
        and text.rstrip().endswith("limitations under the License.")
    )


# ---- library and notebooks


def test_library_is_what_the_notebooks_export():
    assert tool("insync").main() == 0


def test_insync_notices(tmp_path, monkeypatch, capsys):
    insync = tool("insync")
    there = insync.modules(ROOT)
    for wrong in (
        {**there, "store.py": there["store.py"] + "x = 1\n"},
        {k: v for k, v in there.items() if k != "store.py"},
        {**there, "stray.py": ""},
    ):
        monkeypatch.setattr(insync, "exported", lambda wrong=wrong: wrong)
        assert insync.main() == 1 and "make export" in capsys.readouterr().err


@pytest.mark.parametrize("path", NUMBERED, ids=name_of)
def test_numbered_notebook(path):
    assert re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", path.name)
    first = source(load(path)["cells"][0])
    assert re.match(r"# .+\n\n> .+\n\n", first), "title, then `> purpose`"
    if path.name in ALONE:
        assert not exports(path)
        assert not [n for code in code_cells(path) for n in imports(code) if "realm_nb" in n]
        return
    assert re.search(
        r"^#\|\s*default_exp " + module_of(path) + r"\s*$",
        "\n".join(code_cells(path)),
        re.MULTILINE,
    )
    number = {module_of(p): int(p.stem[:2]) for p in NUMBERED}
    for code in exports(path):
        for name in imports(code):
            if name.startswith("realm_nb."):
                assert number[name.removeprefix("realm_nb.")] < number[module_of(path)], (
                    f"imports {name}, which comes later"
                )


@each_notebook
def test_every_cell_is_run(path):
    for code in code_cells(path):
        assert not re.search(r"^#\|\s*(eval:\s*false|notest)", code, re.MULTILINE)
    assert not re.search(r"skip_exec:\s*true", source(load(path)["cells"][0]))


@each_notebook
def test_notebook_is_clean(path):
    notebook = load(path)
    if tool("clean").clean(notebook) != notebook:
        pytest.fail("run: make clean-notebooks")
    assert (
        set(notebook["metadata"]) == {"kernelspec"}
        and notebook["metadata"]["kernelspec"]["name"] == "python3"
    )
    for c in notebook["cells"]:
        assert not any(o["output_type"] == "error" for o in c.get("outputs", []))


@each_notebook
def test_notebook_reads_well_without_running(path):
    "What a cell prints or draws is committed with it."
    silent = [
        c["id"]
        for c in load(path)["cells"]
        if c["cell_type"] == "code"
        and not c["outputs"]
        and re.search(r"^(print\(|plt\.show\(\))", source(c), re.MULTILINE)
    ]
    assert not silent, f"run the notebook and save it: cells {silent} show nothing"


def test_reading_half_of_it_is_no_error():
    "`realm fetch list | head -1`: no traceback."
    command = [
        sys.executable,
        "-c",
        "import sys; from realm_nb.text.sources import main; sys.exit(main(['list']))",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141


def test_clean_cleans():
    clean = tool("clean").clean
    bar = {
        "output_type": "stream",
        "name": "stderr",
        "text": ["tag:  50%|####     | 1/2 [00:00<00:00, 9it/s]"],
    }
    widget = {
        "output_type": "display_data",
        "metadata": {},
        "data": {"application/vnd.jupyter.widget-view+json": {}, "text/plain": ["0it"]},
    }
    kept = {"output_type": "stream", "name": "stdout", "text": ["<Fog at 0x7f00aa>"]}
    cell = {
        "cell_type": "code",
        "id": "a",
        "execution_count": 7,
        "metadata": {"scrolled": True},
        "source": ["fog"],
        "outputs": [bar, widget, kept],
    }
    notebook = {
        "cells": [cell],
        "metadata": {"widgets": {}, "kernelspec": {"name": "python3", "display_name": "mine"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (c,) = (cleaned := clean(notebook))["cells"]
    assert (
        c["outputs"] == [{**kept, "text": ["<Fog>"]}]
        and c["execution_count"] is None
        and c["metadata"] == {}
    )
    assert (
        set(cleaned["metadata"]) == {"kernelspec"}
        and clean(cleaned) == cleaned
        and cell["execution_count"] == 7
    )


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_library_needs_no_notebook_tools(path):
    assert not {i.split(".")[0] for i in imports(path.read_text(encoding="utf-8"))} & {
        "nbdev",
        "fastcore",
        "execnb",
        "ghapi",
        "fastgit",
        "IPython",
        "pytest",
    }


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_library_compiles_without_warnings(path):
    with warnings.catch_warnings(action="error"):
        compile(path.read_text(encoding="utf-8"), path.name, "exec")


# ---- README


def test_readme_is_what_the_index_says(capsys):
    assert tool("readme").main(["--check"]) == 0


def test_readme_of_a_notebook():
    readme = tool("readme").readme
    code = lambda text, *outputs: {"cell_type": "code", "source": [text], "outputs": list(outputs)}
    said = {"output_type": "stream", "name": "stdout", "text": ["fog\n"]}
    table = {
        "output_type": "execute_result",
        "data": {"text/markdown": ["| fog |"], "text/plain": ["<Markdown>"]},
    }
    text = readme(
        {
            "cells": [
                {
                    "cell_type": "markdown",
                    "source": ["# A\n", "[one](10_fog.ipynb), [two](../LICENSE)"],
                },
                code("#| hide\nsecret", said),
                code("#| echo: false\nhidden", table),
                code(
                    "print(1)", said, {"output_type": "stream", "name": "stderr", "text": ["noise"]}
                ),
            ]
        }
    )
    assert (
        text.split("\n\n", 1)[1] == "# A\n[one](nbs/10_fog.ipynb), [two](LICENSE)\n\n| fog |\n\n"
        "```python\nprint(1)\n```\n\n```\nfog\n```\n"
    )


def test_readme_is_up_to_date():
    "Running the index again says the same: its tables of notebooks and recipes are up to date."
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "nbs/index.ipynb", 4)
    client = NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(ROOT / "nbs")}},
    )
    client.execute(env={**os.environ, "REALM_NB_QUIET": "1"})
    if tool("readme").readme(notebook) != (ROOT / "README.md").read_text(encoding="utf-8"):
        pytest.fail("run: make readme")


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
)
def test_links_of_a_page_exist(page):
    for target in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_readme_is_one_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if "| [" not in line]) < 160


def test_make_help():
    text = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in re.findall(
        r"`(?:\$ )?make ([a-z-]+)",
        (ROOT / "README.md").read_text(encoding="utf-8")
        + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    ):
        assert f"make {target} " in text, target


# ---- what no file may say

PLACES = re.compile(
    r"(?<![\w.:/~-])/(?:work|root|home|Users|opt|mnt)/\w|\bpypi\.org|pythonhosted|download\.pytorch|/simple/"
)


def tracked() -> list[Path]:
    "The files of the checkout that git has or would take."
    out = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if out.returncode:
        pytest.skip("not a git checkout")
    return [p for name in out.stdout.split("\0") if name and (p := ROOT / name).is_file()]


def test_no_absolute_paths_or_hosts():
    found = []
    for path in tracked():
        if path == Path(__file__).resolve():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{i}: {m[0]}"
            for i, line in enumerate(text.splitlines(), 1)
            if '"image/png"' not in line and (m := PLACES.search(line))
        ]
    assert not found


def test_no_large_or_binary_data():
    for path in tracked():
        if path.is_relative_to(ROOT / "data/pocket"):  # made by tools/pocket.py, from our own text
            assert path.stat().st_size < 1_000_000
            continue
        assert path.stat().st_size < 1_000_000 and path.suffix not in {
            ".pkl",
            ".pickle",
            ".pt",
            ".bin",
            ".npy",
            ".safetensors",
            ".whl",
        }, path
