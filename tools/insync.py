"""Say whether realm_nb/ is what the notebooks export (exit status 1 if not). Exports into a temporary copy and changes nothing here."""
import os, shutil, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def modules(folder) -> dict[str, str]: return {p.name: p.read_text(encoding="utf-8") for p in (Path(folder) / "realm_nb").glob("*.py")}


def exported() -> dict[str, str]:
    "The modules that nbdev_export makes from the notebooks: text by file name."
    with tempfile.TemporaryDirectory() as tmp:
        shutil.copytree(ROOT / "nbs", Path(tmp) / "nbs", ignore=shutil.ignore_patterns(".*"))
        (Path(tmp) / "realm_nb").mkdir()
        for name in ("settings.ini", "pyproject.toml", "realm_nb/__init__.py"): shutil.copy(ROOT / name, Path(tmp) / name)
        env = {k: v for k, v in os.environ.items() if k not in ("IN_TEST", "PYTHONPATH")}
        subprocess.run([sys.executable, "-c", "from nbdev.doclinks import nbdev_export; nbdev_export()"], cwd=tmp, env=env, check=True)
        return modules(tmp)


def main() -> int:
    here, there = modules(ROOT), exported()
    wrong = sorted(name for name in here | there if here.get(name) != there.get(name))
    if wrong: print(f"not what the notebooks export: {', '.join(wrong)}; run: make export", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__": sys.exit(main())
