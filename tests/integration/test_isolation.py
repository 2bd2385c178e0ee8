"""Verification runs none of the owner's code: it needs no model nor recipe, unpickles and evaluates nothing.

A `sitecustomize` module is loaded into every Python process below, the verifier's and its worker's. It
refuses imports, and watches, from below gradseal's own frames, for whatever would unpickle or evaluate.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from bundles import KEY, record_run

Recorded = Callable[..., Path]
SOURCES = Path(__file__).resolve().parents[2] / "src" / "gradseal"

TRAPS = '''
import importlib.abc, importlib.machinery, os, sys

LOG = os.environ["TRAPS_LOG"]
REFUSED = ("sklearn", "gradseal.recipes", "gradseal.record", "gradseal.program.capture", "secret_model")
WATCHED_EVENTS = ("compile", "exec", "pickle.find_class", "marshal.loads", "os.system", "code.__new__")


def log(line):
    with open(LOG, "a") as file:
        file.write(line + "\\n")


class Trapped(BaseException):
    """Nothing below catches this."""


def culprit():
    """The module of gradseal on whose behalf we are called, unless it is just being imported, or imports."""
    frame = sys._getframe(2)
    while frame is not None:
        # The worker's own module is called __main__.
        spec = frame.f_globals.get("__spec__")
        for name in (frame.f_globals.get("__name__") or "", spec.name if spec is not None else ""):
            if name.startswith("importlib._bootstrap"):
                return None
            if name.split(".")[0] == "gradseal":
                # Making a dataclass executes what the standard library wrote.
                return None if frame.f_code.co_name == "<module>" else name
        frame = frame.f_back
    return None


def trap(what):
    if (module := culprit()) is not None:
        log(f"trapped {what} in {module}")
        raise Trapped(what)


def audit(event, args):
    if event in WATCHED_EVENTS:
        trap(event)


def guarded(function, what):
    def call(*args, **kwargs):
        trap(what)
        return function(*args, **kwargs)
    return call


class Loader(importlib.abc.Loader):
    """Loads torch.serialization, and guards its `load` before anyone has it."""

    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        self.loader.exec_module(module)
        module.load = guarded(module.load, "torch.load")


class Finder(importlib.machinery.PathFinder):
    """As if what is refused were not installed."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if any(name == refused or name.startswith(refused + ".") for refused in REFUSED):
            log(f"refused {name}")
            return None
        spec = super().find_spec(name, path, target)
        if name == "torch.serialization":
            spec.loader = Loader(spec.loader)
        return spec


sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Finder
import pickle
pickle.load, pickle.loads = guarded(pickle.load, "pickle.load"), guarded(pickle.loads, "pickle.loads")
sys.addaudithook(audit)
log(f"armed {sys.orig_argv[1:4]!r:.100}")
'''

VERIFY = """
import json, sys
from gradseal.proof.note import VerificationKey
from gradseal.verify.verifier import verify
key = VerificationKey.parse(sys.argv[1])
verdicts = [verify(path, keys=[key]).to_json() for path in sys.argv[2:]]
print(json.dumps([{name: claim["status"] for name, claim in v["claims"].items()} for v in verdicts]))
print(json.dumps([f for v in verdicts for f in v["findings"] if f["result"] != "held"]), file=sys.stderr)
"""

PROBE = """
import io, json, marshal, pickle, sys, types
import torch
import gradseal.verify.contents
from gradseal.precede.log import read_log

saved = io.BytesIO()
torch.save(torch.zeros(1), saved)
data = pickle.dumps(list)
acts = {
    "eval": lambda: eval("1 + 1"),
    "exec": lambda: exec("x = 1"),
    "exec of code": lambda: exec(compiled),
    "pickle.loads": lambda: pickle.loads(data),
    "pickle.load": lambda: pickle.load(io.BytesIO(data)),
    "pickle.Unpickler": lambda: pickle.Unpickler(io.BytesIO(data)).load(),
    "torch.load": lambda: torch.load(io.BytesIO(saved.getvalue())),
    "marshal.loads": lambda: marshal.loads(marshal.dumps(1)),
}
compiled = compile("x = 1", "string", "exec")
outcomes = {}
for name, act in acts.items():
    for owner in ("gradseal", "another"):
        # The same code, as if a module of gradseal's, or another one, held it.
        names = {**globals(), "__name__": "gradseal.verify.contents" if owner == "gradseal" else "another"}
        try:
            types.FunctionType(act.__code__, names, "act", None, act.__closure__)()
            outcomes[f"{name} by {owner}"] = "done"
        except BaseException as e:
            outcomes[f"{name} by {owner}"] = type(e).__name__
for name in ("sklearn.datasets", "gradseal.recipes.digits", "gradseal.record.recorder", "secret_model"):
    try:
        __import__(name)
        outcomes[f"import {name}"] = "done"
    except ModuleNotFoundError:
        outcomes[f"import {name}"] = "refused"
print(json.dumps(outcomes))
"""

SECRET_MODEL = """
import torch
from torch import nn


class Secret(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(10, 64))
        nn.init.kaiming_uniform_(self.weight)

    def forward(self, images):
        return torch.nn.functional.linear(torch.tanh(images.flatten(1)), self.weight) * 3.0
"""


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    directory = tmp_path / "traps"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(TRAPS)
    return directory


def python(traps: Path, script: str, *arguments: str) -> tuple[str, list[str]]:
    """What the script prints, run where the traps are set; and what the traps said."""
    log = traps / "log"
    log.touch()
    paths = [str(traps), *filter(None, [os.environ.get("PYTHONPATH")])]
    # -P: nothing can be imported from the working directory either.
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TRAPS_LOG": str(log)},
        cwd=traps.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, log.read_text().splitlines()


def test_the_traps_work(traps: Path) -> None:
    printed, said = python(traps, PROBE)
    outcomes: dict[str, str] = json.loads(printed)
    for name, outcome in outcomes.items():
        if name.startswith("import "):
            assert outcome == "refused", name
        else:
            assert outcome == ("Trapped" if name.endswith("by gradseal") else "done"), name
    assert sum(name.endswith("by gradseal") for name in outcomes) == 8
    assert any(line.startswith("trapped") for line in said)


def test_verification_needs_no_source_and_evaluates_nothing(
    recorded: Recorded, tmp_path: Path, traps: Path
) -> None:
    source = tmp_path / "secret_model.py"
    source.write_text(SECRET_MODEL)
    record_run(tmp_path / "secret", _load(source).Secret, steps=2, every=1)
    source.unlink()

    bundles = [str(recorded("digits")), str(tmp_path / "secret")]
    printed, said = python(traps, VERIFY, str(KEY.verification_key), *bundles)
    shown = {
        "precedence": "not shown",
        **dict.fromkeys(["integrity", "initialisation", "data", "computation"], "shown"),
    }
    assert json.loads(printed) == [shown, shown]
    armed = [line for line in said if line.startswith("armed")]
    assert len(armed) == 3, "the verifier and its two workers"
    assert sum("gradseal.verify.worker" in line for line in armed) == 2
    # PyTorch itself asks whether scikit-learn is there.
    assert set(said) - set(armed) <= {"refused sklearn"}, "nothing was missed and nothing trapped"


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("secret_model", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.load",
    "torch.jit.load",
    "torch.hub.load",
    "torch.compile",
    "numpy.load",
    "np.load",
    "yaml.load",
    "runpy.run_path",
    "os.system",
}
HARMLESS_CALLS = {
    "torch.load(path, map_location='cpu', weights_only=True, mmap=True)",
    "np.load(path, mmap_mode='r', allow_pickle=False)",
}
"""By which `gradseal import` reads folders of the released implementation: plain tensors and arrays alone."""
FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "yaml",
    "runpy",
}


def violations(source: str) -> Iterator[str]:
    """Whatever in a module's source evaluates or unpickles."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=function) if (
                ast.unparse(function) in FORBIDDEN_CALLS and ast.unparse(node) not in HARMLESS_CALLS
            ):
                yield f"line {node.lineno}: calls {ast.unparse(function)}"
            case ast.Import(names=names):
                for alias in names:
                    if alias.name.split(".")[0] in FORBIDDEN_MODULES:
                        yield f"line {node.lineno}: imports {alias.name}"
            case ast.ImportFrom(module=str(module), names=names):
                found = {f"{module}.{alias.name}" for alias in names}
                # To tell a user that his data set cannot be sent to a worker, or that a file cannot be read.
                errors = {"pickle.PicklingError", "pickle.UnpicklingError"}
                foreign = module.split(".")[0] in FORBIDDEN_MODULES and not found <= errors
                if foreign or found & FORBIDDEN_CALLS:
                    yield f"line {node.lineno}: imports from {module}"
            case ast.Name(id="eval" | "exec" | "compile" as name):
                yield f"line {node.lineno}: names {name}"
            case _:
                pass


def test_no_module_evaluates_or_unpickles() -> None:
    modules = sorted(SOURCES.rglob("*.py"))
    assert len(modules) > 50
    found = {str(path.relative_to(SOURCES)): list(violations(path.read_text())) for path in modules}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "f = exec",
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load(path, map_location='cpu', weights_only=False, mmap=True)",
        "from pickle import UnpicklingError, loads",
        "from torch import load",
        "def f():\n    import marshal as m",
        "import numpy as np\nnp.load('x')",
        "import yaml",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert list(violations(source))
