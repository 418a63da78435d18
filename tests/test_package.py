"The package as others install it: a wheel is built, and used without the checkout."

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = shutil.ignore_patterns("__pycache__", "*.egg-info")
USE = """
import json, realm_nb
from realm_nb.text.documents import read_corpus
from realm_nb.text.sources import DATA, fetch, load_questions, main
print(json.dumps({
    "library": realm_nb.__file__,
    "data": str(DATA),
    "mini": str(fetch("mini")),
    "questions": len(load_questions("mini")),
    "documents": len(list(read_corpus("mini"))),
    "list": main(["list"]),
}))
"""


def run(command, folder, **env):
    "What a process started in `folder` prints; the checkout is nowhere on its path."
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**environment, "REALM_NB_QUIET": "1", **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "A wheel, built from a copy of the checkout."
    try:
        if int(version("setuptools").split(".")[0]) < 77:
            pytest.skip("building needs setuptools 77 or newer")
    except PackageNotFoundError:
        pytest.skip("building needs setuptools")
    copy = tmp_path_factory.mktemp("checkout") / "realm"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("realm_nb", "data"):
        shutil.copytree(ROOT / name, copy / name, ignore=SKIPPED)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps"]
    out = tmp_path_factory.mktemp("wheel")
    run([*pip, "--no-build-isolation", "--no-index", "--wheel-dir", out, "."], copy)
    (path,) = out.glob("*.whl")
    return path


def files(folder, prefix=""):
    "The files under a folder of the checkout, as a wheel names them."
    found = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return {prefix + name for name in found if "__pycache__" not in name}


def test_wheel_holds_the_library_and_its_data(wheel):
    with zipfile.ZipFile(wheel) as z:
        names = {n for n in z.namelist() if ".dist-info/" not in n}
    assert names == files(ROOT / "realm_nb", "realm_nb/") | files(ROOT / "data", "realm_nb/data/")


def test_wheel_works_without_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as z:
        z.extractall(site)
    (elsewhere := tmp_path / "elsewhere").mkdir()
    paths = run([sys.executable, "-c", "import sys; print(sys.path)"], elsewhere, PYTHONPATH=site)
    assert str(ROOT) not in eval(paths)
    said = run([sys.executable, "-c", USE], elsewhere, PYTHONPATH=str(site))
    *table, facts = said.splitlines()
    facts = json.loads(facts)
    assert facts["library"] == str(site / "realm_nb/__init__.py")
    assert facts["data"] == str(site / "realm_nb/data")
    assert facts["mini"] == str(site / "realm_nb/data/mini")
    assert (facts["documents"], facts["questions"], facts["list"]) == (215, 293, 0)
    assert len(table) > 10 and table[1].startswith("mini")


def test_checkout_works_from_any_folder(tmp_path):
    facts = json.loads(
        run([sys.executable, "-c", USE], tmp_path, PYTHONPATH=str(ROOT)).splitlines()[-1]
    )
    assert facts["data"] == str(ROOT / "data") and facts["documents"] == 215
