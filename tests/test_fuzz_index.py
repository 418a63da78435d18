"""What a version, a part, a snapshot or a heartbeat may be turned into, and what comes of it.

REALM_NB_FUZZ=10000 tries so many of each."""

import contextlib
import io
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertModel

from realm_nb.builder.builder import (
    Builder,
    Snapshots,
    cpu_state_dict,
    embedder_from_snapshot,
    read_heartbeat,
    snapshot_meta,
)
from realm_nb.builder.supervisor import PeerMonitor, Supervisor
from realm_nb.core.errors import UserError
from realm_nb.core.files import remove, seal
from realm_nb.refresh import Damaged, IndexStore
from realm_nb.store import build_store
from realm_nb.text.documents import read_corpus
from realm_nb.text.tokenizer import tiny_tokenizer
from realm_nb.towers import Embedder

CASES = int(os.environ.get("REALM_NB_FUZZ", 120))
fuzzed = settings(
    deadline=None,
    max_examples=CASES,
    suppress_health_check=list(HealthCheck),
    derandomize=CASES < 1000,
    database=None,
)
few = settings(fuzzed, max_examples=max(25, CASES // 5))

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**18, 10**40)
    | st.floats()
    | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)
as_json = values.map(lambda value: json.dumps(value).encode())
nested = st.integers(1, 40_000).map(lambda n: b"[" * n)
raw = st.binary(max_size=80) | as_json | nested | st.just(b"{}") | st.just(b"[]")


@st.composite
def harm(draw):
    "What is done to the bytes of a file: bytes -> bytes."
    kind = draw(st.sampled_from(["other", "flip", "cut", "longer", "zeroed", "moved"]))
    if kind == "other":
        other = draw(raw)
        return lambda old: other
    at, what = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(1, 255))

    def change(old):
        i = int(at * len(old))
        if kind == "cut":
            return old[:i]
        if kind == "longer":
            return old + bytes([what]) * (i + 1)
        if kind == "zeroed":
            return old[:i] + bytes(min(what, len(old) - i)) + old[i + what :]
        if kind == "moved":
            return old[i:] + old[:i]
        return old[:i] + bytes([old[i] ^ what]) + old[i + 1 :]

    return change


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "A version, a snapshot and a corpus, and what all of it was: (folder, files, rows, digest)."
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REALM_NB_HOME", str(home))
        documents = list(read_corpus("mini", 20))
        tokenizer = tiny_tokenizer((d.text for d in documents), 300)
        corpus = build_store(documents, tokenizer, home / "corpus", max_block_len=40)
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
        )
        embedder = Embedder(BertModel(config, add_pooling_layer=False), 4).eval()
        run = home / "run"
        meta = snapshot_meta(embedder, corpus, "fp32")
        digest = Snapshots(run / "snapshots").publish(5, cpu_state_dict(embedder), meta)
        builder = Builder(run, device="cpu")
        with contextlib.redirect_stdout(io.StringIO()):
            builder.turn(5)
        yield run, digest


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def put(folder: Path, files: dict[str, bytes]):
    remove(folder)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def every_change(files: dict[str, bytes], arrays: str):
    "Each byte of the small files changed, and 400 of the array's and of its header, one by one."
    g = random.Random(0)
    for name, content in files.items():
        places = range(len(content))
        if name == arrays:
            places = {*range(128), *g.sample(places, min(400, len(content)))}
        for at in places:
            yield name, content[:at] + bytes([content[at] ^ g.randint(1, 255)]) + content[at + 1 :]


def test_every_changed_byte_of_a_version_is_detected(site, tmp_path):
    run, digest = site
    store, files = IndexStore(tmp_path), files_of(run / "index" / "v5")
    assert set(files) == {"embeddings.npy", "manifest.json", "sums.json"}
    put(store.path(5), files)
    want = np.array(store.load(5, digest))
    tried = 0
    for name, content in every_change(files, "embeddings.npy"):
        path = store.path(5) / name
        path.write_bytes(content)
        with pytest.raises(Damaged, match=r"index version .* is damaged"):
            store.load(5, digest)
        path.write_bytes(files[name])
        tried += 1
    assert tried > 800 and (store.load(5, digest) == want).all()


def test_every_changed_byte_of_a_snapshot_is_detected(site, tmp_path):
    run, digest = site
    snapshots, files = Snapshots(tmp_path), files_of(run / "snapshots" / "s5")
    assert set(files) == {"embedder.safetensors", "meta.json", "sums.json"}
    put(snapshots.path(5), files)
    tried = 0
    for name, content in every_change(files, "embedder.safetensors"):
        path = snapshots.path(5) / name
        path.write_bytes(content)
        with pytest.raises(Damaged, match=r"snapshot .* is damaged .*; another will come"):
            snapshots.load(5)
        path.write_bytes(files[name])
        tried += 1
    assert tried > 1500 and snapshots.load(5)[1]["digest"] == digest


@fuzzed
@given(st.sampled_from(["embeddings.npy", "manifest.json", "sums.json"]), harm())
def test_a_version_is_what_it_was_or_damaged(site, tmp_path_factory, name, change):
    run, digest = site
    files = files_of(run / "index" / "v5")
    store = IndexStore(SCRATCH.setdefault("version", tmp_path_factory.mktemp("version")))
    put(store.path(5), files | {name: change(files[name])})
    store.has(5, digest)
    store.prune()
    if change(files[name]) == files[name]:
        assert len(store.load(5, digest)) > 0
        return
    with pytest.raises(Damaged):
        store.load_or_drop(5, digest)
    assert store.versions() == []


SCRATCH: dict = {}  # folders, each made once

arrays = st.sampled_from(
    [
        np.zeros((3, 4), np.float64),
        np.zeros((3, 4), ">f4"),
        np.zeros((3, 4), np.int32),
        np.zeros((4, 3), np.float32),
        np.zeros(12, np.float32),
        np.zeros((3, 4, 1), np.float32),
        np.zeros((0, 4), np.float32),
        np.full((3, 4), np.nan, np.float32),
        np.full((3, 4), -np.inf, np.float32),
        np.zeros((3, 4), np.float32),
    ]
)


@fuzzed
@given(arrays, values, values, values, st.booleans())
def test_a_sealed_version_is_of_its_manifest_or_damaged(
    site, tmp_path_factory, array, manifest, count, dim, plausible
):
    "Sealed by someone who is not us: shape, type, embedder and numbers are still looked at."
    store = IndexStore(SCRATCH.setdefault("sealed", tmp_path_factory.mktemp("sealed")))
    if plausible:
        manifest = {"embedder": "d", "count": 3, "dim": 4}
    elif isinstance(manifest, dict):
        manifest |= {"embedder": "d", "count": count, "dim": dim}
    put(store.path(1), {"manifest.json": json.dumps(manifest).encode()})
    np.save(store.path(1) / "embeddings.npy", array)
    seal(store.path(1))
    fits = plausible and array.dtype == "<f4" and array.shape == (3, 4)
    if fits and np.isfinite(array).all():
        assert store.load(1, "d").shape == (3, 4)
        return
    with pytest.raises(Damaged):
        rows = store.load(1, "d")
        assert manifest["count"] == len(rows) and rows.shape == array.shape  # it may have guessed
        raise Damaged("it fits after all")


@fuzzed
@given(st.sampled_from(["embedder.safetensors", "meta.json", "sums.json"]), harm())
def test_a_snapshot_is_what_it_was_or_damaged(site, tmp_path_factory, name, change):
    run, digest = site
    files = files_of(run / "snapshots" / "s5")
    snapshots = Snapshots(SCRATCH.setdefault("snapshot", tmp_path_factory.mktemp("snapshot")))
    put(snapshots.path(5), files | {name: change(files[name])})
    told = snapshots.digest(5)
    assert told is None or isinstance(told, str)
    if change(files[name]) == files[name]:
        assert snapshots.load(5)[1]["digest"] == digest
        return
    with pytest.raises(Damaged):
        snapshots.load(5)


FIELDS = ["step", "digest", "bert", "embedder", "corpus", "blocks", "stored", "precision", "x"]


@few
@given(st.dictionaries(st.sampled_from(FIELDS), values, min_size=1, max_size=3), st.booleans())
def test_a_sealed_snapshot_of_other_kinds_is_one_line(site, tmp_path_factory, changed, dropped):
    "Facts of other kinds, or missing: damaged, or a line that says what is not on this host."
    run, _ = site
    snapshots = Snapshots(SCRATCH.setdefault("sealed s", tmp_path_factory.mktemp("sealed-s")))
    files = files_of(run / "snapshots" / "s5")
    meta = json.loads(files["meta.json"]) | changed
    if dropped:
        meta = {name: value for name, value in meta.items() if name not in changed}
    files["meta.json"] = json.dumps(meta).encode()
    put(snapshots.path(5), {name: files[name] for name in ("embedder.safetensors", "meta.json")})
    seal(snapshots.path(5))
    try:
        state, told = snapshots.load(5)
        embedder_from_snapshot(state, told)
    except UserError as e:
        assert "\n" not in str(e)


@few
@given(st.sampled_from(["embeddings.npy", "manifest.json", "sums.json", ""]), harm(), st.booleans())
def test_a_damaged_part_is_made_again(site, tmp_path_factory, name, change, resealed):
    "Whatever becomes of a part, the version that is published in the end is the right one."
    run, digest = site
    folder = SCRATCH.setdefault("parts", tmp_path_factory.mktemp("parts")) / "run"
    remove(folder)
    shutil.copytree(run / "snapshots", folder / "snapshots")
    one, two = Builder(folder, 1, 2, "cpu"), Builder(folder, 2, 2, "cpu")
    with contextlib.redirect_stdout(io.StringIO()):
        one.turn(5)
        part = folder / "index/parts/s5-2/1"
        if name:
            path = part / name
            path.write_bytes(change(path.read_bytes()))
            if resealed and name != "sums.json":
                seal(part)
        else:
            remove(part)
        for _ in range(3):
            for builder in (two, one):
                with contextlib.suppress(Damaged):
                    builder.turn(5)
    for builder in (one, two):
        builder.heartbeat.close()
    rows = one.store.load(5, digest)
    want = IndexStore(run / "index").load(5)
    # a part that is sealed again after it was changed, and still looks like one, is taken
    assert rows.shape == want.shape
    if not resealed:
        assert np.abs(rows - want).max() < 1e-5


@fuzzed
@given(
    raw
    | st.fixed_dictionaries({}, optional=dict.fromkeys(("count", "who", "phase", "step"), values))
    .map(lambda said: json.dumps(said).encode())
    .filter(len)
)
def test_a_heartbeat_says_something_or_nothing(tmp_path_factory, content):
    folder = SCRATCH.setdefault("beats", tmp_path_factory.mktemp("beats"))
    path = folder / "1-of-1.json"
    path.write_bytes(content)
    said = read_heartbeat(path)
    assert said == {} or (
        isinstance(said["count"], int)
        and isinstance(said["who"], str)
        and isinstance(said.get("phase", ""), str)
    )
    lines: list[str] = []
    PeerMonitor(folder, -1, lines.append).look()
    assert len(lines) == 1
    supervisor = Supervisor(["nobody"], folder / "1-of-1", lines.append)

    class Alive:
        pid = 1
        poll = staticmethod(lambda: None)

    supervisor.process = Alive()
    supervisor.look()
    assert supervisor.failures == 0


@fuzzed
@given(st.text(max_size=8).filter(lambda s: "/" not in s and "\0" not in s), st.integers(0, 50))
def test_only_our_names_are_versions(tmp_path_factory, junk, step):
    folder = SCRATCH.setdefault("names", tmp_path_factory.mktemp("names")) / "index"
    remove(folder)
    store = IndexStore(folder)
    store.path(step).mkdir(parents=True)
    with contextlib.suppress(OSError, UnicodeEncodeError):
        (folder / f"v{junk}").mkdir()
    others = set(store.versions()) - {step}
    assert all(store.path(other).name == f"v{junk}" for other in others)
