"""Captured graphs give eager PyTorch's bits, and what cannot be captured is refused by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gradseal.errors import CaptureError
from gradseal.program.batches import schema_of
from gradseal.program.capture import Captured, capture, check_model
from gradseal.program.graph import Graph
from gradseal.program.interpret import Interpreter
from gradseal.program.memory import to_bytes
from gradseal.program.native import seeded
from gradseal.program.operators import OPERATORS

CPU = torch.device("cpu")
Loss = Callable[[nn.Module, Any], torch.Tensor]


def cross_entropy(model: nn.Module, batch: Any) -> torch.Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y)


def mean(model: nn.Module, batch: Any) -> torch.Tensor:
    value: torch.Tensor = model(batch[0]).square().mean()
    return value


class Applied(nn.Module):
    """Modules, and a function of them and the input."""

    def __init__(self, function: Callable[..., torch.Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, *self.parts)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.mix = nn.Linear(6, 6)
        self.out = nn.Linear(6, 7, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.out(torch.tanh(self.mix(self.embedding(x).mean(1))))
        return hidden


class Custom(nn.Module):
    """A parameter, a buffer that counts, and one that the forward pass replaces."""

    count: torch.Tensor
    last: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 4))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", torch.zeros(4))
        self.register_buffer("scale", torch.full((4,), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        out = x @ self.weight * self.scale + self.last
        self.last = out.detach().mean(0)
        return out + torch.rand_like(out)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.down = nn.Conv2d(3, 3, 1, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.first(x)) + x, inplace=True)
        return torch.flatten(self.down(x), 1)


def encoder(x: torch.Tensor, layer: nn.Module, out: nn.Module) -> torch.Tensor:
    value: torch.Tensor = out(layer(x).mean(1))
    return value


def attention(x: torch.Tensor, norm: nn.Module, attend: nn.Module, out: nn.Module) -> torch.Tensor:
    x = norm(x)
    value: torch.Tensor = out(attend(x, x, x)[0].mean(1))
    return value


def recurrent(x: torch.Tensor, net: nn.Module, out: nn.Module) -> torch.Tensor:
    value: torch.Tensor = out(net(x)[0][:, -1])
    return value


def weighted(model: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], weight=WEIGHTS)


WEIGHTS = torch.tensor([0.3, 1.5, 2.25, 0.125])
IMAGES = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
ROWS = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
SERIES = torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(3))
TOKENS = torch.tensor([[1, 2, 3], [4, 5, 6], [0, 0, 1], [2, 2, 2], [6, 5, 4]])

MODELS: dict[str, tuple[Callable[[], nn.Module], torch.Tensor, Loss]] = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(8, 9), nn.GELU(), nn.Linear(9, 4)),
        ROWS,
        cross_entropy,
    ),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(36, 4),
        ),
        IMAGES,
        cross_entropy,
    ),
    "custom": (Custom, ROWS, cross_entropy),
    "tied": (Tied, TOKENS, cross_entropy),
    "class weights": (lambda: nn.Linear(8, 4), ROWS, weighted),
    "attention": (
        lambda: Applied(
            attention, nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 4)
        ),
        SERIES,
        cross_entropy,
    ),
    "encoder": (
        lambda: Applied(encoder, nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 4)),
        SERIES,
        cross_entropy,
    ),
    "gru": (
        lambda: Applied(recurrent, nn.GRU(8, 6, 2, batch_first=True), nn.Linear(6, 4)),
        SERIES,
        cross_entropy,
    ),
    "residual": (Residual, IMAGES, mean),
    "group norm": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(inplace=True), nn.AvgPool2d(2)),
        IMAGES,
        mean,
    ),
    "upsampled": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
            nn.AdaptiveMaxPool2d(3),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.ConvTranspose2d(4, 2, 3, stride=2),
        ),
        IMAGES,
        mean,
    ),
}


def captured(
    model: nn.Module, x: torch.Tensor, loss: Loss = cross_entropy, trained: list[str] | None = None
) -> tuple[Captured, list[torch.Tensor]]:
    batch = [x, torch.arange(len(x)) % 4]
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    schema = schema_of((x[0], torch.tensor(1)))
    return capture(model, loss, names if trained is None else trained, schema, batch), batch


@pytest.mark.parametrize("size", [5, 2])
@pytest.mark.parametrize("name", MODELS)
def test_a_captured_graph_has_eager_bits(name: str, size: int) -> None:
    torch.manual_seed(0)
    make, x, loss = MODELS[name]
    model = make()
    before = {n: p.clone() for n, p in model.state_dict().items()}
    made, batch = captured(model, x[:size], loss)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    graph = Graph.decode(made.graph.encode(), where="graph")
    state = {f"parameters/{n}": p.detach() for n, p in model.named_parameters()}
    state |= {f"buffers/{n}": b.clone() for n, b in model.named_buffers()}
    with seeded(bytes(32), 3):
        own = Interpreter(graph, made.constants, CPU, guarded=True).run(state, batch)
    with seeded(bytes(32), 3):
        value = loss(model, tuple(batch))
    value.backward()  # type: ignore[no-untyped-call] # torch's own
    assert to_bytes(own.loss) == to_bytes(value)
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(own.gradients)
    for n, p in model.named_parameters():
        if p.grad is not None:
            assert to_bytes(own.gradients[n]) == to_bytes(p.grad), n
    for n, b in model.named_buffers():
        assert to_bytes(own.buffers.get(n, state[f"buffers/{n}"])) == to_bytes(b), n


def test_constants_are_listed() -> None:
    made, _ = captured(nn.Linear(8, 4), ROWS, weighted)
    assert [c.tolist() for c in made.constants] == [WEIGHTS.tolist()]


def test_a_buffer_that_nothing_touches_is_no_output() -> None:
    model = Custom()
    model.register_buffer("idle", torch.zeros(3))
    made, _ = captured(model, ROWS)
    assert {"count", "last"} <= set(made.graph.buffers)
    assert "idle" not in made.graph.buffers


def test_a_frozen_parameter_has_no_gradient() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    model[0].requires_grad_(False)
    made, _ = captured(model, ROWS)
    assert set(made.graph.gradients) == {"1.weight", "1.bias"}


def test_a_parameter_that_the_loss_does_not_reach_has_no_gradient() -> None:
    model = Applied(lambda x, used, unused: used(x), nn.Linear(8, 4), nn.Linear(8, 4))
    made, _ = captured(model, ROWS)
    assert set(made.graph.gradients) == {"parts.0.weight", "parts.0.bias"}


def test_nan_in_a_graph_is_equal_to_itself() -> None:
    made, _ = captured(nn.Linear(8, 4), ROWS, lambda m, b: m(b[0]).sum() * float("nan"))
    assert b"7ff8000000000000" in made.graph.encode()


class Branch(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        if self.kind == "if":
            return out if out.sum() > 0 else -out
        if self.kind == "item":
            return out * out.mean().item()
        return out[out > 0].mean() * out


@pytest.mark.parametrize("kind", ["if", "item", "mask"])
def test_decisions_that_depend_on_data(kind: str) -> None:
    with pytest.raises(CaptureError, match="depends on the data") as e:
        captured(nn.Sequential(nn.Linear(8, 8), Branch(kind)), ROWS)
    assert e.value.where == "model.1"
    assert "torch.where" in e.value.advice


def test_an_operator_that_is_not_listed_is_named_with_its_module() -> None:
    assert "aten.linalg_inv_ex.default" not in OPERATORS
    inverse = Applied(lambda x, layer: torch.linalg.inv(layer.weight) @ x.T, nn.Linear(8, 8))
    model = nn.Sequential(nn.Linear(8, 8), inverse)
    with pytest.raises(CaptureError, match=r"aten\.linalg_inv_ex\.default") as e:
        captured(model, ROWS, mean)
    assert e.value.where == "model.1"


def test_an_lstm_is_refused_with_advice() -> None:
    with pytest.raises(CaptureError, match="mkldnn_rnn_layer") as e:
        captured(Applied(recurrent, nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 4)), SERIES)
    assert e.value.where == "model.parts.0"
    assert "GRU" in e.value.advice


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(reentrant: bool) -> None:
    layer = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    model = Applied(
        lambda x, first, part: checkpoint(part, first(x), use_reentrant=reentrant), nn.Linear(8, 8), layer
    )
    with pytest.raises(CaptureError) as e:
        captured(model, ROWS.clone())
    assert "turn off activation checkpointing" in e.value.advice


def test_sparse_gradients() -> None:
    with pytest.raises(CaptureError, match="sparse") as e:
        check_model(nn.Sequential(nn.Embedding(4, 4, sparse=True)))
    assert e.value.where == "model.0"
    assert e.value.advice
    check_model(nn.Sequential(nn.Embedding(4, 4)))


def test_compiled_modules() -> None:
    inner = torch.compile(nn.Linear(2, 2))
    with pytest.raises(CaptureError, match=r"compiled by torch\.compile") as e:
        check_model(nn.ModuleList([nn.Linear(2, 2), inner]))  # type: ignore[list-item] # it is a module
    assert e.value.where == "model.1"
    model = nn.Linear(2, 2)
    model.compile()
    with pytest.raises(CaptureError, match="compiled in place") as e:
        check_model(model)
    assert "module.compile()" in e.value.advice


def test_a_parameter_of_unusual_layout() -> None:
    model = nn.Linear(3, 2)
    model.weight = nn.Parameter(torch.randn(3, 2).T)
    with pytest.raises(CaptureError, match="not contiguous") as e:
        check_model(model)
    assert e.value.where == "model.weight"


def test_a_parameter_changed_in_forward() -> None:
    def forward(x: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
        with torch.no_grad():
            layer.weight.mul_(0.5)
        value: torch.Tensor = layer(x)
        return value

    with pytest.raises(CaptureError, match="changes a parameter") as e:
        captured(Applied(forward, nn.Linear(8, 4)), ROWS)
    assert e.value.where == "model.parts.0.weight"


def test_a_parameter_changed_behind_autograds_back() -> None:
    def forward(x: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
        layer.weight.data.mul_(0.5)
        value: torch.Tensor = layer(x)
        return value

    with pytest.raises(CaptureError, match="changes a parameter"):
        captured(Applied(forward, nn.Linear(8, 4)), ROWS)


def test_a_batch_changed_in_forward() -> None:
    with pytest.raises(CaptureError, match="changes the batch in place") as e:
        captured(Applied(lambda x, layer: layer(x.mul_(2)), nn.Linear(8, 4)), ROWS.clone())
    assert "clone" in e.value.advice


def test_a_tensor_that_counts_and_is_no_buffer() -> None:
    counter = torch.zeros(4)
    with pytest.raises(CaptureError, match="in place") as e:
        captured(Applied(lambda x, layer: layer(x) + counter.add_(1), nn.Linear(8, 4)), ROWS)
    assert "register_buffer" in e.value.advice


def test_a_buffer_that_changes_its_shape() -> None:
    class Grows(Custom):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.last = torch.cat([self.last, self.last])
            return x @ self.weight

    with pytest.raises(CaptureError, match="shape or element type") as e:
        captured(Grows(), ROWS)
    assert e.value.where == "model.last"


def test_pythons_randomness() -> None:
    draws = random.Random(1)
    with pytest.raises(CaptureError, match="two programs") as e:
        captured(Applied(lambda x, layer: layer(x) * draws.random(), nn.Linear(8, 4)), ROWS)
    assert "torch's own randomness" in e.value.advice


def test_pythons_randomness_in_a_constant() -> None:
    draws = random.Random(1)
    with pytest.raises(CaptureError, match="two programs"):
        captured(
            Applied(lambda x, layer: layer(x) * torch.tensor([draws.random()] * 4), nn.Linear(8, 4)), ROWS
        )


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda m, b: m(b[0]), "scalar"),
        (lambda m, b: m(b[0]).mean(0, keepdim=True).sum(1), "scalar"),
        (lambda m, b: 1.0, "scalar"),
        (lambda m, b: b[0].sum(), "no trained parameter"),
        (lambda m, b: m(b[0]).detach().sum(), "no trained parameter"),
    ],
)
def test_losses_that_are_none(loss: Loss, message: str) -> None:
    with pytest.raises(CaptureError, match=message) as e:
        captured(nn.Linear(8, 4), ROWS, loss)
    assert e.value.where == "loss"


def test_batch_norm_on_a_last_batch_of_one_sample() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    with pytest.raises(CaptureError) as e:
        captured(model, ROWS[:1])
    assert e.value.where == "model.1"
    assert "drop_last=True" in e.value.advice


def test_a_reference_to_a_parameter_outside_the_module() -> None:
    layer = nn.Linear(8, 4)
    kept = layer.weight
    with pytest.raises(CaptureError, match="baked into the program") as e:
        captured(Applied(lambda x, own: own(x) + kept.sum(), layer), ROWS)
    assert e.value.where == "model.parts.0.weight"
    assert "second reference" in e.value.advice


def test_an_error_in_the_models_own_code_names_its_module() -> None:
    with pytest.raises(CaptureError, match="cannot be traced") as e:
        captured(nn.Sequential(nn.Linear(8, 3), nn.Linear(4, 4)), ROWS)
    assert e.value.where == "model.1"


def test_a_loss_that_reaches_only_frozen_parameters() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4))
    with pytest.raises(CaptureError, match="no trained parameter"):
        captured(model, ROWS, lambda m, b: model[0](b[0]).sum(), trained=["1.weight"])
