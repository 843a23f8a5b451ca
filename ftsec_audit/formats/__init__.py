"""Bytes to structure: bounded readers of untrusted files. Nothing here executes or unpickles anything."""
