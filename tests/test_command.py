"One command, `realm`, and the front door of the library."

import doctest
import os
import subprocess
import sys

import pytest

import realm_nb
from realm_nb.__main__ import COMMANDS, main


def call(*words, **more):
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, **more)


def test_realm_lists_its_commands(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    for name, (_, what) in COMMANDS.items():
        assert f"  {name} " in said and what in said


def test_an_unknown_command_is_one_line(capsys):
    assert main(["trian"]) == 2
    said = capsys.readouterr().err
    assert said == "error: unknown command 'trian'; did you mean train or tag?\n", said


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_a_screen(name):
    done = call("realm_nb", name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: realm {name}")
    assert len(done.stdout.splitlines()) <= 50
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_the_old_spellings_stay():
    for module, name in (("train", "train"), ("show.app", "app"), ("qa.ask", "ask")):
        done = call(f"realm_nb.{module.split('.')[-1]}", "--help")
        assert done.returncode == 0 and done.stdout.startswith(f"usage: realm {name}"), done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_flag_names_the_nearest(name, capsys):
    words = {"tag": ["tag", "report"], "fetch": ["fetch", "list"], "ask": ["ask", "who?"]}
    words["convert"] = ["convert", "from", "to"]
    assert main([*words.get(name, [name]), "--hepl"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "--hepl" in said, said


def test_the_front_door_opens():
    for name in realm_nb.__all__:
        assert getattr(realm_nb, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = realm_nb.nothing


def test_the_front_door_costs_nothing_until_it_is_used():
    code = "import realm_nb, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_the_example_in_the_docstring_is_true(monkeypatch, tmp_path):
    monkeypatch.setenv("REALM_NB_HOME", str(tmp_path))
    monkeypatch.setenv("REALM_NB_QUIET", "1")
    found = doctest.testmod(realm_nb)
    assert found.attempted >= 6 and not found.failed
    assert os.environ["REALM_NB_HOME"] == str(tmp_path)
