"""A synthetic corpus through the corpus stages: sentences a second, memory, a kill, a projection.

    python benchmarks/corpus.py --articles 20000 --processes 2 --kill 20

The articles are drawn, by a seed, from the words of data/mini: nobody's text. The tables say what
one core did (processor seconds, whatever else ran beside), and what 16 would take for Wikipedia."""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from realm_nb.core.files import write_text
from realm_nb.masking import prepare_copies
from realm_nb.recurring import prepare_recurring
from realm_nb.spans import tag_in_parts
from realm_nb.store import CorpusConfig, build_in_parts
from realm_nb.text.documents import read_corpus
from realm_nb.text.sources import weights_folder
from realm_nb.text.taggers import make_tagger
from realm_nb.text.tokenizer import load_tokenizer

ARTICLES, SENTENCES, CORES = 6_400_000, 150_000_000, 16  # English Wikipedia, and the paper's host
A_FILE = 20_000  # articles
PAGE = "<page><title>{}</title><ns>0</ns><revision><text>{}</text></revision></page>\n"


def vocabulary() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "(words in lower case, how likely each is, beginnings and ends that names are made of)."
    words = Counter(re.findall(r"[a-z]+", " ".join(d.text for d in read_corpus("mini"))))
    known = sorted(words)
    counts = np.array([words[word] for word in known], float)
    return np.array(known), counts / counts.sum(), np.array([w for w in known if len(w) > 4])


def articles(number: int, n: int, sentences: float, seed: int):
    "(title, sentences) of `n` articles of file `number`."
    g = np.random.default_rng([seed, number])
    words, chance, long = vocabulary()
    rows = np.maximum(1, g.poisson(sentences, n))  # sentences of each article
    counts = g.integers(8, 25, rows.sum())  # words of each sentence
    drawn = g.choice(words, counts.sum(), p=chance).tolist()
    halves = g.choice(long, (2, 2 * (len(counts) + n))).tolist()
    names = [a[:3].capitalize() + b[-4:] for a, b in zip(*halves)]
    years = g.integers(1200, 2024, len(counts)).tolist()
    at, name = np.cumsum(counts) - counts, iter(names)
    texts = []
    for k, (start, count) in enumerate(zip(at.tolist(), counts.tolist())):
        row = drawn[start : start + count]
        row[0] = row[0].capitalize()
        row[3] = next(name) if k % 2 else f"{next(name)} {next(name)}"
        row[6] = row[6] if k % 3 else str(years[k])
        texts.append(" ".join(row) + ".")
    ends = np.cumsum(rows)
    for i, (first, last) in enumerate(zip((ends - rows).tolist(), ends.tolist())):
        yield f"{next(name)} {next(name)} {number}-{i}", texts[first:last]


def as_wikitext(text: list[str]) -> str:
    "`text` with the markup that an article has."
    marked = [re.sub(r"([A-Z]\w+) (\w+)", r"[[\1|\1]] '''\2'''", s, count=1) for s in text]
    infobox = "{{Infobox settlement|name=A|population={{formatnum:1200}}|area=12}}\n"
    return infobox + " ".join(s + "&lt;ref&gt;{{cite book|title=B}}&lt;/ref&gt;" for s in marked)


def make_corpus(folder: Path, n: int, sentences: float, kind: str, seed: int) -> Path:
    "Write `n` articles into files of `kind` (parquet or xml) in `folder`, unless they are there."
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, n, A_FILE)):
        path, rows = folder / f"{number:04d}.{kind}", min(A_FILE, n - first)
        if path.exists():
            continue
        found = list(articles(number, rows, sentences, seed))
        if kind == "xml":
            pages = "".join(PAGE.format(title, as_wikitext(text)) for title, text in found)
            write_text(path, f"<mediawiki>{pages}</mediawiki>")
            continue
        titles, texts = zip(*found)
        table = pa.table({"title": titles, "text": [" ".join(text) for text in texts]})
        parquet.write_table(table, path.with_suffix(".tmp"), row_group_size=2000)
        os.replace(path.with_suffix(".tmp"), path)
    return folder


class Memory(threading.Thread):
    "Looks twice a second how much memory this process and each of its workers has of its own."

    def __init__(self):
        super().__init__(daemon=True)
        self.samples, self.done = [], threading.Event()

    def run(self):
        while not self.done.wait(0.5):
            now, me = {}, psutil.Process()
            for process in [me, *me.children(recursive=True)]:
                try:
                    status = Path(f"/proc/{process.pid}/status").read_text()
                except OSError:  # it has ended
                    continue
                if found := re.search(r"RssAnon:\s+(\d+)", status):  # not of one that is ending
                    now[process.pid] = int(found[1]) / 1024
            self.samples.append(now)

    def peaks(self) -> tuple[float, float, float]:
        "MiB: of the command, of a worker in the first and in the second half of the stage."
        me, half = os.getpid(), len(self.samples) // 2
        workers = [
            max((m for s in part for pid, m in s.items() if pid != me), default=0)
            for part in (self.samples[:half], self.samples[half:])
        ]
        return max((s.get(me, 0) for s in self.samples), default=0), *workers


def used(who) -> float:
    "Processor seconds."
    found = resource.getrusage(who)
    return found.ru_utime + found.ru_stime


def measured(work) -> tuple[object, dict]:
    "(what `work()` gives, seconds and memory)."
    memory = Memory()
    memory.start()
    began = time.perf_counter(), used(resource.RUSAGE_SELF), used(resource.RUSAGE_CHILDREN)
    found = work()
    row = {
        "wall": time.perf_counter() - began[0],
        "alone": used(resource.RUSAGE_SELF) - began[1],
        "workers": used(resource.RUSAGE_CHILDREN) - began[2],
    }
    memory.done.set()
    memory.join()
    return found, row | dict(zip(("command", "first half", "second half"), memory.peaks()))


def prepare(options, source: Path, folder: Path) -> tuple[int, int, dict]:
    "(documents, sentences, figures of each stage)."
    tokenizer, n = load_tokenizer(weights_folder("minilm-l6")), options.processes
    config, tagger, rows = CorpusConfig(source=str(source)), make_tagger(options.tagger), {}
    again = lambda: build_in_parts(config, tokenizer, folder / "store", n)
    store, rows["read, parse, tokenise"] = measured(again)
    tags = lambda: tag_in_parts(store, tagger, 96, folder / "spans", n, folder / "tags")
    spans, rows[f"tag ({options.tagger})"] = measured(tags)
    _, rows["copies"] = measured(lambda: prepare_copies(store, n))
    if not options.no_recurring:
        _, rows["recurring spans"] = measured(lambda: prepare_recurring(store, spans, n))
    _, rows["all of it once more"] = measured(lambda: (again(), tags(), prepare_copies(store, n)))
    print(f"{len(spans):,} spans, store {store.fingerprint}, spans {spans.fingerprint}")
    return store.n_documents, store.n_sentences, rows


def table(documents: int, sentences: int, rows: dict) -> str:
    "The figures as Markdown, with their projection."
    lines = [
        f"{documents:,} articles, {sentences:,} sentences",
        "",
        "| stage | wall, s | one process alone, s | workers, s | sentences/s a core "
        f"| MiB: command | a worker, 1st half | 2nd half | {SENTENCES // 10**6} M, {CORES} cores |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    hours = 0.0
    for name, r in rows.items():
        scale, total = SENTENCES / sentences, r["alone"] + r["workers"]
        h = (r["alone"] + r["workers"] / CORES) * scale / 3600
        hours += h
        sizes = " | ".join(f"{r[k]:,.0f}" for k in ("command", "first half", "second half"))
        lines.append(
            f"| {name} | {r['wall']:,.0f} | {r['alone']:,.1f} | {r['workers']:,.1f} "
            f"| {sentences / max(total, 0.01):,.0f} | {sizes} | {h:.2f} |"
        )
    return "\n".join([*lines, "", f"together {hours:.1f} h"])


def kill(argv: list[str], seconds: float, folder: Path):
    "Start the command, kill it after so long, and say what is left."
    process = subprocess.Popen([sys.executable, *argv])
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        sys.exit(f"it was done in {seconds:g} s: kill it earlier")
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    gone, alive = psutil.wait_procs(workers, 10)
    parts = Counter(p.parent.parent.name for p in folder.rglob("sums.json"))
    print(f"killed after {seconds:g} s: {len(gone)} workers ended, {len(alive)} go on; parts made:")
    print(json.dumps(dict(parts)), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--articles", type=int, default=20_000)
    parser.add_argument("--sentences", type=float, default=SENTENCES / ARTICLES, help="an article")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tagger", default="rule")
    parser.add_argument("--kind", choices=("parquet", "xml"), default="parquet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="kept, to go on; by default a temporary one")
    parser.add_argument("--kill", type=float, help="first start it, and kill it after so many s")
    parser.add_argument("--no-recurring", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        kind, seed = options.kind, options.seed
        source = make_corpus(folder / kind, options.articles, options.sentences, kind, seed)
        if options.kill:
            kill([*sys.argv, "--kill", "0", "--folder", str(folder)], options.kill, folder)
        print(table(*prepare(options, source, folder)))


if __name__ == "__main__":
    main()
