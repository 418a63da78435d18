"The house: which rooms may know which, one step on one screen, and a library that stays readable."

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "realm_nb"
WINGS = ("core", "text", "builder", "hub", "qa", "show")
SHIMS = {"app.py", "ask.py", "__main__.py", "__init__.py", "_modidx.py"}


def rooms_imported(path: Path) -> set[str]:
    "The first part of every module of this library that `path` imports, anywhere in it."
    found, package = set(), path.relative_to(LIBRARY).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level], *filter(None, [node.module])]
            names = [".".join(["realm_nb", *base]) if node.level else node.module]
        else:
            continue
        found |= {n.split(".")[1] for n in names if n.startswith("realm_nb.")}
    return found


STORY = sorted(p for p in LIBRARY.glob("*.py") if p.name not in SHIMS)
LOWER = sorted(p for wing in ("core", "text") for p in (LIBRARY / wing).glob("*.py"))
name_of = lambda path: path.relative_to(LIBRARY).as_posix()


@pytest.mark.parametrize("path", LOWER, ids=name_of)
def test_core_and_text_import_no_story(path):
    allowed = {"core"} if path.parent.name == "core" else {"core", "text"}
    assert rooms_imported(path) <= allowed


@pytest.mark.parametrize("path", STORY, ids=name_of)
def test_no_story_imports_builder_hub_qa_or_show(path):
    assert len(STORY) >= 12
    assert not rooms_imported(path) & {"builder", "hub", "qa", "show"}


def test_the_stages_of_the_paper_stand_on_top():
    names = {p.stem for p in STORY}
    assert {"store", "spans", "masking", "towers", "ict", "retrieval", "marginal"} <= names
    assert {"pretrain", "refresh", "evaluate", "workspace", "train"} <= names
    for wing in WINGS:
        assert list((LIBRARY / wing).glob("*.py")) and list((ROOT / "nbs" / wing).glob("*.ipynb"))


@pytest.fixture(scope="module")
def step_calls(tmp_path_factory):
    "The (file, function) pairs of the library that one step of the paper's model calls."
    from realm_nb.masking import Masker
    from realm_nb.pretrain import Realm, realm_step
    from realm_nb.retrieval import ExactIndex
    from realm_nb.spans import tag_store
    from realm_nb.store import build_store
    from realm_nb.text.documents import read_corpus
    from realm_nb.text.taggers import RuleTagger
    from realm_nb.text.tokenizer import tiny_tokenizer
    from realm_nb.towers import tiny_towers

    documents = list(read_corpus("mini"))[:20]
    tokenizer = tiny_tokenizer(d.text for d in documents)
    store = build_store(documents, tokenizer, tmp_path_factory.mktemp("step") / "store", 64)
    masker = Masker(store, tag_store(store, RuleTagger()))
    realm = Realm(tiny_towers(len(tokenizer)), store)
    index = ExactIndex(realm.build_index(bar=False))
    examples, calls = masker.batch(masker.sentences[:4]), set()

    def profile(frame, event, _):
        code, path = frame.f_code, Path(frame.f_code.co_filename)
        if event == "call" and LIBRARY in path.parents and not code.co_name.startswith(("<", "__")):
            calls.add((path.relative_to(LIBRARY).as_posix(), code.co_qualname))

    sys.setprofile(profile)
    try:
        loss, _ = realm_step(realm, examples, index, 5)
    finally:
        sys.setprofile(None)
    assert loss.isfinite()
    return calls


def test_a_step_is_four_files_and_25_functions(step_calls):
    lookups = {name for file, name in step_calls if file == "store.py"}
    assert lookups <= {"TokenStore.body", "TokenStore.title_ids", "TokenStore.document_of", "_row"}
    plumbing = {"store.py", "core/packing.py", "core/device.py"}
    step = {(file, name) for file, name in step_calls if file not in plumbing}
    files = {file for file, _ in step}
    assert files == {"pretrain.py", "towers.py", "retrieval.py", "marginal.py"}
    assert len(step) <= 25, sorted(step)


def test_the_lesson_lists_what_a_step_calls(step_calls):
    lesson = (ROOT / "nbs/70_pretrain.ipynb").read_text(encoding="utf-8")
    listed = {
        row: re.findall(r"`(\w+)`", rest)
        for row, rest in re.findall(r"\| `(\w+)` \| (.+?) \|", lesson)
    }
    for file, name in step_calls:
        if "/" not in file and file != "store.py":
            assert name.split(".")[-1] in listed[file.removesuffix(".py")], (file, name)


def test_the_library_is_readable(capsys):
    spec = importlib.util.spec_from_file_location("readable", ROOT / "tools/readable.py")
    spec.loader.exec_module(readable := importlib.util.module_from_spec(spec))
    assert readable.main([]) == 0, capsys.readouterr().out


def test_what_is_hard_to_read_is_noticed(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("readable", ROOT / "tools/readable.py")
    spec.loader.exec_module(readable := importlib.util.module_from_spec(spec))
    long = "\n".join(f"    x{i} = {i}" for i in range(60))
    (tmp_path / "wrong.py").write_text(
        f'def f(a, b, c, d, e, f, g, h):\n    "The same."\n{long}\n'
        f'def shapeless(x: "torch.Tensor"):\n    "No shape."\n    return {"1" + " + 1" * 40}\n'
    )
    assert readable.main([str(tmp_path)]) == 1
    said = capsys.readouterr().out
    for name in list(readable.LIMITS)[2:]:
        assert re.search(rf"^{name} +1 .*too many", said, re.MULTILINE), name
