"""Rendering of untrusted chat templates in a child process with limits on time, memory and output."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_WORKER = Path(__file__).with_name("template_worker.py")


@dataclass(frozen=True, kw_only=True)
class RenderLimits:
    """Bounds of one child process; a vendor template renders in well under a millisecond."""

    seconds: float = 0.5
    """Per job."""
    total_seconds: float = 8.0
    characters: int = 1 << 18
    memory: int = 512 << 20
    """Address space of the child, bytes."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One conversation through one template."""

    template: int
    """Index into the templates of the request."""
    messages: Sequence[Mapping[str, Any]]
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Further names the template sees, e.g. `tools`, `bos_token`."""
    add_generation_prompt: bool = True
    date: str = "01 Jan 2026"


@dataclass(frozen=True)
class Rendered:
    """The outcome of one job: exactly one of the first three is set."""

    text: str | None = None
    error: str | None = None
    """The template raised: often its honest way of refusing a role order."""
    limit: str | None = None
    """It asked for more time, memory or output than a template needs."""
    heard: tuple[str, ...] = field(default=(), compare=False)
    """Strings that the words of messages were compared with while rendering."""


def render_all(
    templates: Sequence[str], jobs: Sequence[Job], limits: RenderLimits | None = None
) -> list[Rendered]:
    """Render every job; the result has one entry per job whatever the templates do."""
    limits = limits or RenderLimits()
    request = json.dumps(
        {
            "templates": list(templates),
            "jobs": [_payload(job) for job in jobs],
            "limits": {"seconds": limits.seconds, "characters": limits.characters, "memory": limits.memory},
        }
    )
    # -I: neither the environment nor the working directory of the scan can reach the child.
    command = [sys.executable, "-I", str(_WORKER)]
    try:
        done = subprocess.run(
            command, input=request, capture_output=True, text=True, timeout=limits.total_seconds, check=False
        )
        output, reason = done.stdout, "not rendered: an earlier conversation exceeded the limits"
    except subprocess.TimeoutExpired as error:
        output = (
            error.stdout.decode("utf-8", "replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        )
        reason = f"no answer within {limits.total_seconds:g} s"
    # Only whole lines: the last piece is empty, or was cut when the child was killed.
    answers = [_rendered(json.loads(line)) for line in output.split("\n")[:-1]]
    return answers[: len(jobs)] + [Rendered(limit=reason)] * (len(jobs) - len(answers))


def _rendered(answer: dict[str, Any]) -> Rendered:
    return Rendered(**{**answer, "heard": tuple(answer.get("heard", ()))})


def _payload(job: Job) -> dict[str, Any]:
    context = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        **job.variables,
        "messages": list(job.messages),
        "add_generation_prompt": job.add_generation_prompt,
    }
    return {"template": job.template, "context": context, "date": job.date}
