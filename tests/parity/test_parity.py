"""Every network at its published size against what the published code computes."""

import paddle
import pytest

from tests.parity.cases import CASES
from tests.parity.file_cases import FILE_CASES


@pytest.mark.full_size
@pytest.mark.parametrize("case", [*CASES, *FILE_CASES], ids=lambda case: case.__name__)
def test_full_size_network_equals_the_published_code(case, tmp_path):
    with paddle.no_grad():
        comparisons = list(case(tmp_path))
    assert comparisons
    wrong = [c for c in comparisons if not c.error <= c.tolerance]
    assert not wrong
