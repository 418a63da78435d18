import pytest

from realm_nb.sources import Unreachable


def unreachable(item):
    "Skip a `network` test whose download cannot be reached."
    try: return (yield)
    except Unreachable as e:
        if item.get_closest_marker("network"): pytest.skip(f"nothing to download from: {e}")
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item): return (yield from unreachable(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item): return (yield from unreachable(item))
