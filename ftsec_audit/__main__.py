"""`python -m ftsec_audit`, the same as `ftsec-audit`."""

from ftsec_audit.cli import main

main()
