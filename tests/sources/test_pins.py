from __future__ import annotations

from pathlib import Path

import pytest
from hub_server import HubServer

from ftsec_audit.errors import SourceError
from ftsec_audit.sources.pins import is_open, pinned

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("org/model", True),
        ("org/model@main", True),
        (f"org/model@{COMMIT[:12]}", True),
        (f"org/model@{COMMIT}", False),
        (f"hf://org/model@{COMMIT}/sub", False),
        (f"org/model@main/{COMMIT}", True),
        (".", False),
    ],
)
def test_what_can_change_is_open(hub: HubServer, reference: str, expected: bool) -> None:
    assert is_open(reference) is expected


def test_a_pin_keeps_how_the_reference_was_written(hub: HubServer) -> None:
    sha = hub.add("org/model", {"a.txt": b"x"}).commit({"a.txt": b"y"}, branch="dev/next")
    assert pinned("hf://org/model@dev%2Fnext/sub") == f"hf://org/model@{sha}/sub"
    assert pinned(f"org/model@{sha}") == f"org/model@{sha}"
    assert pinned(str(Path.cwd())) == str(Path.cwd())


def test_a_repository_that_moved_is_pinned_under_its_present_name(hub: HubServer) -> None:
    # Whoever registers the old name later decides what the redirect becomes.
    hub.add("old/model", {"a.txt": b"x"})
    hub.rename("old/model", "new/model")
    assert pinned("old/model").startswith("new/model@")


def test_what_is_not_there_cannot_be_pinned(hub: HubServer) -> None:
    with pytest.raises(SourceError, match="no such repository"):
        pinned("org/absent")
    with pytest.raises(SourceError, match="not in the cache"):
        pinned("org/absent", offline=True)
