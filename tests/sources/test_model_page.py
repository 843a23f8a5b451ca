"""The short way to the page of a model, and when the Hub's client is asked instead."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hub_server import Fault, HubServer

from ftsec_audit.errors import SourceError
from ftsec_audit.sources.connection import Connection
from ftsec_audit.sources.listing import Listing, fetch_listing
from ftsec_audit.sources.model_page import model_page

FILES = {"config.json": b"{}", "a/b c.json": b"[]", "model.safetensors": b"w" * 100_000}


def connection() -> Connection:
    return Connection.from_environment()


def by_client(repository: str, revision: str, monkeypatch: pytest.MonkeyPatch) -> Listing:
    """The same question, with the short way closed."""
    with monkeypatch.context() as patch:
        patch.setattr("ftsec_audit.sources.listing.model_page", lambda *_: None)
        return fetch_listing(connection(), repository, revision)


@pytest.mark.parametrize("revision", ["", "main", "v 1/é", "refs/pr/1"])
def test_both_ways_lead_to_the_same_listing(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    hub.add("org/m", FILES).commit({**FILES, "new": b"x"}, branch=revision or "main")
    ours = fetch_listing(connection(), "org/m", revision)
    theirs = by_client("org/m", revision, monkeypatch)
    assert ours == theirs
    assert len({request.path for request in hub.log}) == 1
    assert len(hub.log) == 2


def test_a_redirect_is_left_to_the_client_and_costs_the_short_way_nothing(hub: HubServer) -> None:
    hub.add("old/m", FILES)
    hub.rename("old/m", "new/m")
    assert fetch_listing(connection(), "old/m", "").repository == "new/m"
    assert model_page(connection(), "new/m", "main") is not None


def test_a_hub_that_was_restarted_is_reached_again(hub: HubServer) -> None:
    hub.add("org/m", FILES)
    assert model_page(connection(), "org/m", "main")
    hub.faults.append(Fault(cut_after=5, times=1))
    assert model_page(connection(), "org/m", "main") is None
    assert model_page(connection(), "org/m", "main")


def test_what_does_not_answer_as_a_hub_is_asked_this_way_once(hub: HubServer) -> None:
    hub.add("org/m", FILES)
    hub.faults.append(Fault(corrupt=True, times=1))
    assert model_page(connection(), "org/m", "main") is None
    asked = len(hub.log)
    assert model_page(connection(), "org/m", "main") is None
    assert len(hub.log) == asked
    assert fetch_listing(connection(), "org/m", "")


def test_a_proxy_is_not_gone_around(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/m", FILES)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(model_page, connection(), "org/m", "main").result() is None
    assert len(hub.log) == 0


def test_the_token_goes_where_the_client_sends_it_and_errors_are_the_clients(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/m", FILES, private=True)
    with pytest.raises(SourceError, match="no such repository on the Hub, or it is private"):
        fetch_listing(connection(), "org/m", "")
    assert fetch_listing(replace(connection(), token="hf_valid"), "org/m", "").files
    assert [request.token for request in hub.log] == ["", "hf_valid"]


def test_a_forked_child_does_not_write_into_its_parents_connection(hub: HubServer) -> None:
    hub.add("org/m", FILES)
    assert model_page(connection(), "org/m", "main")
    child = os.fork()
    if child == 0:
        os._exit(0 if model_page(connection(), "org/m", "main") else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert model_page(connection(), "org/m", "main")
