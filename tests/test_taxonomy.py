"""The taxonomy: every family has its entries, and a rule with entries of its own takes those."""

from __future__ import annotations

import pytest

from ftsec_audit import taxonomy


@pytest.mark.parametrize("family", range(1, 8))
def test_every_family_is_mapped_to_each_taxonomy(family: int) -> None:
    found = taxonomy.references(f"FTA{family}99")
    assert {reference.taxonomy for reference in found} == {
        taxonomy.ATLAS,
        taxonomy.OWASP,
        taxonomy.OWASP_2025,
        taxonomy.CWE,
        taxonomy.NIST,
    }
    assert all(reference.name and reference.url.startswith("https://") for reference in found)


def test_the_longest_prefix_wins() -> None:
    template = {reference.id for reference in taxonomy.references("FTA411")}
    assert {"CWE-1336", "AML.T0018.003"} <= template
    assert "CWE-502" not in template
    assert "CWE-502" in {reference.id for reference in taxonomy.references("FTA403")}


def test_an_unknown_family_is_an_error() -> None:
    with pytest.raises(KeyError):
        taxonomy.references("FTA901")
