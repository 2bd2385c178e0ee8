"""What attacks that present weights on a path have in common: where it starts, and how it is walked.

The initialisation whose values take another model's rank order is that of Fang et al. 2023,
"Proof-of-Learning is Currently More Broken Than You Think", and of Zhang et al. 2022, "Adversarial Examples
for Proof-of-Learning".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from gradseal.attacks.attack import Hand, line
from gradseal.record.presented import Presented, State

DRAWS = 8

_FLOPS_OF_A_POINT = 3.0
"""Subtract, scale and add: what a point on a line costs for each number."""


def drawn(hand: Hand) -> State:
    """An honest initialisation, drawn by the attacker: parameters and buffers.

    Of each tensor there are several draws, and the most usual one is taken: of so many tensors one is else
    likely to fail a test that a hundredth of honest ones fail.
    """
    draws = [_draw(hand) for _ in range(DRAWS)]
    return {name: _most_usual([draw[name] for draw in draws]) for name in draws[0]}


def _draw(hand: Hand) -> State:
    seed = int.from_bytes(hand.random_bytes()[:7], "big")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = hand.recipe.build()
    state = {f"parameters/{name}": tensor.detach().clone() for name, tensor in model.named_parameters()}
    return state | {f"buffers/{name}": tensor.detach().clone() for name, tensor in model.named_buffers()}


def _most_usual(draws: Sequence[torch.Tensor]) -> torch.Tensor:
    """The draw whose distribution is nearest to that of all together, by the Kolmogorov-Smirnov distance."""
    pooled = torch.cat([draw.flatten() for draw in draws]).sort().values
    count = draws[0].numel()
    even = (torch.arange(count) + 0.5) / max(1, count)

    def deviation(draw: torch.Tensor) -> float:
        ranks = torch.searchsorted(pooled, draw.flatten().sort().values) / max(1, len(pooled))
        return float((ranks - even).abs().max()) if count else 0.0

    return min(draws, key=deviation)


def rank_matched(start: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> State:
    """The start's values, each parameter's in the rank order of the target's; buffers stay.

    A test of the distribution of a tensor's values sees no difference; the distance to the target is the
    least that any order of these values has.
    """
    matched = {name: tensor.clone() for name, tensor in start.items()}
    for name, tensor in matched.items():
        if name.startswith("parameters/"):
            ordered = torch.empty_like(tensor).flatten()
            ordered[target[name].flatten().argsort(stable=True)] = tensor.flatten().sort().values
            matched[name] = ordered.view_as(target[name]).clone()
    return matched


def parameters_of(state: Mapping[str, torch.Tensor]) -> State:
    """The parameters of a state, without buffers and the optimizer's tensors."""
    return {name: tensor for name, tensor in state.items() if name.startswith("parameters/")}


def walk(hand: Hand, run: Presented, target: Mapping[str, torch.Tensor], segments: int) -> None:
    """Presents the next segments as equal pieces of the straight line to a target, where they end."""
    start = {name: run.state[name] for name in target}
    numbers = sum(tensor.numel() for tensor in target.values())
    for number in range(1, segments):
        run.present(line(start, target, number / segments))
        hand.meter.flops += _FLOPS_OF_A_POINT * numbers
    run.present(target)


def train_but_one(run: Presented, forged: int, target: Mapping[str, torch.Tensor]) -> None:
    """The whole run, true but for one segment, which ends in given weights; the rest goes on from these."""
    run.begin()
    for segment in range(run.planned):
        if segment == forged:
            run.present(target)
        else:
            run.train()
    run.finish()


def of_weights(hand: Hand, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """A model with a state's parameters and buffers, for evaluation."""
    model = hand.recipe.build()
    own = {name.partition("/")[2]: t for name, t in state.items() if not name.startswith("optimizer/")}
    model.load_state_dict(own, strict=False)
    return model.eval()


def sgd(rate: float, momentum: float = 0.0) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """Makes SGD with a learning rate; without momentum it has no state."""
    return lambda model: torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)


def scaled(factors: Sequence[float]) -> Callable[[torch.optim.Optimizer], LambdaLR]:
    """Makes a schedule that multiplies the learning rate of each step by a factor of its own."""
    return lambda optimizer: LambdaLR(optimizer, lambda step: factors[min(step, len(factors) - 1)])
