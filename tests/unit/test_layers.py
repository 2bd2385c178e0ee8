"""Imports run downwards only (DESIGN: layers), and the format knows neither torch nor the network.

The checker reads sources with `ast`, so that imports inside functions and under `TYPE_CHECKING` count too,
and so do `import_module` calls with a literal name. Only `gradseal/__init__.py`, the public names, is exempt;
since those reach everything, only `cli` may import them.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "src" / "gradseal"

# Lowest first. Members of one row are peers, which do not import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("proof",),
    ("store", "program"),
    ("precede",),
    ("record", "verify"),
    ("recipes",),
    ("attacks",),
    ("study",),
    ("report",),
    ("witness",),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}

NETWORK = {"aiohttp", "asyncio", "fsspec", "ftplib", "http", "httpx", "requests", "smtplib", "socket"}
NETWORK |= {"socketserver", "ssl", "urllib.request", "urllib3", "xmlrpc"}
FORBIDDEN = {"proof": NETWORK | {"torch"}, "errors": NETWORK | {"torch"}}


def violations(root: Path) -> list[str]:
    """Every import under the package directory `root` that breaks the contract, as `file:line: reason`."""
    found = []
    for path in sorted(root.rglob("*.py")):
        module = path.relative_to(root).with_suffix("").parts
        if module == ("__init__",):
            continue
        where = "/".join(module) + ".py"
        if module[0] not in RANK:
            found.append(f"{where}:1: {module[0]} has no place in LAYERS")
            continue
        for line, target in imports(ast.parse(path.read_text(encoding="utf-8")), root, module):
            reason = broken_rule(module[0], target, root.name)
            if reason:
                found.append(f"{where}:{line}: {reason}")
    return found


def imports(tree: ast.Module, root: Path, module: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """The absolute dotted names that a module imports, with their lines."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                parts = [root.name, *module[:-1]][: len(module) + 1 - level] if level else []
                base = ".".join([*parts, source] if source else parts)
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def broken_rule(layer: str, target: str, package: str) -> str:
    """Why a module of `layer` may not import the dotted name `target`; empty if it may."""
    first, *rest = target.split(".")
    if first != package:
        forbidden = [name for name in FORBIDDEN.get(layer, ()) if f"{target}.".startswith(f"{name}.")]
        return f"{layer} may not import {forbidden[0]}" if forbidden else ""
    name = rest[0] if rest else "its root"
    rank = RANK.get(name, RANK["cli"] - 1)  # a public name, or all of them
    if name == layer or rank < RANK[layer]:
        return ""
    peer = "its peer " if rank == RANK[layer] and name in RANK else ""
    return f"{layer} may not import {peer}{name}"


def test_imports_run_downwards_only() -> None:
    assert violations(ROOT) == []


def test_the_format_loads_neither_torch_nor_the_network() -> None:
    source = (
        "import json, pkgutil, sys, gradseal.proof as proof\n"
        "names = [m.name for m in pkgutil.walk_packages(proof.__path__, 'gradseal.proof.')]\n"
        "for name in names: __import__(name)\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = set(json.loads(result.stdout))
    assert "gradseal.proof" in loaded
    assert loaded & {"torch", "fsspec", "requests", "http.client", "urllib.request", "socket", "ssl"} == set()


def tree(root: Path, sources: dict[str, str]) -> Path:
    for name, source in sources.items():
        path = root / "made_up" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return root / "made_up"


def test_checker_accepts_what_the_contract_allows(tmp_path: Path) -> None:
    sources = {
        "__init__.py": "from made_up.cli import main",
        "errors.py": "import os",
        "proof/__init__.py": "",
        "proof/tree.py": "import urllib.parse\nfrom made_up.errors import Error\nfrom .notes import Note",
        "proof/bundle.py": "from . import notes, tree",
        "proof/notes.py": "from made_up import errors\nfrom .. import errors",
        "program/graph.py": "import torch, fsspec\nimport made_up.proof.tree",
        "verify/verifier.py": "from made_up.program.graph import Graph\nfrom ..store import blobs",
        "cli/main.py": "import made_up\nfrom made_up import record\nfrom made_up.verify import verify",
        "__main__.py": "from made_up.cli import main",
    }
    assert violations(tree(tmp_path, sources)) == []


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("proof/tree.py", "import made_up.store.blobs", "proof may not import store"),
        ("proof/tree.py", "from ..verify import verifier", "proof may not import verify"),
        ("proof/deep/tree.py", "from ... import cli", "proof may not import cli"),
        ("proof/tree.py", "def f():\n    from made_up import cli", "proof may not import cli"),
        ("proof/tree.py", "if TYPE_CHECKING:\n    import torch.nn", "proof may not import torch"),
        ("proof/tree.py", "from torch import Tensor", "proof may not import torch"),
        ("proof/tree.py", "from urllib import request", "proof may not import urllib.request"),
        ("proof/tree.py", "import importlib\nimportlib.import_module('torch')", "proof may not import torch"),
        ("proof/__init__.py", "from .. import record", "proof may not import record"),
        ("errors.py", "from .proof import tree", "errors may not import proof"),
        ("store/blobs.py", "from made_up.program import graph", "store may not import its peer program"),
        ("program/graph.py", "import made_up.store", "program may not import its peer store"),
        ("record/recorder.py", "from ..verify.replay import replay", "record may not import its peer verify"),
        (
            "verify/verifier.py",
            "from made_up.record import Recorder",
            "verify may not import its peer record",
        ),
        ("report/html.py", "from made_up import witness", "report may not import witness"),
        ("verify/verifier.py", "import made_up", "verify may not import its root"),
        ("witness/page.py", "from made_up import verify_all", "witness may not import verify_all"),
        ("verify/verifier.py", "from made_up import capture", "verify may not import capture"),
        ("helpers.py", "", "helpers has no place in LAYERS"),
    ],
)
def test_checker_finds_a_violation(tmp_path: Path, name: str, source: str, reason: str) -> None:
    line = source.count("\n") + 1
    assert violations(tree(tmp_path, {name: source})) == [f"{name}:{line}: {reason}"]
