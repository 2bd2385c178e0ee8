"""The specification's list of operators is the code's."""

from __future__ import annotations

from gradseal.program.operators import OPERATORS
from operators_page import PAGE, operators_of, page


def test_the_page_is_what_the_code_lists() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == page(), "run python tests/operators_page.py"
    assert operators_of(written) == OPERATORS
