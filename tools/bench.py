"""Join what the programs of benchmarks/ print into docs/benchmarks.md.

python tools/bench.py [peak search encode step]"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("peak", "search", "encode", "step")
PAGE = ROOT / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

`make bench` writes this page. The sides of a table take turns in one process tree, in an order
drawn anew each time; times are processor seconds of one thread. The machine may be shared, so
ratios count, not times. A quick look at throughput of taggers and masking is
`python benchmarks/masking.py --corpus wiki-dump`.
"""


def main(names):
    "Run the programs; the page is written when all have ended well."
    sections = []
    for name in names or PROGRAMS:
        command = [sys.executable, f"benchmarks/{name}.py"]
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": paths, "REALM_NB_QUIET": "1"}
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
        if done.returncode:
            raise SystemExit(f"error: {' '.join(command[1:])} failed; {PAGE.name} stays as it was")
        print(done.stdout, flush=True)
        sections.append(done.stdout.strip())
    if not names:
        PAGE.write_text("\n\n".join([HEAD.strip(), *sections]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
