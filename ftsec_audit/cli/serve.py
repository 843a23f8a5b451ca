"""`ftsec-audit serve`: webhooks, queue, API and dashboard."""

from __future__ import annotations

import secrets
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.cli.options import duration, option
from ftsec_audit.cli.scanning import Opened, needs_extra, store_options
from ftsec_audit.errors import UsageError

if TYPE_CHECKING:
    from ftsec_audit.service.state import Service

_SHORTEST_SECRET = 8


@click.command("serve")
@option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on.")
@option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8321,
    show_default=True,
    metavar="N",
    help="Port; 0 takes a free one.",
)
@option(
    "--token",
    metavar="TEXT",
    help="Opens the dashboard and the API; better in the environment.  [default: drawn at start]",
)
@option("--hub-secret", default="", metavar="TEXT", help="Of the Hub's webhook; without it there is none.")
@option("--mlflow-secret", default="", metavar="TEXT", help="Of MLflow's webhook; without it there is none.")
@option("--allow-scan", is_flag=True, help="Let those who have the token enter references into the queue.")
@option("--no-scanner", is_flag=True, help="Receive and show only; another process scans.")
@option(
    "--sync-every",
    type=duration,
    default="60s",
    show_default=True,
    metavar="DURATION",
    help="Look for results that other processes have stored.",
)
@option("--tls-cert", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Serve HTTPS.")
@option("--tls-key", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Its key.")
@store_options
def command(batch_options: tuple[str, ...], **options: Any) -> int:
    """Receive webhooks, scan what they name, and show the results.

    Deliveries of the Hub (/webhooks/hub) and of MLflow (/webhooks/mlflow) are checked and put into a queue
    that survives restarts. The queue is scanned by batches in child processes. Everything stored is on the
    dashboard (/), in the API (/api/reports) and, as numbers, at /metrics; all of them take the token, and
    only show. What follows -- are options of batch.

    \b
    Examples:
      FTSEC_AUDIT_TOKEN=… FTSEC_AUDIT_HUB_SECRET=… ftsec-audit serve --store results/
      ftsec-audit serve --store results/ --allow-scan -- --profile quick -j 4 --max-memory 8GB
      ftsec-audit serve --store s3://bucket/results --index postgresql://host/audits --no-scanner
    """
    try:
        import uvicorn

        from ftsec_audit.service import app
        from ftsec_audit.service.credentials import Credentials
        from ftsec_audit.service.state import Service
    except ImportError as error:
        raise needs_extra(error) from error
    if bool(options["tls_cert"]) != bool(options["tls_key"]):
        raise UsageError("HTTPS needs both", hint="give --tls-cert and --tls-key")
    token = options["token"] or secrets.token_urlsafe(24)
    credentials = Credentials(token)
    opened = Opened.of({**options, "batch_options": batch_options})
    service = Service(
        store=opened.store,
        index=opened.index,
        queue=opened.queue,
        credentials=credentials,
        hub_secret=_secret("hub", options["hub_secret"]),
        mlflow_secret=_secret("mlflow", options["mlflow_secret"]),
        allow_scan=options["allow_scan"],
    )
    if not options["no_scanner"]:
        service.scanner = opened.scanner(service.metrics.scanned)
    listener = _listen(options["host"], options["port"])
    scheme = "https" if options["tls_cert"] else "http"
    terminal.remark(
        f"serving {options['store']} at {scheme}://{options['host']}:{listener.getsockname()[1]}/"
    )
    if not options["token"]:
        terminal.remark(f"token, drawn for this start: {token}")
    config = uvicorn.Config(
        app.create(service),
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=200,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=10,
        ssl_certfile=options["tls_cert"],
        ssl_keyfile=options["tls_key"],
    )
    _serve(uvicorn.Server(config), listener, service, options["sync_every"])
    return exit_codes.OK


def _serve(server: Any, listener: socket.socket, service: Service, sync_every: float) -> None:
    """Until a signal; then the scanner ends its child, and what it held waits for the next start."""
    stopping = threading.Event()
    catching_up = {"every": sync_every, "told": terminal.complain}
    threading.Thread(target=service.catch_up, args=(stopping,), kwargs=catching_up, daemon=True).start()
    scanning = None
    if service.scanner:
        scanning = threading.Thread(target=service.scanner.run, daemon=True)
        service.is_scanning = scanning.is_alive
        scanning.start()
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        terminal.remark("ended; what was not finished is scanned after the next start")
    finally:
        stopping.set()
        if service.scanner and scanning:
            service.scanner.stop()
            scanning.join(10)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)  # so that whoever reads the address can connect, and waits
    except OSError as error:
        raise UsageError(error.strerror or str(error), where=f"{host}:{port}", hint="try --port") from error
    return listener


def _secret(name: str, value: str) -> str:
    if value and len(value) < _SHORTEST_SECRET:
        raise UsageError(f"--{name}-secret has fewer than {_SHORTEST_SECRET} characters")
    return value
