"""Samples made so that their gradient is a wanted one, and bundles that claim them as training data.

Source: Zhang et al. 2022, "'Adversarial Examples' for Proof-of-Learning". Checkpoints lie on the line from a
rank-matched initialisation to the stolen weights. For every interval, real samples X get a perturbation R:
min over R of ‖∇_θ L(clamp(X + R, 0, 1), y) − g‖² + λ ‖R‖², by L-BFGS from R = 0; if the gradient term or
‖R‖² is not below its bound, other samples are drawn, up to 30 times. All samples so made, in the order of
their use, are the data set that the bundle claims.

Where we differ, for all three attacks: the declared optimizer is SGD without momentum and weight decay,
which are the prover's choice and would only carry drift on; what is left to correct is spread over the
batches that are left of the interval; of the draws that all missed the bounds the best is kept, not the
last; dropout is off, since its masks follow from the seed, and that from the data set that is being made. A
batch goes through the model in training mode, as the replay does, so batch norm takes the statistics of the
batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import TensorDataset, default_collate

from gradseal.attacks.attack import Hand, distance, length, line
from gradseal.attacks.paths import drawn, parameters_of, rank_matched, sgd, walk
from gradseal.errors import Error
from gradseal.record.presented import State

RATE = 0.01
"""The published learning rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How samples are looked for, and when they are good enough; the defaults are the published ones.

    Args:
        iterations: The most that L-BFGS makes for one draw of samples.
        weight: λ, of the perturbation's squared norm.
        tolerance: L-BFGS stops where no derivative is larger.
        gradient: The gradient term must be below.
        noise: The squared norm of the perturbation must be below.
        retries: Draws of samples.
    """

    iterations: int
    weight: float
    tolerance: float = 1e-7
    gradient: float = 15.0
    noise: float = 20.0
    retries: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A batch of synthesised samples.

    Args:
        images: Perturbed, in the scale of the data set, shape (samples, …).
        labels: Theirs.
        gradient: By parameter, at the point for which they were made.
        fit: ‖gradient − wanted‖².
        noise: ‖R‖², pixels between 0 and 1.
    """

    images: torch.Tensor
    labels: torch.Tensor
    gradient: State
    fit: float
    noise: float

    def within(self, rule: Rule) -> bool:
        """Whether both bounds hold."""
        return self.fit < rule.gradient and self.noise < rule.noise


Interval = Callable[["Synthesis", State, State], Iterator[Made]]
"""From the weights at an interval's two ends to the batches claimed between; moves along with them."""


class Synthesis:
    """Makes samples with wanted gradients, counted in the attacker's meter.

    Args:
        hand: What the attacker has.
        rule: How they are looked for.

    Raises:
        Error: The data are not pairs of an image and its label.
    """

    def __init__(self, hand: Hand, rule: Rule) -> None:
        self._hand, self._rule = hand, rule
        self._model = hand.model(dropout=False).train()
        self._named = dict(self._model.named_parameters())
        sample = hand.data[0]
        if not (isinstance(sample, tuple | list) and len(sample) == 2 and sample[0].dim() >= 2):
            raise Error(
                "is not a pair of an image and its label; there are no pixels to perturb", where="sample 0"
            )
        self._scale = 1.0 if sample[0].is_floating_point() else 255.0
        self.state: State = {}

    def stand_at(self, state: Mapping[str, torch.Tensor]) -> None:
        """Puts the model at these parameters."""
        self.state = {f"parameters/{name}": state[f"parameters/{name}"].clone() for name in self._named}

    def step(self, gradient: Mapping[str, torch.Tensor]) -> None:
        """Moves the model on, as a replay will."""
        for name, tensor in self.state.items():
            tensor.sub_(RATE * gradient[name])

    def make(self, wanted: Mapping[str, torch.Tensor], samples: int) -> Made:
        """Samples whose mean gradient, where the model stands, is near the wanted one."""
        best: Made | None = None
        notes = self._hand.meter.notes
        for _ in range(self._rule.retries):
            made = self._attempt(wanted, samples)
            notes["draws"] = notes.get("draws", 0.0) + 1
            if best is None or made.fit < best.fit or not math.isfinite(best.fit):
                best = made
            if made.within(self._rule):
                best = made
                break
        if best is None:
            raise Error("allows no draw", where="retries")
        kind = "optimisations within the rule" if best.within(self._rule) else "optimisations out of retries"
        notes[kind] = notes.get(kind, 0.0) + 1
        return best

    def gradient(self, images: torch.Tensor, labels: torch.Tensor) -> State:
        """The gradient of a batch where the model stands."""
        self._hand.meter.batch(len(images))
        found = torch.autograd.grad(self._loss(images, labels), list(self._named.values()))
        return {f"parameters/{name}": g for name, g in zip(self._named, found, strict=True)}

    def _attempt(self, wanted: Mapping[str, torch.Tensor], samples: int) -> Made:
        data, rule = self._hand.data, self._rule
        chosen = torch.randint(len(data), (samples,), generator=self._hand.generator).tolist()
        pixels, labels = default_collate([data[i] for i in chosen])
        pixels = pixels.float() / self._scale
        noise = torch.zeros_like(pixels, requires_grad=True)
        solver = torch.optim.LBFGS([noise], max_iter=rule.iterations, tolerance_grad=rule.tolerance)

        def images() -> torch.Tensor:
            shown: torch.Tensor = (pixels + noise).clamp(0, 1) * self._scale
            return shown

        def objective() -> torch.Tensor:
            # Forward, backward, and the backward of both: three times what a gradient takes.
            self._hand.meter.batch(3 * samples)
            gradients = torch.autograd.grad(
                self._loss(images(), labels), list(self._named.values()), create_graph=True
            )
            fit = torch.stack(
                [
                    (g - wanted[f"parameters/{name}"]).square().sum()
                    for name, g in zip(self._named, gradients, strict=True)
                ]
            ).sum()
            total = fit + rule.weight * noise.square().sum()
            (noise.grad,) = torch.autograd.grad(total, [noise])
            return total

        solver.step(objective)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            made = images()
        gradient = self.gradient(made, labels)
        return Made(
            images=made,
            labels=labels,
            gradient=gradient,
            fit=distance(wanted, gradient) ** 2,
            noise=float(noise.detach().square().sum()),
        )

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            for name, parameter in self._named.items():
                parameter.copy_(self.state[f"parameters/{name}"])
        return self._hand.recipe.loss(self._model, [images, labels])


def correction(here: State, goal: State, batches: int) -> State:
    """The gradient that, in each of so many steps to come, leads from here to the goal."""
    return {name: (here[name] - goal[name]) / (RATE * batches) for name in here}


def forge_along(hand: Hand, rule: Rule, count: Callable[[float], int], interval: Interval) -> None:
    """Writes a bundle whose checkpoints lie on the line, and whose data are made interval by interval.

    Args:
        hand: What the attacker has.
        rule: How samples are looked for.
        count: From the length of the line to the number of intervals.
        interval: Makes the batches of one.
    """
    target = hand.weights
    start = rank_matched(drawn(hand), target)
    segments = count(distance(parameters_of(start), target))
    synthesis = Synthesis(hand, rule)
    batches: list[Made] = []
    errors = []
    for number in range(segments):
        left, right = (parameters_of(line(start, target, share / segments)) for share in (number, number + 1))
        synthesis.stand_at(left)
        batches += interval(synthesis, left, right)
        errors.append(distance(synthesis.state, right))
    _note(hand, batches, errors, rule)
    run = hand.present(
        hand.model(dropout=False),
        optimizer=sgd(RATE),
        data=_dataset(batches),
        steps=segments * hand.setting.every,
        shuffle=False,
    )
    run.begin(start)
    walk(hand, run, target, run.planned)
    run.finish()


def _dataset(batches: Sequence[Made]) -> TensorDataset:
    return TensorDataset(
        torch.cat([made.images for made in batches]), torch.cat([made.labels for made in batches])
    )


def _note(hand: Hand, batches: Sequence[Made], errors: Sequence[float], rule: Rule) -> None:
    """What the attacker knows of how well it went; the verifier will measure for himself."""
    notes = hand.meter.notes
    notes["batches"] = float(len(batches))
    notes["batches within the rule"] = float(sum(made.within(rule) for made in batches))
    notes["mean gradient norm"] = sum(length(made.gradient) for made in batches) / len(batches)
    notes["intervals"] = float(len(errors))
    notes["intervals within the tolerance"] = float(sum(error <= hand.tolerance for error in errors))
    notes["largest error"] = max(errors)
