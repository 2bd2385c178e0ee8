"""A bundle opened to be replayed: its log against its checkpoint, and what that names. No state is read."""

from __future__ import annotations

from gradseal.precede.log import Log, read_log
from gradseal.proof.bundle import Bundle, open_bundle
from gradseal.proof.manifest import Manifest
from gradseal.store.files import FsspecFiles
from gradseal.verify.contents import Contents, read_contents


def open_run(url: str) -> tuple[Bundle, Log, Contents]:
    """The bundle, its log, and its program with all that goes with it.

    Raises:
        MalformedBundle, CorruptBlob, MissingFile, UnknownKind, StoreError: It is no bundle, or not whole.
    """
    files = FsspecFiles(url)
    bundle = open_bundle(files)
    entries = bundle.all_entries()
    bundle.check_log(entries)
    manifest = Manifest.decode(entries[0])
    log = read_log(manifest, entries)
    return bundle, log, read_contents(files, manifest, log.programs())
