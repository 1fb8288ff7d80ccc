"""Settings that came after others had been recorded."""

# Metadata of such a setting: it is written only when it is not its default, so that what was recorded before keeps
# its digest.
LATER = {"written": "if given"}
