"""`ftsec-audit doctor`: is everything here that a scan needs?"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import click

from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.cli.options import option
from ftsec_audit.version import VERSION

_PACKAGES = (
    *("torch", "numpy", "safetensors", "huggingface-hub", "transformers", "peft"),
    *("onnxruntime", "scikit-learn", "pydantic", "rich", "click"),
)


@click.command("doctor")
@option("--network", is_flag=True, help="Also ask the Hub whether it answers.")
def command(network: bool) -> int:
    """Show versions, devices and folders; with --network, whether the Hub answers.

    Exits 2 when something that every scan needs is missing.
    """
    missing = [name for name in _PACKAGES if not _version(name)]
    for line in _lines():
        terminal.show(line)
    if network:
        terminal.show(f"hub             {_hub()}")
    if missing:
        terminal.complain(f"not installed: {', '.join(missing)}")
        return exit_codes.COULD_NOT_RUN
    return exit_codes.OK


def _lines() -> Iterator[str]:
    from ftsec_audit.measurement_cache import default_root

    yield f"ftsec-audit     {VERSION}"
    yield f"python          {platform.python_version()} ({sys.executable})"
    for name in _PACKAGES:
        yield f"{name:<16}{_version(name) or 'not installed'}"
    yield f"device          {_device()}"
    yield f"kernels         {_kernels()}"
    root = default_root()
    writable = os.access(root if root.exists() else root.parent, os.W_OK)
    yield f"cache           {root}{'' if writable else ' (cannot be written)'}"
    yield f"HF_ENDPOINT     {os.environ.get('HF_ENDPOINT') or 'https://huggingface.co'}"
    yield f"HF_TOKEN        {'set' if os.environ.get('HF_TOKEN') else 'not set'}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _device() -> str:
    if not _version("torch"):
        return "none"
    import torch

    threads = f"cpu ({torch.get_num_threads()} threads)"
    if torch.cuda.is_available():
        return f"{threads}, {torch.cuda.get_device_name(0)}"
    return threads


def _kernels() -> str:
    """Whether what `weights/kernels.c` does is done by it."""
    if not _version("torch"):
        return "none"
    from ftsec_audit.weights import kernels

    return "built" if kernels.library() else "not built, torch does it: no compiler was at hand to install"


def _hub() -> str:
    import urllib.error
    import urllib.request

    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if not endpoint.startswith(("https://", "http://")):
        return f"{endpoint} is not an http(s) address"
    try:
        with urllib.request.urlopen(f"{endpoint}/api/models?limit=1", timeout=10) as answer:
            return f"{endpoint} answers (HTTP {answer.status})"
    except urllib.error.URLError as error:
        return f"{endpoint} does not answer: {error.reason}"
    except OSError as error:
        return f"{endpoint} does not answer: {error}"
