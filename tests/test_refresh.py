"""The fault table of the index refresh, one test a row, with real processes.

`python benchmarks/refresh.py faults` prints it."""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from realm_nb.builder import builder
from realm_nb.builder import supervisor as supervising
from realm_nb.builder.builder import (
    Snapshots,
    cpu_state_dict,
    read_heartbeat,
    snapshot_meta,
)
from realm_nb.builder.supervisor import AsyncRefresher, RefreshThread, Supervisor, local_builder
from realm_nb.core.errors import UserError
from realm_nb.core.loop import module_digest
from realm_nb.refresh import IndexStore, Refresher
from realm_nb.retrieval import embed_store
from realm_nb.store import TokenStore, build_store
from realm_nb.text.documents import read_corpus
from realm_nb.text.tokenizer import tiny_tokenizer
from realm_nb.towers import Embedder

STALL = 1.0  # seconds
LONG = 120  # a bound on waits, for loaded machines


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    home = str(tmp_path_factory.mktemp("home"))
    return {**os.environ, "REALM_NB_HOME": home, "REALM_NB_QUIET": "1", "OMP_NUM_THREADS": "1"}


class Nursery:
    "Talks to faults.py."

    def __init__(self, environment):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("faults.py"))],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.alive = set()

    def ask(self, **job):
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, what, log, *argv, fault=""):
        Path(log).touch()  # there is something to read before the process is
        pid = self.ask(start=what, argv=[str(a) for a in argv], log=str(log), fault=fault)
        self.alive.add(pid)
        return pid

    def wait(self, pid):
        self.alive.discard(pid)
        return self.ask(wait=pid)

    def kill(self, pid):
        os.kill(pid, signal.SIGKILL)
        return self.wait(pid)


@pytest.fixture(scope="module")
def nursery(environment):
    nursery = Nursery(environment)
    yield nursery
    for pid in list(nursery.alive):
        nursery.kill(pid)
    nursery.process.stdin.close()
    nursery.process.wait(20)


@contextlib.contextmanager
def killed_after(nursery, pid):
    try:
        yield pid
    finally:
        if pid in nursery.alive:
            nursery.kill(pid)


def until(true, seconds=LONG, each=0.01, what="it"):
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(each)
    return found


class Site:
    "A run folder with a small corpus and an Embedder that can be changed: what a builder meets."

    def __init__(self, home, folder):
        from transformers import BertConfig, BertModel

        documents = list(read_corpus("mini", 60))
        tokenizer = tiny_tokenizer((d.text for d in documents), 600)
        corpus = Path(home) / "corpora" / "small"
        if not corpus.exists():
            build_store(documents, tokenizer, corpus, max_block_len=48)
        self.corpus = TokenStore.open(corpus)
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        )
        self.embedder = Embedder(BertModel(config, add_pooling_layer=False), 8).eval()
        self.run = Path(folder)
        self.snapshots = Snapshots(self.run / "snapshots")
        self.store = IndexStore(self.run / "index")
        self.meta = snapshot_meta(self.embedder, self.corpus, "fp32")
        assert self.meta["corpus"] == "corpora/small"
        self.store.publish(0, self.embed(), module_digest(self.embedder))

    def embed(self):
        return embed_store(self.embedder, self.corpus, bar=False)

    def change(self):
        with torch.no_grad():
            self.embedder.dense.bias.add_(0.01)

    def publish(self, step):
        self.change()
        return self.snapshots.publish(step, cpu_state_dict(self.embedder), self.meta)

    def whole(self):
        "Every version that can be seen can be read."
        for v in self.store.versions():
            assert self.store.load(v).shape == (len(self.corpus), 8)
        return self.store.versions()

    def log(self, text):
        "What is said; but that steps of milliseconds are faster than any builder is no news."
        if "no version in" not in text and "all is as before" not in text:
            self.said.append(text)

    def refresher(self, supervisor=None, patience=60.0, **settings):
        self.said = []
        c = SimpleNamespace(refresh_every=5, refresh_seconds=0, max_staleness=0, max_wait=60)
        vars(c).update(settings)
        background = RefreshThread(self.run, np.array, self.log, supervisor, patience)
        return AsyncRefresher(background, self.embedder, self.meta, self.embed, c)


@pytest.fixture
def site(environment, tmp_path, monkeypatch):
    for k in ("REALM_NB_HOME", "REALM_NB_QUIET"):
        monkeypatch.setenv(k, environment[k])
    return Site(environment["REALM_NB_HOME"], tmp_path / "run")


def trained(site, refresher, done, seconds=LONG, each=0.02):
    """Steps of a trainer that changes its Embedder all the time, until `done()`.

    (Steps, the longest that one of them was held up.)"""
    end, longest, step = time.monotonic() + seconds, 0.0, (refresher.version and site.step) or 0
    while not done():
        assert time.monotonic() < end, ("nothing came of it", site.said)
        refresher.before(step)
        if step:
            longest = max(longest, refresher.waited)
        assert refresher.index.shape == (len(site.corpus), 8) and np.isfinite(refresher.index).all()
        site.change()
        time.sleep(each)
        step += 1
        site.step = step
    return step, longest


@pytest.mark.parametrize(
    "fault",
    ["embedding", "settle:1", "settle:2", "before:1", "after:1", "before:2", "after:2"],
    ids=[
        "embedding",
        "writing a part",
        "writing a version",
        "before renaming a part",
        "after renaming a part",
        "before renaming a version",
        "after renaming a version",
    ],
)
def test_builder_killed(site, nursery, tmp_path, fault):
    digest = site.publish(10)
    flags = ["--run", site.run, "--device", "cpu", "--once"]
    assert nursery.wait(nursery.start("refresh", tmp_path / "log", *flags, fault=fault)) == -9
    assert site.whole() == ([0, 10] if fault == "after:2" else [0])
    assert nursery.wait(nursery.start("refresh", tmp_path / "log", *flags)) == 0, (
        tmp_path / "log"
    ).read_text()
    assert site.whole() == [0, 10] and site.store.has(10, digest)
    assert np.abs(site.store.load(10) - site.embed()).max() < 1e-4
    assert not list(site.run.rglob("*.tmp")), "swept"


def test_builder_dead_or_hung_is_restarted(site, environment, record_property):
    """SIGKILL, then SIGSTOP: each is noticed and named, a new builder is started, and versions come
    again. Afterwards no builder is left."""
    c = SimpleNamespace(builder="cpu", builder_cores="", builder_patience=6)
    supervisor = local_builder(site.run, c, "cpu")
    refresher = site.refresher(supervisor=supervisor)
    supervisor.log = site.log
    held = []

    def versions_after(v):
        held.append(trained(site, refresher, lambda: (refresher.version or 0) > v)[1])

    try:
        versions_after(0)
        pids = [supervisor.process.pid]
        os.kill(pids[0], signal.SIGKILL)
        held.append(
            trained(site, refresher, lambda: any("ended with status -9" in s for s in site.said))[1]
        )
        versions_after(site.step)
        pids.append(supervisor.process.pid)
        os.kill(pids[1], signal.SIGSTOP)
        held.append(trained(site, refresher, lambda: any("hangs" in s for s in site.said))[1])
        versions_after(site.step)
        pids.append(supervisor.process.pid)
    finally:
        refresher.close()
    record_property("longest", max(held))
    assert len(set(pids)) == 3 and max(held) < STALL and len(site.said) == 2, site.said
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    site.store.prune()
    assert len(site.store.versions()) <= 3, "the trainer's claim is gone"


def harm_manifest(folder):
    (folder / "manifest.json").write_text("{")


def truncate(folder):
    os.truncate(folder / "embeddings.npy", 500)


def flip(folder):
    raw = bytearray((folder / "embeddings.npy").read_bytes())
    raw[len(raw) // 2] ^= 4
    (folder / "embeddings.npy").write_bytes(raw)


@pytest.mark.parametrize(
    "harm", [truncate, flip, harm_manifest], ids=["truncated", "bit flipped", "manifest"]
)
def test_damaged_version(site, nursery, tmp_path, record_property, harm):
    """Damaged after it was published and before it is read: set aside, named, built again; the old
    one is searched meanwhile."""
    refresher, made, harmed = site.refresher(), [], []
    store = refresher.store

    def load_harmed(version, digest="", load=store.load_or_drop):
        if version and not harmed:
            harmed.append(version)
            harm(store.path(version))
        return load(version, digest)

    store.load_or_drop = load_harmed
    refresher.background.make = lambda rows: made.append(np.array(rows)) or made[-1]
    with killed_after(
        nursery, nursery.start("refresh", tmp_path / "log", "--run", site.run, "--device", "cpu")
    ):
        try:
            _, longest = trained(site, refresher, lambda: harmed and refresher.version > 0)
        finally:
            refresher.close()
    record_property("longest", longest)
    assert any(f"v{harmed[0]}" in s and "set aside" in s for s in site.said), site.said
    assert longest < STALL and all(
        rows.std() > 0 and rows.shape == (len(site.corpus), 8) for rows in made
    )


def test_a_snapshot_that_goes_away_while_it_is_opened(tmp_path, monkeypatch):
    "torch says so with a RuntimeError; the builder takes it for damage, and waits for another."
    snapshots = Snapshots(tmp_path)
    snapshots.publish(5, {"weight": torch.ones(2, 2)}, {})

    def gone(path):
        os.remove(path)
        torch.UntypedStorage.from_file(str(path), False, 1)

    monkeypatch.setattr(builder, "load_file", gone)
    with pytest.raises(builder.Damaged, match="another will come"):
        snapshots.load(5)


def test_clock_jumps(site, nursery, tmp_path, monkeypatch, record_property):
    "Both clocks jump by years at every look, and files are of 1970: nobody is taken for dead."
    now = time.time
    monkeypatch.setattr(
        time, "time", lambda: now() + random.choice((-1, 1)) * 10 ** random.randint(3, 8)
    )
    refresher = site.refresher(patience=20)

    def done():
        with contextlib.suppress(OSError):  # folders come and go
            for path in site.run.rglob("*.json"):
                os.utime(path, (0, 0))
        return (refresher.version or 0) >= 10

    with killed_after(
        nursery,
        nursery.start(
            "refresh", tmp_path / "log", "--run", site.run, "--device", "cpu", fault="clock"
        ),
    ):
        try:
            _, longest = trained(site, refresher, done)
        finally:
            refresher.close()
    record_property("longest", longest)
    assert (
        site.said == []
        and longest < STALL
        and refresher.staleness(site.step)["stale_seconds"] < LONG
    )


def test_snapshot_overtaken(site, nursery, tmp_path):
    for step in (1, 2, 3):
        site.publish(step)
    with killed_after(
        nursery,
        nursery.start(
            "refresh", tmp_path / "log", "--run", site.run, "--device", "cpu", fault="slow:0.2"
        ),
    ):
        until(
            lambda: read_heartbeat(site.run / "builders/1-of-1.json").get("phase") == "embedding",
            what="embedding",
        )
        for step in (4, 5):
            last = site.publish(step)
        until(lambda: site.store.has(5, last), what="v5")
    assert site.whole() in ([0, 3, 5], [0, 5])
    log = (tmp_path / "log").read_text()
    assert (
        "embedded s3" in log
        and "overtaken: s1, s2" in log
        and "embedded s4" not in log
        and "overtaken: s4" in log
    )


def test_shards_on_several_hosts(site, nursery, tmp_path):
    "Three builders, one of them killed and started again: one version of all their parts."

    def argv(i):
        flags = ("--run", site.run, "--device", "cpu", "--shard", f"{i}/3")
        return ("refresh", tmp_path / f"log{i}", *flags)

    digest = site.publish(7)
    assert nursery.wait(nursery.start(*argv(2), "--once", fault="settle:1")) == -9
    with contextlib.ExitStack() as stack:
        for i in (1, 2, 3):
            stack.enter_context(killed_after(nursery, nursery.start(*argv(i))))
        until(lambda: site.store.has(7, digest), what="v7")
        assert (
            nursery.wait(nursery.start(*argv(2))) == 2
            and "builder 2/3 is at work" in (tmp_path / "log2").read_text()
        )
    assert np.abs(site.store.load(7) - site.embed()).max() < 1e-4


def test_a_bound_on_staleness_waits_and_says_so(site):
    "Nobody builds: the trainer waits once, then makes the versions itself, and the bound is kept."
    refresher = site.refresher(max_staleness=5, max_wait=0.3)
    ages = []
    try:
        for step in range(40):
            refresher.before(step)
            site.change()
            ages.append(refresher.staleness(step)["stale"])
    finally:
        refresher.close()
    assert (
        len(site.said) == 3
        and "at step 6 the index is 6 steps old, more than 5" in site.said[0]
        and "none came" in site.said[1]
        and "built v6 in the trainer" in site.said[2]
    ), site.said
    health = refresher.health()
    assert max(ages) == 5 == health["longest_stale"] and not health["degraded"]
    assert health["built_here"] >= 5 and health["versions"] == health["built_here"] + 1


def test_a_builder_that_always_fails_is_replaced_and_tried_again(site, nursery, tmp_path):
    """Its budget is spent within seconds: from then on the trainer makes the versions, and says so
    once, until one of a builder is there."""
    broken = Supervisor([sys.executable, "-c", "exit(3)"], site.run / "builders/broken", site.log)
    broken.slowest = 0.1
    refresher = site.refresher(supervisor=broken)
    try:
        trained(site, refresher, lambda: broken.spent and refresher.built)
        refresher.longest = 0
        trained(site, refresher, lambda: refresher.built >= 4, each=0.1)
        failed, health = broken.failures, refresher.health()
        assert refresher.longest <= 2 * refresher.every + 1 and not health["degraded"], health
        assert health["builder_failures"] >= 5 and health["built_here"] >= 4
        trained(site, refresher, lambda: broken.failures > failed)
        flags = ("--run", site.run, "--device", "cpu")
        with killed_after(nursery, nursery.start("refresh", tmp_path / "log", *flags)):
            trained(site, refresher, lambda: refresher.patient, each=0.1)
            broken.look = lambda: None
            trained(site, refresher, lambda: not broken.spent, each=0.1)
            built = refresher.built
            trained(
                site, refresher, lambda n=refresher.changes: refresher.changes > n + 1, each=0.1
            )
            assert refresher.built == built
    finally:
        refresher.close()
    said = [line for line in site.said if "in the trainer" in line]
    assert said and all("no builder is to be relied on" in line for line in said)
    assert any("5 failures and no version; starting it again in" in line for line in site.said)
    assert len(site.whole()) <= 5, "and the old ones are taken away"


def test_a_budget_is_one_of_time(tmp_path, monkeypatch):
    "Failures are forgotten after a while; waits grow, up to a minute; nothing is given up."
    now, lines = [1000.0], []
    monkeypatch.setattr(supervising.time, "monotonic", lambda: now[0])
    s = Supervisor(["nobody-has-this-command"], tmp_path / "b", lines.append)
    for _ in range(12):
        now[0] = s.next_start
        s.look()
    waits = [int(line.split(" in ")[-1].split()[0]) for line in lines]
    assert waits == [1, 2, 4, 8, 16, 32, *[60] * 6] and "cannot be started" in lines[0]
    assert s.spent and s.failures == 12 and s.process is None
    now[0] += s.window + 1
    assert not s.spent
    s.look()
    assert lines[-1].endswith("starting it again in 1 s") and s.failures == 13


def test_a_full_disk_does_not_end_training_when_the_trainer_must_build(site, monkeypatch):
    "Nor does it build at every step: the next time is when a version is due again."
    refresher, tried = site.refresher(max_staleness=5, max_wait=0), []

    def full(step, *_):
        tried.append(step)
        raise OSError(errno.ENOSPC, "No space left on device")

    with contextlib.closing(refresher):
        refresher.before(0)
        monkeypatch.setattr(refresher.store, "publish", full)
        for step in range(1, 40):
            refresher.before(step)
    health = refresher.health()
    assert 2 <= len(tried) <= 8 and refresher.version == 0, tried
    assert any("No space left" in line for line in site.said)
    assert health["degraded"] and "39 steps old, more than --max-staleness 5" in health["why"]


def test_health_names_a_refresh_that_stopped(site):
    "Nobody builds, and nobody set a bound: one line while it goes on, and the end says so."
    refresher, lines = site.refresher(), []
    refresher.log = lines.append
    with contextlib.closing(refresher):
        for step in range(60):
            refresher.before(step)
            early = refresher.health()["degraded"] if step == 20 else False
            assert not early
    health = refresher.health()
    assert health["degraded"] and "no version in 59 steps" in health["why"]
    assert len(lines) == 1 and "no version in 26 steps" in lines[0]
    assert health["longest_stale"] == 59 and health["versions"] == 1 and not health["built_here"]


def test_a_builder_killed_and_stopped_at_random_moments(site, nursery, tmp_path):
    "Fourteen times, under a trainer with a bound; every version that is seen is whole."
    g, refresher = random.Random(1), site.refresher(max_staleness=60, max_wait=0.5)
    ages = []

    def step_until(seconds, done=lambda: False):
        end, n = time.monotonic() + seconds, getattr(site, "step", -1) + 1
        while time.monotonic() < end and not done():
            refresher.before(n)
            ages.append(refresher.staleness(n)["stale"])
            assert refresher.index.shape == (len(site.corpus), 8)
            site.change()
            time.sleep(0.01)
            site.step, n = n, n + 1

    flags = ("--run", site.run, "--device", "cpu")
    try:
        for turn in range(14):
            with killed_after(nursery, nursery.start("refresh", tmp_path / "log", *flags)) as pid:
                step_until(g.uniform(0.05, 1.5))
                if turn % 2:
                    os.kill(pid, signal.SIGSTOP)
                    step_until(g.uniform(0.1, 0.5))
                    os.kill(pid, signal.SIGCONT)
                    step_until(g.uniform(0.1, 0.5))
            site.whole()
        with killed_after(nursery, nursery.start("refresh", tmp_path / "log", *flags)):
            last = site.step
            step_until(LONG, lambda: refresher.version > last and refresher.patient)
    finally:
        refresher.close()
    assert refresher.version > last and max(ages) <= 60 and not refresher.health()["degraded"]
    assert "Traceback" not in (tmp_path / "log").read_text()
    site.whole()


def test_weights_that_are_not_finite_make_no_version(site, nursery, tmp_path):
    "The builder says so once, and does not try again; the next snapshot is built."
    flags = ("--run", site.run, "--device", "cpu")
    bias = site.embedder.dense.bias
    with torch.no_grad():
        good = bias.clone()
        bias[0] = float("nan")
    site.publish(4)
    with killed_after(nursery, nursery.start("refresh", tmp_path / "log", *flags)):
        until(lambda: "left alone" in (tmp_path / "log").read_text(), what="the line")
        time.sleep(1.5)
        with torch.no_grad():
            bias.copy_(good)
        digest = site.publish(6)
        until(lambda: site.store.has(6, digest), what="v6")
    log = (tmp_path / "log").read_text()
    assert log.count("not finite") == 1 and "Traceback" not in log, log
    assert site.whole() == [0, 6]


def test_a_trainer_whose_vectors_are_not_finite_ends_with_a_line(site):
    rows = site.embed()
    rows[3, 2] = np.inf
    digest = module_digest(site.embedder)
    refresher = Refresher(site.store, lambda: rows, lambda: "other", 5)
    with pytest.raises(UserError, match="vectors that are not finite") as told:
        refresher.before(5)
    assert "\n" not in str(told.value)
    assert site.store.versions() == [0] and site.store.has(0, digest)
    assert not list(site.run.rglob("*.tmp"))


NONSENSE = [
    ["--shard", text]
    for text in (
        "0/0",
        "2/1",
        "1/10000",
        "x",
        "",
        "1",
        "1/",
        "-1/2",
        "1/2/3",
        "9" * 400 + "/1",
        "²/3",
    )
]
NONSENSE += [
    ["--cores", text]
    for text in ("5-2", "0-999999999", "-1", "1,", "all", "1--3", "99999999999999", "٣", "0-9999")
]
NONSENSE += [["--device", text] for text in ("cuda:99", "", "gpux", "meta", "cpu:7", "x" * 3000)]
NONSENSE += [["--run", text] for text in ("", "/dev/null", "nowhere", "/", "\0", "x" * 5000)]
NONSENSE += [["--once", "perhaps"], ["--nothing"], ["more"], ["--shard"]]


@pytest.mark.parametrize("flags", NONSENSE, ids=lambda flags: " ".join(flags)[:24] or "none")
def test_build_refuses_nonsense_in_one_line(site, monkeypatch, capfd, flags):
    "Status 2, and nothing is written."
    monkeypatch.chdir(site.run)
    site.publish(3)
    before = sorted(site.run.rglob("*"))
    cores = os.sched_getaffinity(0)
    try:
        assert builder.main(["--run", str(site.run), *flags]) == 2
    finally:
        os.sched_setaffinity(0, cores)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert sorted(site.run.rglob("*")) == before


def test_build_refuses_a_run_that_has_nothing_to_build(tmp_path, capfd):
    "No snapshot: with --once, and where the run's settings say that there will be none."
    run = tmp_path / "run"
    run.mkdir()
    config = run / "config.json"
    texts = '{"pretrain": {"refresh": "sync"}}', '{"pretrain": []}', "[]", "{", "\udcff"
    for text in (*texts, '{"pretrain": {"refresh": "async"}}'):
        config.write_bytes(text.encode("utf-8", "surrogateescape"))
        once = ["--once"] if "async" in text else []
        assert builder.main(["--run", str(run), "--device", "cpu", *once]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert ("no snapshot" in line) == ("sync" in text) and "error: " in line
        assert list(run.iterdir()) == [config]


@contextlib.contextmanager
def small_disk(folder, size):
    "A tmpfs of `size` on `folder`; yields a function that makes it larger."
    folder.mkdir(parents=True, exist_ok=True)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("may not mount a tmpfs here")
    try:
        yield lambda size: subprocess.run(
            ["mount", "-o", f"remount,size={size}", str(folder)], check=True
        )
    finally:
        subprocess.run(["umount", "-l", str(folder)])


def test_disk_full_for_the_builder(site, nursery, tmp_path, record_property):
    """No half-written version, one line a failure, training goes on; with more room the versions
    come."""
    rows, log = site.store.load(0).copy(), tmp_path / "log"

    def full():
        return log.exists() and "No space left" in log.read_text()

    with small_disk(site.run / "index", f"{rows.nbytes // 1024 + 24}k") as enlarge:
        refresher = site.refresher()
        site.store.publish(0, rows, module_digest(site.embedder))
        with killed_after(
            nursery,
            nursery.start("refresh", tmp_path / "log", "--run", site.run, "--device", "cpu"),
        ):
            try:
                _, one = trained(site, refresher, full)
                assert site.whole() == [0] and refresher.version == 0
                enlarge("8m")
                _, two = trained(site, refresher, lambda: refresher.version > 0)
            finally:
                refresher.close()
        assert site.whole()[0] == 0
    record_property("longest", max(one, two))
    assert max(one, two) < STALL


# ---- trainers

SMALL = [
    "--recipe",
    "smoke",
    "--corpus.max_documents",
    40,
    "--warmup.steps",
    0,
    "--ict.steps",
    2,
    "--ict.batch",
    4,
    "--pretrain.steps",
    8,
    "--pretrain.refresh_every",
    3,
    "--pretrain.save_every",
    2,
    "--pretrain.batch",
    2,
    "--pretrain.candidates",
    3,
    "--model.dropout",
    0.1,
]
ALL = "corpus,mask,ict,pretrain"


def metrics(run):
    return [
        m
        for line in (run / "metrics.jsonl").read_text().splitlines()
        if (m := json.loads(line))["stage"] == "pretrain"
    ]


@pytest.fixture(scope="module")
def prepared(nursery, tmp_path_factory):
    "A run up to pre-training, and the same run finished without a break; how long that took."
    folder = tmp_path_factory.mktemp("runs")

    def train(run, stages):
        flags = ("--run", run, "--stages", stages)
        return nursery.wait(nursery.start("train", folder / "log", *SMALL, *flags))

    assert train(folder / "start", "corpus,mask,ict") == 0, (folder / "log").read_text()
    shutil.copytree(folder / "start", folder / "whole")
    began = time.monotonic()
    assert train(folder / "whole", ALL) == 0, (folder / "log").read_text()
    return folder / "start", folder / "whole", time.monotonic() - began


def same(run, whole):
    weights = "checkpoints/pretrain/step_8/towers.safetensors"
    assert [(m["step"], m["loss"]) for m in metrics(run)] == [
        (m["step"], m["loss"]) for m in metrics(whole)
    ]
    assert (run / weights).read_bytes() == (whole / weights).read_bytes()


def test_trainer_killed_at_ten_random_points(nursery, prepared, tmp_path, record_property):
    """Sync mode: whenever it is killed, what was saved is there, and in the end the run is that of
    no break, to the bit."""
    start, whole, seconds = prepared
    g, kills, finished, run = random.Random(0), 0, 0, None
    while kills < 10 or not finished:
        if run is None:
            run = shutil.copytree(start, tmp_path / f"run{finished}")
        pid = nursery.start("train", tmp_path / "log", *SMALL, "--run", run, "--stages", ALL)
        if kills < 10:
            time.sleep(g.uniform(0, seconds))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        status = nursery.wait(pid)
        kills += status == -9
        for meta in run.glob("checkpoints/pretrain/step_*/optimizer.safetensors"):
            assert (meta.parent / "meta.json").exists() or status == -9
        IndexStore(run / "index").load(0)
        assert status in (-9, 0), (tmp_path / "log").read_text()
        if status == 0:
            same(run, whole)
            finished, run = finished + 1, None
    record_property("kills", kills)


def test_two_trainers(nursery, prepared, tmp_path):
    "The second is refused in one line, and the first does not notice."
    start, whole, _ = prepared
    run = shutil.copytree(start, tmp_path / "run")
    argv = [*SMALL, "--run", run, "--stages", ALL]
    first = nursery.start("train", tmp_path / "first", *argv)
    until(
        lambda: (
            (run / "trainer.lock").exists() and str(first) in (run / "trainer.lock").read_text()
        ),
        what="the lock",
    )
    os.kill(first, signal.SIGSTOP)
    assert nursery.wait(nursery.start("train", tmp_path / "second", *argv)) == 2
    os.kill(first, signal.SIGCONT)
    (line,) = (tmp_path / "second").read_text().strip().splitlines()
    assert line.startswith("error: a trainer is at work on") and "--run" in line
    assert nursery.wait(first) == 0
    same(run, whole)


def test_disk_full_for_the_trainer(nursery, prepared, tmp_path):
    """One line and status 2, the checkpoint before is whole; with more room the run goes on and
    ends the same."""
    start, whole, _ = prepared
    run = shutil.copytree(start, tmp_path / "run")
    argv = [*SMALL, "--run", run, "--stages", ALL]
    size = sum(f.stat().st_size for f in (whole / "checkpoints/pretrain/step_8").iterdir())
    with small_disk(run / "checkpoints" / "pretrain", int(size * 1.5)) as enlarge:
        assert nursery.wait(nursery.start("train", tmp_path / "log", *argv)) == 2
        line = (tmp_path / "log").read_text().strip().splitlines()[-1]
        assert (
            line.startswith("error: cannot write to")
            and "no space left" in line
            and "Traceback" not in (tmp_path / "log").read_text()
        )
        assert [p.name for p in (run / "checkpoints/pretrain").iterdir()] == ["step_2"], (
            "the one before, and nothing half-written"
        )
        enlarge(size * 6)
        assert nursery.wait(nursery.start("train", tmp_path / "log", *argv)) == 0, (
            tmp_path / "log"
        ).read_text()
        same(run, whole)


def test_async_trainer_killed_leaves_no_orphan_and_goes_on(
    nursery, prepared, tmp_path, record_property
):
    """The whole command in async mode: versions are swapped in, kill -9 ends the builder too, and
    the same command goes on to the end."""
    run = tmp_path / "run"
    argv = [
        *SMALL,
        "--run",
        run,
        "--stages",
        ALL,
        "--refresh",
        "async",
        "--pretrain.steps",
        100000,
        "--pretrain.save_every",
        5,
    ]
    pid = nursery.start("train", tmp_path / "log", *argv)
    with killed_after(nursery, pid):
        until(
            lambda: (
                (run / "metrics.jsonl").exists()
                and any(m["stale"] < m["step"] - 1 for m in metrics_so_far(run))
            ),
            what="a swap",
        )
        builder = int(read_heartbeat(run / "builders/1-of-1.json")["who"].rsplit("-", 1)[1])
        until(lambda: list(run.glob("checkpoints/pretrain/step_*/meta.json")), what="a checkpoint")
    until(lambda: not Path(f"/proc/{builder}").exists(), 30, what="the end of the builder")
    saved = json.loads(next(iter(run.glob("checkpoints/pretrain/step_*/meta.json"))).read_text())
    IndexStore(run / "index").load(saved["index"])
    last = metrics_so_far(run)[-1]["step"]
    with killed_after(nursery, nursery.start("train", tmp_path / "log", *argv)):
        until(
            lambda: (
                "going on from step" in (tmp_path / "log").read_text()
                and metrics_so_far(run)[-1]["step"] > last
            ),
            what="more steps",
        )
    steps = metrics_so_far(run)
    assert [m["step"] for m in steps] == list(range(1, len(steps) + 1))
    record_property(
        "longest", max(m["waited"] for m in steps[1:] if m["step"] != saved["step"] + 1)
    )
    assert {"stale", "stale_seconds"} <= steps[0].keys() and all(m["stale"] >= 0 for m in steps)


def metrics_so_far(run):
    out = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        with contextlib.suppress(ValueError):
            out.append(json.loads(line))
    return [m for m in out if m["stage"] == "pretrain"]


def test_a_version_in_use_outlives_pruning(site):
    "As long as a trainer holds it; and one that a checkpoint names, always."
    for v in (1, 2, 3, 4):
        site.store.publish(v, np.full((3, 2), v, np.float32), "d")
    checkpoint = site.run / "checkpoints/pretrain/step_9"
    checkpoint.mkdir(parents=True)
    (checkpoint / "meta.json").write_text('{"index": 2}')
    site.store.prune(held={1})
    assert site.store.versions() == [0, 1, 2, 3, 4] and (site.store.load(1) == 1).all()
    site.store.prune()
    assert site.store.versions() == [0, 2, 3, 4]


def test_a_trainer_holds_what_it_searches(site):
    "Versions come faster than it swaps: the one that it searches and those just made stay."
    refresher = site.refresher()
    refresher.before(0)
    refresher.close()
    background = refresher.background
    background.digests = dict.fromkeys(range(1, 7), "d")
    for v in range(1, 7):
        site.store.publish(v, np.full((3, 2), v, np.float32), "d")
        background.fetch()
        if v == 2:
            refresher.before(0)
    assert refresher.version == 2 and site.store.versions() == [0, 2, 5, 6]
    assert (refresher.index == 2).all()
