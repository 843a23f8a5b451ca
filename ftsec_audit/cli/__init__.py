"""The command line. Commands are imported when they are called, so that `--help` stays instant.

Exit codes: 0 passed, 1 failed, 2 could not run, 3 inconclusive.
"""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import click

from ftsec_audit.cli import terminal
from ftsec_audit.cli.exit_codes import COULD_NOT_RUN, OK
from ftsec_audit.errors import FtsecError
from ftsec_audit.version import VERSION

_COMMANDS = {
    "scan": "Audit one or a few models: the gate.",
    "pin": "Write the commits of a list of models into it.",
    "batch": "Audit many models: resumable, isolated, one stored result each.",
    "serve": "Webhooks, a queue that is scanned, an API and a dashboard of results.",
    "watch": "Scan what is uploaded to the Hub from now on.",
    "diff": "Say what changed between revisions, or between two reports.",
    "report": "Render, merge or judge again stored reports; no weight is read.",
    "verify": "Admit an artifact by signed evidence, without scanning it again.",
    "rules": "List the rules.",
    "explain": "Explain one rule: question, evidence, false positives, evasions.",
    "policy": "Check a policy file, or explain what it does.",
    "calibrate": "Build a calibration pack from benign artifacts of your own.",
    "learn": "Fit a score of your own to labelled samples.",
    "attack": "Build one known-bad reference sample, or its benign twin.",
    "validate": "Measure every detector on known-bad and benign samples.",
    "cache": "Show or clear the cache of measurements.",
    "doctor": "Show versions, devices, folders and whether the Hub answers.",
}


_OBJECTS_BETWEEN_COLLECTIONS = 50_000
"""Importing makes some 200,000 objects that stay. By Python's own 700, it searches them for rubbish some 400
times, which is a seventh of what a quick scan costs."""


class LazyGroup(click.Group):
    """Knows its commands by name and one-line help; imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"ftsec_audit.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Run 'ftsec-audit scan --help' for examples.",
)
@click.version_option(VERSION, prog_name="ftsec-audit")
def cli() -> None:
    """Security audit of fine-tuned language models.

    Looks for backdoors, tampered weights and hostile files in adapters and checkpoints, and says with
    numbers what it found and what it could not look at.

    \b
      ftsec-audit scan ./my-adapter --base meta-llama/Llama-3.1-8B
      ftsec-audit scan org/model@3f2c91a --profile quick -f sarif=report.sarif
      ftsec-audit explain FTA301

    \b
    Exit codes: 0 policy passed · 1 policy failed · 2 could not run · 3 inconclusive
    """


def run(arguments: Sequence[str]) -> int:
    """The exit code of one invocation; prints, but never raises and never shows a traceback for bad input."""
    try:
        result = cli.main(args=list(arguments), prog_name="ftsec-audit", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return COULD_NOT_RUN
    except click.Abort:
        terminal.complain("interrupted before there was a result")
        return COULD_NOT_RUN
    except (FtsecError, OSError) as error:
        terminal.complain(str(error))
        return COULD_NOT_RUN
    except Exception:  # noqa: BLE001 - Python would exit with 1, which here means "policy failed"
        terminal.complain("internal error, please report it:\n" + traceback.format_exc())
        return COULD_NOT_RUN
    return result if isinstance(result, int) else OK


def main() -> None:
    """Entry point of the `ftsec-audit` program."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    terminal.tolerate_any_encoding()
    sys.exit(run(sys.argv[1:]))
