"""A local server that speaks enough of the Hub's protocol for the genuine `huggingface_hub` client.

    with HubServer() as hub:
        repo = hub.add("org/model", {"config.json": b"{}", "model.safetensors": Path("big.safetensors")})
        hub.faults.append(Fault(path="*/resolve/*", cut_after=1000))
        ...                                   # point HF_ENDPOINT, or endpoint=, at hub.endpoint
        assert hub.log.bytes_sent() < 5000

Two listeners run, as on the real Hub: the Hub itself, and a storage host at another origin to which the
bytes of large files are redirected. Everything asked of either is in `hub.log`.
"""

from hub_server.faults import Fault
from hub_server.log import Request, RequestLog
from hub_server.repository import Content, Repository
from hub_server.server import HubServer

__all__ = ["Content", "Fault", "HubServer", "Repository", "Request", "RequestLog"]
