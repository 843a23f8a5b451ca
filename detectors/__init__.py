"""Detectors: one file each, listed in `registry`; the docstring of a file is the page of its rules."""
