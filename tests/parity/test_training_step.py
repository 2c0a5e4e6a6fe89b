"""A training step at published size against what the published code computes."""

import pytest

from tests.parity.training_case import training_step


@pytest.mark.full_size
def test_training_step_equals_the_published_code(tmp_path):
    comparisons = list(training_step(tmp_path))
    assert len(comparisons) == 16 + 1 + 2 + 3 * 7 + 2
    wrong = [c for c in comparisons if not c.error <= c.tolerance]
    assert not wrong
