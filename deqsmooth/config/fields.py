"""Metadata of the fields of settings."""

# Of a setting that came after others had been recorded: it is written only when it is not its default, so that
# what was recorded before keeps its digest.
LATER = {"written": "if given"}
