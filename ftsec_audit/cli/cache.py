"""`ftsec-audit cache`: measurements kept between runs."""

from __future__ import annotations

import click

from ftsec_audit.cli import terminal


@click.group("cache")
def command() -> None:
    """Show or clear the cache of measurements.

    It lives in FTSEC_AUDIT_CACHE, else in the platform's folder for caches. Files of the Hub are kept in
    the Hub client's own cache, which 'hf cache' manages.
    """


@command.command("info")
def info() -> None:
    """Where the cache is and how much it holds."""
    from ftsec_audit.measurement_cache import MeasurementCache, default_root

    contents = MeasurementCache(default_root()).contents()
    terminal.show(f"{contents.root}: {contents.entries:,} measurements, {contents.bytes:,} bytes")


@command.command("clear")
def clear() -> None:
    """Remove every measurement."""
    from ftsec_audit.measurement_cache import MeasurementCache, default_root

    removed = MeasurementCache(default_root()).clear()
    terminal.show(f"removed {removed.entries:,} measurements, {removed.bytes:,} bytes")
