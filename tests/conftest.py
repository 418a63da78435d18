import os
import subprocess
import sys

import pytest

from realm_nb.text.sources import Unreachable


def unreachable(item):
    "Skip a `network` test whose download cannot be reached."
    try:
        return (yield)
    except Unreachable as e:
        if item.get_closest_marker("network"):
            pytest.skip(f"nothing to download from: {e}")
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    return (yield from unreachable(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    return (yield from unreachable(item))


@pytest.fixture(scope="session")
def smoke_environment(tmp_path_factory):
    "The environment of processes that share a cache of their own."
    return {
        **os.environ,
        "REALM_NB_HOME": str(tmp_path_factory.mktemp("home")),
        "REALM_NB_QUIET": "1",
    }


@pytest.fixture(scope="session")
def smoke_run(smoke_environment, tmp_path_factory):
    "A finished run of the smoke recipe; copy it before changing it."
    run = tmp_path_factory.mktemp("runs") / "whole"
    done = subprocess.run(
        [sys.executable, "-m", "realm_nb.train", "--recipe", "smoke", "--run", str(run)],
        env=smoke_environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return run
