"""Run where the service lives: devsync exec deploy/demo -- pytest-3 -q"""

from types import SimpleNamespace

import adder


def test_the_sum_is_answered():
    request = SimpleNamespace(matchdict={"x": "2", "y": "3"})
    assert adder.add(request).text == "2 + 3 = 5\n"
