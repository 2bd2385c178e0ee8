"""A run that is being recorded: its batches, its steps, its end.

Each step is either Gradseal's own (`Run.step`: the captured graph, run by the verifier's interpreter) or the
user's (`Run.wrap`), of which one in each segment, drawn at random, is run again from the graph. Whatever
would make the record untrue stops it: another batch, a state changed between steps, an optimizer whose
settings moved, any error within a step. A record that was stopped has no close entry, and no verifier takes
it for whole.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, NoReturn

import torch

from gradseal.errors import RecordError
from gradseal.program.capture_optimizer import set_hyperparameter
from gradseal.program.memory import same_bits, weights_file
from gradseal.program.native import seeded
from gradseal.proof.writer import BundleWriter
from gradseal.record.amending import amended_program
from gradseal.record.batch import Batch, batch_of_step
from gradseal.record.live import differing, largest_difference
from gradseal.record.plan import Request
from gradseal.record.prepare import Prepared
from gradseal.record.progress import Progress
from gradseal.record.resume import Interrupted
from gradseal.record.sealing import Sealing
from gradseal.record.spare import return_freed_memory
from gradseal.record.timekeeping import Amended, Timekeeping
from gradseal.record.watch import Watch, listed


class Run:
    """A run that is being recorded; made by `record`.

    A context manager, whose end closes the record. Inside, loop over it once for the batches of the steps
    still to be done, in the committed order, and do one step for each; with `accumulate`, it gives lists of
    batches.
    """

    def __init__(
        self,
        request: Request,
        prepared: Prepared,
        writer: BundleWriter,
        *,
        progress: Progress,
        interrupted: Interrupted | None,
        time: Timekeeping,
    ) -> None:
        self._prepared = prepared
        self._time = time
        self._stepper = prepared.stepper
        self._optimizer = request.optimizer
        self._live = prepared.live
        self._sealing = Sealing(writer, prepared.live.layout)
        self._progress = progress
        self._plan = prepared.manifest.plan
        self._step = 0
        self._closed = False
        self._losses: list[float] = []
        self._batch: Batch | None = None
        self._stopped = False
        self._entered = False
        # Whether the user's optimizer has been told of the steps that were Gradseal's own.
        self._told = True
        if interrupted:
            state = interrupted.state(writer.files, self._live.layout, self._live.device)
            self._step = min(interrupted.segments * self._plan.every, self._plan.steps)
            self._live.load(state, self._step)
            self._closed = interrupted.closed
        else:
            self._sealing.initial(self._live.tensors(), time.entries())
        self._checked_step = self._draw_checked_step(self._step // self._plan.every)
        self._watch = Watch(
            request.model,
            request.optimizer,
            self._live,
            watched=prepared.watched,
            environment=prepared.environment,
            schedule=prepared.stepper.program.schedule,
        )
        if time.in_force is not None:
            self._put_in_force(time.in_force)
        if not self._closed:
            time.start(prepared.seeds)

    @property
    def steps(self) -> int:
        """How many steps the run has."""
        return self._plan.steps

    @property
    def segments(self) -> int:
        """How many segments the run has."""
        return self._plan.segments

    @property
    def steps_done(self) -> int:
        """How many steps are done; more than none at the start of a run that is resumed."""
        return self._step

    @property
    def steps_per_epoch(self) -> int:
        """How many steps see every sample once, but for those that a dropped batch leaves out; rounded up."""
        return -(-self._prepared.order.batches_per_epoch // self._plan.accumulate)

    def __enter__(self) -> Run:
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.end()
        try:
            if kind is None:
                self._close()
            elif error is not None and not self._closed:
                error.add_note(
                    "the recording stays unfinished; with resume=True it goes on from its last sealed state"
                )
        finally:
            self._sealing.stop()
            self._time.stop()

    def __iter__(self) -> Iterator[Any]:
        """The batches of the steps still to be done, in the committed order."""
        if not self._entered:
            self._stop(
                "the run was not entered, so it could not be closed", "with gradseal.record(…) as run:"
            )
        order, per_step = self._prepared.order, self._plan.accumulate
        if self._step < self._plan.steps:
            self._begin_segment()
        while self._step < self._plan.steps:
            numbers = range(self._step * per_step, self._plan.steps * per_step)
            # What was read ahead is in an order that another seed ends.
            with closing(
                self._prepared.data.stream(map(order.indices, numbers), self._live.device)
            ) as batches:
                yield from self._until_another_seed(batches)

    def _until_another_seed(self, batches: Iterator[list[torch.Tensor]]) -> Iterator[Any]:
        """The batches up to the end, or to a segment that draws from another seed."""
        schema = self._prepared.data.schema
        while self._step < self._plan.steps:
            step = self._step
            leaves = [next(batches) for _ in range(self._plan.accumulate)]
            self._batch = batch_of_step(schema, leaves, self._prepared.seeds.of_step(step), step)
            yield self._batch.given
            if self._step == step:
                self._stop("a batch was taken and not trained on; call run.step(batch) once for each")
            if self._step % self._plan.every == 0 and self._step < self._plan.steps and self._begin_segment():
                return

    def _begin_segment(self) -> bool:
        """A segment begins; returns whether it draws from another seed than the one before."""
        begun = self._time.begin_segment(self._step // self._plan.every)
        if begun.amended is not None:
            self._put_in_force(begun.amended)
        return begun.seed

    def _put_in_force(self, amended: Amended) -> None:
        self._stepper = replace(self._stepper, program=amended.program)
        for (group, field), value in amended.settings.items():
            set_hyperparameter(self._optimizer, group, field, value)
        self._watch.note_settings()

    def amend(self, *, group: int | None = None, clip: float | None = None, **settings: float) -> int:
        """Changes the program from a later slot on: hyperparameters by the optimizer's names, and clipping.

        The change is sealed and anchored before the seed from which it is in force is known, so that nobody
        can say it was chosen for what comes out. The first segment under it is always replayed.

        Args:
            group: The number of the parameter group that is meant; all if not given.
            clip: The largest norm of all gradients together, from then on.
            settings: The new values, such as `lr=0.01`.

        Returns:
            The slot from which it is in force.

        Raises:
            RecordError: The seed is declared, a setting cannot be amended, or an amendment waits already.
        """
        program = self._stepper.program
        changed, values = amended_program(program, group=group, clip=clip, settings=settings)
        return self._time.amend(changed, values)

    def step(self, batch: Any) -> torch.Tensor:
        """Does the step on `batch`, which must be the one just taken from the run.

        Returns:
            The loss before the update, detached.

        Raises:
            RecordError: It is another batch, or something changed the state since the last step.
        """
        with self._ending_on_errors():
            taken = self._begin(batch)
            loss = self._stepper.take(self._live.tensors(), taken.leaves, step=self._step)
            self._live.install_kept(self._prepared.reached, self._step + 1)
            self._told = False
            self._finish(float(loss))
        return loss.detach()

    def wrap(self, train_step: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """Makes the user's own training step one that is recorded.

        The step is called with the batch first; it must zero the gradients, call backward, step the
        optimizer, and return its loss. With `accumulate`, the batch is a list of batches, to be taken in
        order; each loss is divided by their number, and their sum returned. One step in each segment is run
        again from the captured graph.

        Args:
            train_step: The user's; further arguments are passed on to it.

        Returns:
            The step to call instead; it raises RecordError where the step is not what was captured.
        """
        if self._stepper.exact:
            raise RecordError(
                "a step of one's own runs in PyTorch's arithmetic, and this run is in exact arithmetic",
                where="wrap",
                advice="call run.step(batch), or record with arithmetic='native'",
            )

        @functools.wraps(train_step)
        def recorded(batch: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            with self._ending_on_errors():
                taken = self._begin(batch)
                self._watch.check_flags(self._step)
                self._tell_optimizer()
                checked = self._step == self._checked_step
                before = self._sealing.copy_of(self._live.tensors()) if checked else None
                self._live.let_go()
                if checked:
                    return_freed_memory()
                with seeded(self._prepared.seeds.of_step(self._step), self._step), taken.in_step():
                    loss: object = train_step(batch, *args, **kwargs)
                if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
                    self._stop("the wrapped step must return its loss, a scalar tensor")
                if before is not None:
                    self._run_again(before, taken, loss)
                self._finish(float(loss.detach()))
            return loss

        return recorded

    @contextmanager
    def _ending_on_errors(self) -> Iterator[None]:
        """Whatever goes wrong within a step, the state may be half changed, and nothing more is recorded."""
        try:
            yield
        except BaseException:
            self._stopped = True
            raise

    def _begin(self, batch: Any) -> Batch:
        if self._stopped:
            raise RecordError("the recording was stopped", where=f"step {self._step}")
        if self._step >= self._plan.steps:
            self._stop(f"all {self._plan.steps} steps are done")
        if self._batch is None or batch is not self._batch.given:
            self._stop("the batch is not the one that the run gave for this step", "loop `for batch in run`")
        if not self._batch.is_as_given():
            self._stop("the batch was changed after the run gave it", "change the data set instead")
        self._watch.check_state(self._step)
        self._watch.check_watched(self._step)
        self._watch.set_settings(self._step)
        return self._batch

    def _finish(self, loss: float) -> None:
        self._losses.append(loss)
        self._batch = None
        self._watch.note_state()
        self._step += 1
        if self._step % self._plan.every == 0 or self._step == self._plan.steps:
            self._end_segment()
        self._progress.trained(self._step, self._plan.steps, loss)

    def _end_segment(self) -> None:
        index = (self._step - 1) // self._plan.every
        self._watch.check_environment(self._step)
        self._live.check_unreplaced()
        self._tell_optimizer()
        self._sealing.segment(
            index, self._plan.steps_of(index), self._losses, self._live.tensors(), self._time.entries()
        )
        if self._step == self._plan.steps:
            self._sealing.wait()
        self._losses.clear()
        self._checked_step = self._draw_checked_step(index + 1)

    def _tell_optimizer(self) -> None:
        if not self._told:
            self._live.settle(self._step)
            self._told = True

    def _close(self) -> None:
        if self._stopped:
            raise RecordError(
                "the recording was stopped; the bundle stays unfinished", where=f"step {self._step}"
            )
        if self._step < self._plan.steps:
            raise RecordError(
                f"ended after {self._step} of {self._plan.steps} steps; the bundle stays unfinished",
                where=f"step {self._step}",
            )
        self._live.check_unreplaced()
        self._watch.check_state(self._step)
        if self._closed:
            self._time.close()  # what was closed may not have been anchored
            return
        state = self._live.tensors()
        released = {name: state[behind] for name, behind in self._prepared.release.tensors.items()}
        self._sealing.close(self._plan.segments, lambda: weights_file(released), self._time.entries())
        self._closed = True
        self._time.close()

    def _run_again(self, before: dict[str, torch.Tensor], taken: Batch, loss: torch.Tensor) -> None:
        """Runs the step just done from the graph, and stops the recording if a bit differs."""
        own = self._stepper.take(before, taken.leaves, step=self._step)
        return_freed_memory()
        after = self._live.tensors()
        wrong = differing(after, before)
        if not same_bits(loss.detach().reshape(()), own.reshape(())):
            self._stop(
                f"the step's loss is {float(loss.detach())!r}, the captured program's {float(own)!r}",
                "the step must compute the loss that was given to record, on the batch as it is"
                + ("; return the sum of the divided losses" if self._plan.accumulate > 1 else ""),
            )
        if wrong:
            self._stop(
                f"the step is not the captured one: {listed(wrong)} differ, by up to "
                f"{largest_difference(wrong, after, before):.3g}",
                "zero the gradients, call backward once and step the optimizer once; clip and accumulate as "
                "record was told",
            )

    def _draw_checked_step(self, segment: int) -> int:
        steps = self._plan.steps_of(segment)
        return steps.start + secrets.randbelow(len(steps)) if steps else -1

    def _stop(self, message: str, advice: str = "") -> NoReturn:
        self._stopped = True
        raise RecordError(message, where=f"step {self._step}", advice=advice)
