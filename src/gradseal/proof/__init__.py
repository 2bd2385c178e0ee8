"""The format: canonical JSON, the log, the manifest, entries, and the one writer. Knows neither torch nor network."""
