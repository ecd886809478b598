"""Each part is of use alone, and its example says how: the examples are run."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = {
    "deadline": ["Deadline"],
    "bulkhead": ["Bulkhead"],
    "breaker": ["Breaker"],
    "retry": ["Retry", "Budget"],
    "stack": ["Stack"],
}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_module_are_true(name: str) -> None:
    module = import_module(f"secureconnect.resilience.{name}")
    found = {test.name.rsplit(".", 1)[-1] for test in doctest.DocTestFinder().find(module) if test.examples}
    assert set(MODULES[name]) <= found
    assert doctest.testmod(module).failed == 0
