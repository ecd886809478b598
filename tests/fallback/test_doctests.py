"""The examples in the library are run; what they would print into the log is kept apart."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest
from structlog.testing import capture_logs

MODULES = {
    "receipt": ["count"],
    "sync": ["SyncBack"],
    "policy": ["degraded"],
    "switch": ["Switch"],
    "degradation": ["Degradation"],
}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_module_are_true(name: str) -> None:
    module = import_module(f"secureconnect.fallback.{name}")
    found = {test.name.rsplit(".", 1)[-1] for test in doctest.DocTestFinder().find(module) if test.examples}
    assert set(MODULES[name]) <= found
    with capture_logs():
        assert doctest.testmod(module).failed == 0
