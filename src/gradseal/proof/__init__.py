"""The format: canonical JSON, the log, the manifest, entries, the one writer. Knows no torch, no network."""
