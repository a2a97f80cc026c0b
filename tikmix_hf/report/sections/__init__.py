"""Sections of the report: a file each, from a `Run` to a heading, a sentence and what it shows."""
