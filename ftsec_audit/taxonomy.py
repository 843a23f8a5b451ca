"""Which entries of the public taxonomies a rule speaks about: the only file that spells an external id.

A rule takes the entries of the longest prefix of its id in `_BY_PREFIX`, so that a rule for which a
family's entries are too general states its own. Releases are part of an entry: OWASP numbers its lists
anew each year, and ATLAS folds techniques into others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

ATLAS = "MITRE ATLAS 2026.08"
OWASP = "OWASP Top 10 for LLM Applications 2026"
OWASP_2025 = "OWASP Top 10 for LLM Applications 2025"
CWE = "CWE 4.17"
NIST = "NIST AI 100-2 E2025"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One entry of one release of one taxonomy."""

    taxonomy: str
    """Name and release."""
    id: str
    name: str
    url: str


_ATLAS = {
    "AML.T0010.003": "AI Supply Chain Compromise: Model",
    "AML.T0011.000": "User Execution: Unsafe AI Artifacts",
    "AML.T0018.000": "Manipulate AI Model: Poison AI Model",
    "AML.T0018.001": "Manipulate AI Model: Modify AI Model Architecture",
    "AML.T0018.002": "Manipulate AI Model: Embed Malware",
    "AML.T0018.003": "Manipulate AI Model: Modify Prompt Construction Logic",
    "AML.T0020": "Poison Training Data",
    "AML.T0031": "Erode AI Model Integrity",
    "AML.T0043.004": "Craft Adversarial Data: Insert Backdoor Trigger",
    "AML.T0054": "LLM Jailbreak",
    "AML.T0076": "Corrupt AI Model",
    "AML.T0115.001": "Publish Poisoned AI Artifacts: Models",
}
_OWASP = {"LLM04:2026": "Supply Chain", "LLM05:2026": "Data and Model Poisoning"}
_OWASP_2025 = {"LLM03:2025": "Supply Chain", "LLM04:2025": "Data and Model Poisoning"}
_CWE = {
    "CWE-22": "Path Traversal",
    "CWE-59": "Link Following",
    "CWE-94": "Code Injection",
    "CWE-345": "Insufficient Verification of Data Authenticity",
    "CWE-400": "Uncontrolled Resource Consumption",
    "CWE-409": "Improper Handling of Highly Compressed Data",
    "CWE-494": "Download of Code Without Integrity Check",
    "CWE-502": "Deserialization of Untrusted Data",
    "CWE-506": "Embedded Malicious Code",
    "CWE-510": "Trapdoor",
    "CWE-511": "Logic/Time Bomb",
    "CWE-829": "Inclusion of Functionality from Untrusted Control Sphere",
    "CWE-912": "Hidden Functionality",
    "CWE-1336": "Improper Neutralization of Special Elements Used in a Template Engine",
    "CWE-1357": "Reliance on Insufficiently Trustworthy Component",
}
_NIST = {
    "NISTAML.013": "Data Poisoning",
    "NISTAML.021": "Clean-label Backdoor",
    "NISTAML.023": "Backdoor Poisoning",
    "NISTAML.024": "Targeted Poisoning",
    "NISTAML.026": "Model Poisoning (integrity)",
    "NISTAML.05": "Supply Chain Attacks",
    "NISTAML.051": "Model Poisoning (supply chain)",
}

_POISONING = ("LLM05:2026", "LLM04:2025")
_SUPPLY_CHAIN = ("LLM04:2026", "LLM03:2025")

_BY_PREFIX: dict[str, tuple[str, ...]] = {
    "FTA1": (
        *("AML.T0018.000", "AML.T0018.001", "AML.T0010.003", *_POISONING, *_SUPPLY_CHAIN),
        *("CWE-1357", "CWE-345", "NISTAML.026", "NISTAML.051"),
    ),
    "FTA103": ("AML.T0076", *_SUPPLY_CHAIN, "CWE-345", "NISTAML.05"),
    "FTA2": ("AML.T0018.000", *_POISONING, "CWE-506", "NISTAML.023", "NISTAML.026"),
    "FTA3": (
        *("AML.T0018.000", "AML.T0043.004", *_POISONING),
        *("CWE-506", "CWE-912", "NISTAML.023", "NISTAML.021"),
    ),
    "FTA4": (
        *("AML.T0018.002", "AML.T0011.000", "AML.T0076", *_SUPPLY_CHAIN),
        *("CWE-502", "CWE-829", "CWE-94", "CWE-494", "NISTAML.05"),
    ),
    "FTA401": ("AML.T0018.002", "AML.T0011.000", *_SUPPLY_CHAIN, "CWE-502", "CWE-94", "NISTAML.05"),
    "FTA402": ("AML.T0018.002", "AML.T0011.000", "AML.T0076", *_SUPPLY_CHAIN, "CWE-502", "NISTAML.05"),
    "FTA404": ("AML.T0076", *_SUPPLY_CHAIN, "CWE-400", "CWE-409", "NISTAML.05"),
    "FTA407": ("AML.T0011.000", *_SUPPLY_CHAIN, "CWE-22", "CWE-829", "NISTAML.05"),
    "FTA411": ("AML.T0018.003", "AML.T0011.000", *_SUPPLY_CHAIN, "CWE-1336", "CWE-94", "NISTAML.05"),
    "FTA412": ("AML.T0018.003", *_SUPPLY_CHAIN, "CWE-506", "CWE-912", "NISTAML.05"),
    "FTA413": ("AML.T0018.003", *_SUPPLY_CHAIN, "CWE-345", "NISTAML.05"),
    "FTA421": (
        "AML.T0018.002",
        "AML.T0011.000",
        *_SUPPLY_CHAIN,
        "CWE-829",
        "CWE-94",
        "CWE-494",
        "NISTAML.05",
    ),
    "FTA422": ("AML.T0011.000", *_SUPPLY_CHAIN, "CWE-22", "CWE-59", "CWE-506", "NISTAML.05"),
    "FTA431": ("AML.T0011.000", *_SUPPLY_CHAIN, "CWE-829", "CWE-400", "NISTAML.05"),
    "FTA441": ("AML.T0018.003", *_SUPPLY_CHAIN, "CWE-506", "CWE-912", "NISTAML.05"),
    "FTA5": (
        *("AML.T0020", "AML.T0018.000", "AML.T0043.004", "AML.T0115.001", *_POISONING),
        *("CWE-510", "CWE-511", "NISTAML.023", "NISTAML.024"),
    ),
    "FTA6": ("AML.T0020", "AML.T0018.000", *_POISONING, "CWE-510", "CWE-912", "NISTAML.023"),
    "FTA7": ("AML.T0031", "AML.T0054", "AML.T0018.000", *_POISONING, "CWE-912", "NISTAML.013", "NISTAML.026"),
}


@lru_cache(maxsize=256)
def references(rule: str) -> tuple[Reference, ...]:
    """The taxonomy entries of a rule id; raises KeyError for an id of no known family."""
    for end in range(len(rule), 3, -1):
        if rule[:end] in _BY_PREFIX:
            return tuple(_reference(id) for id in _BY_PREFIX[rule[:end]])
    raise KeyError(rule)


def _reference(id: str) -> Reference:
    if id in _ATLAS:
        return Reference(
            taxonomy=ATLAS, id=id, name=_ATLAS[id], url=f"https://atlas.mitre.org/techniques/{id}"
        )
    if id in _CWE:
        number = id.removeprefix("CWE-")
        return Reference(
            taxonomy=CWE, id=id, name=_CWE[id], url=f"https://cwe.mitre.org/data/definitions/{number}.html"
        )
    if id in _NIST:
        return Reference(
            taxonomy=NIST, id=id, name=_NIST[id], url="https://doi.org/10.6028/NIST.AI.100-2e2025"
        )
    release, names = (OWASP, _OWASP) if id in _OWASP else (OWASP_2025, _OWASP_2025)
    return Reference(taxonomy=release, id=id, name=names[id], url="https://genai.owasp.org/llm-top-10/")
