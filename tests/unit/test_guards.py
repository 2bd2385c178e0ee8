"""Memory that lies oddly, or is not there, is refused or read right; honest graphs are not refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from gradseal.errors import ReplayError
from gradseal.program.batches import schema_of
from gradseal.program.capture import capture
from gradseal.program.graph import Argument, Graph, Input, Named, Node, Ref
from gradseal.program.guards import GUARDS
from gradseal.program.interpret import Interpreter, overload
from gradseal.program.operators import GETITEM, OPERATORS

CPU = torch.device("cpu")
MASK = [True, True, True]
Case = tuple[list[Any], dict[str, Any]]


def t(*shape: int) -> torch.Tensor:
    return torch.rand(shape) * 0.5 + 0.2


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int64)


def _convolution(spatial: int) -> Case:
    ones, nones = [1] * spatial, [0] * spatial
    grad, x, weight = t(2, 6, *[5] * spatial), t(2, 4, *[5] * spatial), t(6, 4, *[3] * spatial)
    return [grad, x, weight, [6], ones, ones, ones, False, nones, 1, MASK], {}


def _pool(spatial: int, *, indices: bool) -> Case:
    grad, own, twos = t(2, 3, *[2] * spatial), t(2, 3, *[4] * spatial), [2] * spatial
    if indices:
        return [grad, own, twos, twos, [0] * spatial, [1] * spatial, False, zeros(*grad.shape)], {}
    return [grad, own, twos, twos, [0] * spatial, False, True, None], {}


def _attention(*, mask: tuple[int, ...] | None = None, back: bool = False) -> Case:
    query, key, value = t(2, 2, 6, 8), t(2, 2, 5, 8), t(2, 2, 5, 8)
    kwargs = {} if mask is None else {"attn_mask": t(*mask)}
    if back:
        return [t(2, 2, 6, 8), query, key, value, t(2, 2, 6, 8), t(2, 2, 6), 0.0, False], kwargs
    return [query, key, value, 0.0, False], kwargs


def _padded(name: str) -> Case:
    spatial = int(name[name.index("_pad") + 4])
    own, grad, padding = t(2, 3, *[4] * spatial), t(2, 3, *[6] * spatial), [1] * 2 * spatial
    return ([grad, own, padding] if name.endswith("_backward") else [own, padding]), {}


def _scaled(name: str) -> Case:
    spatial = next(n for n in (1, 2, 3) if f"{n}d" in name)
    small, large = [2, 3, *[4] * spatial], [8] * spatial
    head: list[Any] = [t(2, 3, *large), large, small] if name.endswith("_backward") else [t(*small), large]
    return [*head, *([] if "nearest" in name else [False]), *[None] * spatial], {}


def _cases(name: str) -> list[Case]:
    """Arguments that the operator takes."""
    x, w, image, c = t(6, 4, 8), t(8), t(3, 8, 5, 5), t(8)
    rows = t(6, 8)
    label = zeros(6) + 1
    flash = "_scaled_dot_product_flash_attention_for_cpu"
    table: dict[str, list[list[Any]]] = {
        "native_batch_norm": [[image, w, c, t(8), t(8), mode, 0.1, 1e-5] for mode in (False, True)],
        "_native_batch_norm_legit": [[image, w, c, t(8), t(8), mode, 0.1, 1e-5] for mode in (False, True)],
        "_native_batch_norm_legit.no_stats": [[image, w, c, True, 0.1, 1e-5]],
        "native_batch_norm_backward": [
            [t(3, 8, 5, 5), image, w, t(8), t(8), t(8), t(8), mode, 1e-5, MASK] for mode in (False, True)
        ],
        "native_layer_norm_backward": [[t(6, 4, 8), x, [8], t(6, 4, 1), t(6, 4, 1), w, c, MASK]],
        "_fused_rms_norm": [[x, [8], w, 1e-5]],
        "native_group_norm": [[image, w, c, 3, 8, 25, 2, 1e-5]],
        "native_group_norm_backward": [[t(3, 8, 5, 5), image, t(3, 2), t(3, 2), w, 3, 8, 25, 2, MASK]],
        "_adaptive_avg_pool2d_backward": [[t(2, 3, 2, 2), t(2, 3, 4, 4)]],
        "_adaptive_avg_pool3d_backward": [[t(2, 3, 2, 2, 2), t(2, 3, 4, 4, 4)]],
        "adaptive_max_pool2d_backward": [[t(2, 3, 2, 2), t(2, 3, 4, 4), zeros(2, 3, 2, 2)]],
        "embedding_dense_backward": [[t(5, 4), zeros(5) + 1, 7, -1, mode] for mode in (False, True)],
        "nll_loss_backward": [[t(6), rows, label, w, 0, -100, t()], [t(), rows, label, w, 1, -100, t()]],
        "nll_loss2d_backward": [[t(3, 5, 5), image, zeros(3, 5, 5) + 1, w, 0, -100, t()]],
        "_weight_norm_interface": [[rows, t(6, 1), 0], [rows, t(1, 8), 1]],
        "_weight_norm_interface_backward": [
            [t(6, 8), rows, t(6, 1), t(6, 1), 0],
            [t(6, 8), rows, t(1, 8), t(1, 8), 1],
        ],
        "_log_softmax_backward_data": [[t(6, 8), -rows, d, torch.float32] for d in (0, 1)],
        "_softmax_backward_data": [[t(6, 8), rows, d, torch.float32] for d in (0, 1)],
        "log_sigmoid_backward": [[t(6, 8), rows, t(6, 8)]],
    }
    if name in table:
        return [(args, {}) for args in table[name]]
    if name.startswith(flash):
        masks = (None, (6, 5), (2, 2, 6, 5), (2, 1, 1, 5))
        return [_attention(mask=m, back=name.endswith("backward")) for m in masks]
    if name == "convolution_backward":
        return [_convolution(spatial) for spatial in (1, 2, 3)]
    if "_pool" in name:
        return [_pool(2 if "pool2d" in name else 3, indices=name.startswith("max"))]
    if "_pad" in name:
        return [_padded(name)]
    if name.startswith("upsample"):
        return [_scaled(name)]
    kwargs = {"rounding_mode": "floor"} if name.startswith("div") else {}
    return [([rows, rows.flip(0) if name.endswith(("Tensor", "Tensor_mode")) else 2], kwargs)]


def layouts(own: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors that lie oddly, in memory that is otherwise not numbers."""

    def buffer(size: int) -> torch.Tensor:
        return torch.full((size,), float("nan") if own.is_floating_point() else 1, dtype=own.dtype)

    def expanded(dims: range) -> torch.Tensor:
        base = own
        for dim in dims:
            base = base.narrow(dim, 0, 1)
        first = own.numel()
        return (
            buffer(3 * own.numel())[first : first + base.numel()].view(base.shape).copy_(base).expand_as(own)
        )

    yield "expanded", expanded(range(own.dim()))
    for dim in range(own.dim()):
        yield f"dimension {dim} expanded", expanded(range(dim, dim + 1))
    order = list(range(own.dim()))[::-1]
    yield "reversed", own.permute(order).contiguous().permute(order)
    if own.dim() > 1:
        order = [*order[1:], order[0]]
        back = sorted(range(own.dim()), key=order.__getitem__)
        yield "turned", own.permute(order).contiguous().permute(back)
    if own.dim() == 4:
        yield "channels last", own.contiguous(memory_format=torch.channels_last)
        yield "heads last", own.transpose(1, 2).contiguous().transpose(1, 2)
    wide = buffer(2 * own.numel() + 2).narrow(0, 1, 2 * own.numel())
    yield "every second", wide.view(*own.shape[:-1], -1)[..., ::2].copy_(own)
    yield "rows apart", buffer(2 * own.numel()).view(*own.shape[:-1], -1)[..., : own.shape[-1]].copy_(own)


def call(name: str, args: list[Any], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The operator's results, through the guarded interpreter, on copies of what it may write."""
    batch: list[Any] = []
    writes = "batch_norm" in name and "backward" not in name

    def argument(value: Any) -> Argument:
        if isinstance(value, torch.Tensor):
            batch.append(value)
            return Ref(len(batch) - 1)
        if isinstance(value, torch.dtype):
            return Named("dtype", str(value).removeprefix("torch."))
        return tuple(argument(v) for v in value) if isinstance(value, list) else value

    own = [argument(a) for a in args]
    named = {key: argument(a) for key, a in kwargs.items()}
    copies = [
        Node(operator="aten.clone.default", args=(Ref(i),), kwargs={}) for i in range(len(batch) * writes)
    ]
    kept = [Ref(a.value + len(copies)) if isinstance(a, Ref) else a for a in own]
    nodes = [*copies, Node(operator=name, args=tuple(kept), kwargs=named)]
    last = len(batch) + len(nodes) - 1
    several = len(overload(name)._schema.returns)
    gradients = {"0": last}
    if several > 1:
        gradients = {str(i): last + 1 + i for i in range(several)}
        nodes += [Node(operator=GETITEM, args=(Ref(last), i), kwargs={}) for i in range(several)]
    nodes.append(Node(operator="aten.ones.default", args=((),), kwargs={}))
    inputs = tuple(Input(kind="batch", key=i) for i in range(len(batch)))
    graph = Graph(
        inputs=inputs, nodes=tuple(nodes), loss=len(batch) + len(nodes) - 1, gradients=gradients, buffers={}
    )
    return list(Interpreter(graph, [], CPU, guarded=True).run({}, batch).gradients.values())


def odd_memory() -> list[str]:
    """What each guarded operator gets wrong, of arguments that lie oddly."""
    wrong = []
    for full_name in sorted(GUARDS):
        for number, (args, kwargs) in enumerate(
            _cases(full_name.removeprefix("aten.").removesuffix(".default"))
        ):
            call(full_name, args, kwargs)
            places: list[tuple[Any, Any, torch.Tensor]] = [
                (holder, key, value)
                for holder, items in ((args, enumerate(args)), (kwargs, kwargs.items()))
                for key, value in items
                if isinstance(value, torch.Tensor) and value.dim()
            ]
            for holder, key, value in places:
                for layout, odd in layouts(value):
                    where = f"{full_name} {number} argument {key} {layout}"
                    print(where, flush=True)
                    holder[key] = odd.contiguous()
                    expected = call(full_name, args, kwargs)
                    holder[key] = odd
                    try:
                        results = call(full_name, args, kwargs)
                    except ReplayError:
                        continue
                    pairs = zip(results, expected, strict=True)
                    if not all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in pairs):
                        wrong.append(where)
                holder[key] = value
    return wrong


def absent_tensors() -> list[str]:
    """Operators that ran although a tensor of theirs was none; a crash says the rest."""
    ran = []
    for name in sorted(OPERATORS - {GETITEM}):
        schema = overload(name)._schema
        if not any(str(a.real_type) == "Tensor" and not a.has_default_value() for a in schema.arguments):
            continue
        print(name, flush=True)
        gap = Node(operator=CONV, args=CONV_ARGS, kwargs={})
        taken = Node(operator=GETITEM, args=(Ref(3), 0), kwargs={})
        own = tuple(_some(str(a.real_type)) for a in schema.arguments if not a.kwarg_only)
        nodes = (gap, taken, Node(operator=name, args=own, kwargs={}))
        graph = Graph(
            inputs=tuple(Input(kind="batch", key=i) for i in range(3)),
            nodes=nodes,
            loss=0,
            gradients={},
            buffers={},
        )
        try:
            Interpreter(graph, [], CPU, guarded=True).run({}, [torch.ones(1, 1, 1, 1)] * 3)
        except ReplayError:
            continue
        ran.append(name)
    return ran


CONV = "aten.convolution_backward.default"
CONV_ARGS: tuple[Argument, ...] = (
    *(Ref(0), Ref(1), Ref(2), None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1, (False, False, False)),
)
NOTHING = Ref(4)


def _some(kind: str) -> Argument:
    plain: dict[str, Argument] = {"Tensor": NOTHING, "List[Tensor]": (NOTHING,), "bool": True, "str": "none"}
    plain |= {"int": 1, "number": 1, "float": 1.0, "List[int]": (1,), "List[bool]": (True, True, True)}
    plain |= {"ScalarType": Named("dtype", "float32"), "List[Optional[Tensor]]": (NOTHING,)}
    return plain.get(kind)


@pytest.mark.parametrize("what", ["odd_memory", "absent_tensors"])
def test_odd_memory_is_refused_or_read_right(what: str) -> None:
    command = [sys.executable, __file__, what]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"exit {done.returncode} after {lines[-1:]}: {done.stderr[-2000:]}"
    assert lines[-1] == "wrong: []"


def test_every_guarded_operator_is_tried() -> None:
    for name in GUARDS:
        for args, kwargs in _cases(name.removeprefix("aten.").removesuffix(".default")):
            assert call(name, args, kwargs)


E_ = "aten.{}.default".format
FLASH = E_("_scaled_dot_product_flash_attention_for_cpu")
REFUSED: dict[str, Callable[[], tuple[str, list[Any]]]] = {
    "weight norm, g": lambda: (E_("_weight_norm_interface"), [t(2, 4), t(1, 1).expand(1, 4), 1]),
    "weight norm, v": lambda: (E_("_weight_norm_interface"), [t(1, 1).expand(2, 4), t(1, 4), 1]),
    "weight norm's gradient": lambda: (
        E_("_weight_norm_interface_backward"),
        [t(1, 1).expand(2, 4), t(2, 4), t(1, 4), t(1, 4), 1],
    ),
    "group norm, bias": lambda: (
        E_("native_group_norm"),
        [t(2, 8, 4), t(8), t(1).expand(8), 2, 8, 4, 2, 1e-5],
    ),
    **{
        f"group norm's gradient, {n}": lambda n=n: (  # type: ignore[misc]
            E_("native_group_norm_backward"),
            [
                *(
                    v[:1].flatten()[:1].expand_as(v) if i == n else v
                    for i, v in enumerate([t(2, 8, 4), t(2, 8, 4), t(2, 2), t(2, 2), t(8)])
                ),
                *[2, 8, 4, 2, MASK],
            ],
        )
        for n in range(5)
    },
    "layer norm's gradient, mean": lambda: (
        E_("native_layer_norm_backward"),
        [t(6, 8), t(6, 8), [8], t(1, 1).expand(6, 1), t(6, 1), t(8), t(8), MASK],
    ),
    "layer norm's gradient, rstd": lambda: (
        E_("native_layer_norm_backward"),
        [t(6, 8), t(6, 8), [8], t(6, 1), t(1, 1).expand(6, 1), t(8), t(8), MASK],
    ),
    "attention, key": lambda: (FLASH, [t(1, 1, 4, 8), t(1, 1, 1, 1).expand(1, 1, 4, 8), t(1, 1, 4, 8)]),
    "attention, query": lambda: (FLASH, [t(1, 1, 8, 4).mT, t(1, 1, 4, 8), t(1, 1, 4, 8)]),
    "attention, repeated row": lambda: (
        FLASH,
        [t(1, 1, 1, 8).expand(1, 1, 4, 8), t(1, 1, 4, 8), t(1, 1, 4, 8)],
    ),
    "attention, no keys": lambda: (FLASH, [t(1, 1, 4, 8), t(1, 1, 0, 8), t(1, 1, 0, 8)]),
    "batch norm's gradient, no samples": lambda: (
        E_("native_batch_norm_backward"),
        [t(0, 8), t(0, 8), t(8), t(8), t(8), t(8), t(8), True, 1e-5, MASK],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_corrupts_memory_is_refused(name: str) -> None:
    operator, args = REFUSED[name]()
    with pytest.raises(ReplayError):
        call(operator, args, {})


def test_operators_without_a_sound_kernel_are_not_listed() -> None:
    assert not OPERATORS & {"aten.median.dim", "aten.median.default", "aten.copy.default"}


class Attention(nn.Module):
    """Heads that share one key, as in multi-query attention."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.shared = nn.Linear(8, 16), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query = self.query(x).unflatten(-1, (2, 8)).transpose(1, 2)
        key = self.shared(x).unsqueeze(1).expand(-1, 2, -1, -1)
        return F.scaled_dot_product_attention(query, key, key)


class ChannelsLast(nn.Module):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.parts(x.contiguous(memory_format=torch.channels_last))
        return result


HONEST: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "attention": lambda: (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), t(2, 5, 8)),
    "shared keys": lambda: (Attention(), t(2, 5, 8)),
    "group norm": lambda: (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)), t(2, 3, 8, 8)),
    "group norm of rows": lambda: (nn.Sequential(nn.Linear(6, 4), nn.GroupNorm(2, 4)), t(5, 6)),
    "layer norm": lambda: (nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4)), t(5, 6)),
    "rms norm": lambda: (nn.Sequential(nn.Linear(6, 4), nn.RMSNorm(4)), t(5, 6)),
    "weight norm": lambda: (weight_norm(nn.Linear(6, 4)), t(5, 6)),
    "weight norm, last": lambda: (weight_norm(nn.Linear(6, 4), dim=1), t(5, 6)),
    "weight norm of a convolution": lambda: (weight_norm(nn.Conv1d(3, 4, 3)), t(2, 3, 8)),
    "batch norm": lambda: (nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), t(5, 6)),
    "instance norm": lambda: (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True)),
        t(2, 3, 8, 8),
    ),
    "average pool": lambda: (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2)), t(2, 3, 8, 8)),
    "log softmax": lambda: (nn.Sequential(nn.Linear(6, 4), nn.LogSoftmax(-1)), t(5, 6)),
    "channels last": lambda: (
        ChannelsLast(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.GroupNorm(2, 4), nn.MaxPool2d(2)),
        t(2, 3, 8, 8),
    ),
    "pixels as rows": lambda: (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.GroupNorm(2, 4), nn.LayerNorm(36)),
        t(2, 3, 8, 8),
    ),
}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("reduce", [torch.sum, torch.mean], ids=["sum", "mean"])
def test_honest_graphs_run_guarded_and_give_the_same_bits(
    name: str, reduce: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    model, x = HONEST[name]()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    trained = [n for n, _ in model.named_parameters()]
    schema, batch = schema_of((x[0],)), [x]
    captured = capture(model, lambda m, b: reduce(m(b[0])), trained, schema, batch)
    state = {f"parameters/{n}": p.detach() for n, p in model.named_parameters()}
    state |= {f"buffers/{n}": b.clone() for n, b in model.named_buffers()}
    loss = reduce(model(x))
    loss.backward()  # type: ignore[no-untyped-call]
    for guarded in (True, False):
        result = Interpreter(captured.graph, captured.constants, CPU, guarded=guarded).run(state, batch)
        assert torch.equal(result.loss, loss.detach())
        for n, p in model.named_parameters():
            assert p.grad is None or torch.equal(result.gradients[n], p.grad)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = {"odd_memory": odd_memory, "absent_tensors": absent_tensors}[sys.argv[1]]()
    print(f"wrong: {found}")
