"""Imported by the fork server of the tests of resuming: whatever a training loads and warms up is there."""

from __future__ import annotations

import tempfile
from pathlib import Path

from interrupted import train

with tempfile.TemporaryDirectory() as directory:
    train(Path(directory) / "bundle")
