"""What of the documentation is generated, when `mkdocs` asks for it: nothing is written down twice.

A page per rule from its module's docstring, a page of the commands' own help, and an entry under Measured for
every page of `docs/` that the navigation does not name.
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

from ftsec_audit import api
from ftsec_audit.cli import cli

_OUTSIDE = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]+)[^)]*\)")
_CODE = re.compile(r"(`[^`]*`)")


def on_config(config: Any) -> Any:
    written = {
        page for entry in config.nav for page in ([entry] if isinstance(entry, str) else entry.values())
    }
    others = sorted(path.name for path in Path(config.docs_dir).glob("*.md") if path.name not in written)
    families = [
        {str(family): [_page(rule.id) for rule in rules]}
        for family, rules in groupby(api.rules(), key=lambda rule: rule.family)
    ]
    config.nav = [
        *config.nav,
        {"Rules": ["rules/index.md", *families]},
        {"Commands": "commands.md"},
        {"Measured": others},
    ]
    return config


def on_files(files: Files, config: Any) -> Files:
    pages = {_page(rule.id): rule_page(rule.id) for rule in api.rules()}
    for path, text in {**pages, "rules/index.md": _rules(), "commands.md": _commands()}.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A link out of the documentation names the file in the repository, which is not part of the site."""
    return _OUTSIDE.sub(
        lambda link: f"{link[1]} (`{link[2].removeprefix('../')}` of the repository)", markdown
    )


def rule_page(rule_id: str) -> str:
    """One rule's page: what `ftsec-audit explain` prints, as Markdown."""
    page = api.explain(rule_id)
    rule = page.rule
    needs = "needs the base model" if rule.needs_base else "needs no base model"
    lines = [f"# {rule.id} {rule.name}", "", f"**{rule.question}**", ""]
    lines += [
        f"Severity {rule.severity} · family {rule.family} · {needs} · answered by `{page.detector}`",
        "",
    ]
    lines += [_escaped(page.page), "", "## What to do", "", _escaped(rule.remediation), ""]
    lines += ["## In other catalogues", ""]
    lines += [f"- {entry.taxonomy}: [{entry.id}]({entry.url}) {entry.name}" for entry in page.references]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Docstrings are plain text: what HTML or a link would take for its own is escaped, except in code."""
    lines = text.split("\n")
    return "\n".join(line if line.startswith("    ") else _escaped_line(line) for line in lines)


def _escaped_line(line: str) -> str:
    parts = _CODE.split(line)
    parts[::2] = [part.replace("<", "&lt;").replace("[", "\\[").replace("_", "\\_") for part in parts[::2]]
    return "".join(parts)


def _rules() -> str:
    lines = ["# Rules", "", "One yes/no question each; yes is always the suspicious side.", ""]
    lines += ["| rule | question | severity | base |", "|---|---|---|---|"]
    lines += [
        f"| [{rule.id}]({rule.id}.md) {rule.name} | {_escaped_line(rule.question)} | {rule.severity} "
        f"| {'needed' if rule.needs_base else ''} |"
        for rule in api.rules()
    ]
    return "\n".join(lines) + "\n"


def _commands() -> str:
    lines = ["# Commands", "", "What `--help` prints.", ""]
    for name, command in _commands_below(cli, "ftsec-audit"):
        context = click.Context(command, info_name=name, terminal_width=100)
        lines += [f"## {name}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def _commands_below(command: click.Command, name: str) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return [(name, command)]
    context = click.Context(command)
    names = command.list_commands(context)
    found = [(one, command.get_command(context, one)) for one in names]
    return [pair for one, child in found if child for pair in _commands_below(child, f"{name} {one}")]


def _page(rule_id: str) -> str:
    return f"rules/{rule_id}.md"
