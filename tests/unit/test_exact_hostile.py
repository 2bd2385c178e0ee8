"""Graphs of an adversary in exact arithmetic: what would overflow, race or be left unwritten is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.grad import conv2d_input

from gradseal.errors import ReplayError
from gradseal.program.exact import convolution
from gradseal.program.exact.convolution import Window
from gradseal.program.exact.products import Realisation
from gradseal.program.graph import Graph, Input, Node, Ref
from gradseal.program.interpret import Interpreter

CPU = torch.device("cpu")
Call = tuple[str, tuple[Any, ...]]


def run(batch: list[torch.Tensor], *calls: Call, result: int = -1) -> torch.Tensor:
    """The value of one node, the last by default; a `Ref` counts the batch's leaves first."""
    first = len(batch)
    shown = first + (result if result >= 0 else len(calls) + result)
    nodes = [
        Node(operator=name if name == "getitem" else f"aten.{name}", args=arguments, kwargs={})
        for name, arguments in calls
    ]
    nodes.append(Node(operator="aten.sum.default", args=(Ref(shown),), kwargs={}))
    graph = Graph(
        inputs=tuple(Input(kind="batch", key=i) for i in range(first)),
        nodes=tuple(nodes),
        loss=first + len(calls),
        gradients={"g": shown},
        buffers={},
    )
    return Interpreter(graph, [], CPU, guarded=True, exact=True).run({}, batch).gradients["g"]


IMAGE, KERNEL = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 3, 3)
WIDE = (2**32 - 2) // 2


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        (KERNEL, (1, 1), (WIDE, WIDE), (WIDE, WIDE)),
        (KERNEL, (1, 1), (4097, 4097), (4097, 4097)),
        (torch.ones(1, 1, 0, 3), (1, 1), (0, 1), (1000, 1)),
        (KERNEL, (0, 1), (1, 1), (1, 1)),
        (KERNEL, (1, 1), (1, 1), (0, 1)),
        (KERNEL, (2**32, 2**32), (1, 1), (1, 1)),
        (KERNEL, (7, 7905747460161236407), (1, 1), (1, 1)),
    ],
)
def test_a_window_out_of_bounds_is_refused(
    kernel: torch.Tensor, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> None:
    with pytest.raises(ReplayError):
        run(
            [IMAGE, kernel],
            ("convolution.default", (Ref(0), Ref(1), None, stride, padding, dilation, False, (0, 0), 1)),
        )


@pytest.mark.parametrize("stride", [(2**32, 2**32), (7, 7905747460161236407)])
def test_a_gradient_is_written_whole_or_refused(stride: tuple[int, int]) -> None:
    arguments = (Ref(0), Ref(1), Ref(2), None, stride, (0, 0), (1, 1), False, (0, 0), 1, (True, False, False))
    with pytest.raises(ReplayError):
        run(
            [torch.ones(1, 1, 1, 1), torch.ones(1, 1, 300, 300), torch.ones(1, 1, 1, 1)],
            ("convolution_backward.default", arguments),
            ("getitem", (Ref(3), 0)),
        )


def test_more_elements_than_anybody_has_are_refused() -> None:
    x = torch.ones(1).expand(1, 1, 2**21, 2**21)
    with pytest.raises(ReplayError, match="elements"):
        convolution.conv2d(x, KERNEL, Window())


@pytest.mark.parametrize(
    ("gradient", "weight", "window", "size"),
    [
        ((1, 2, 1, 8), (2, 1, 1, 3), Window(stride=(7, 2), padding=(2, 0), groups=2), (2, 17)),
        ((1, 2, 2, 2), (2, 3, 3, 1), Window(stride=(7, 7), padding=(2, 2), dilation=(1, 3)), (6, 6)),
    ],
)
def test_a_gradient_of_which_only_padding_saw_a_part(
    gradient: tuple[int, ...], weight: tuple[int, ...], window: Window, size: tuple[int, int]
) -> None:
    g, w = torch.randn(gradient), torch.randn(weight)
    own = convolution.conv2d_input_gradient(g, w, window, size, realisation=Realisation.FLOAT64)
    assert torch.equal(own, convolution.conv2d_input_gradient(g, w, window, size))
    channels = weight[1] * window.groups
    expected = conv2d_input(  # type: ignore[no-untyped-call]  # torch does not type it
        (gradient[0], channels, *size), w, g, window.stride, window.padding, window.dilation, window.groups
    )
    torch.testing.assert_close(own, expected)


def test_writing_to_memory_that_overlaps_itself_is_refused() -> None:
    with pytest.raises(ReplayError, match="overlaps itself"):
        run(
            [torch.zeros(3099), torch.randn(3000, 100)],
            ("clone.default", (Ref(0),)),
            ("unfold.default", (Ref(2), 0, 100, 1)),
            ("copy_.default", (Ref(3), Ref(1))),
        )


def test_a_source_may_lie_in_the_memory_that_is_written() -> None:
    x = torch.randn(300, 300)
    moved = run(
        [x],
        ("clone.default", (Ref(0),)),
        ("t.default", (Ref(1),)),
        ("copy_.default", (Ref(2), Ref(1))),
        result=0,
    )
    assert torch.equal(moved, x.t())


def test_statistics_in_one_memory_are_refused() -> None:
    ones = torch.ones(2)
    with pytest.raises(ReplayError, match="one memory"):
        run(
            [torch.randn(3, 2), ones],
            ("clone.default", (Ref(1),)),
            ("native_batch_norm.default", (Ref(0), Ref(1), Ref(1), Ref(2), Ref(2), True, 0.1, 1e-5)),
            ("getitem", (Ref(3), 0)),
        )


def test_a_view_that_would_be_a_copy_is_refused_where_it_is_written() -> None:
    x = torch.randn(4, 3)
    calls: list[Call] = [
        ("clone.default", (Ref(0),)),
        ("t.default", (Ref(1),)),
        ("view.default", (Ref(2), (12,))),
    ]
    assert torch.equal(run([x], *calls), x.t().reshape(-1))
    with pytest.raises(ReplayError, match="view"):
        run([x], *calls, ("zero_.default", (Ref(3),)))
