"""Asking a witness to cosign a log's checkpoint.

Follows C2SP tlog-witness. Guarantees that what is returned is a cosignature of just this checkpoint under
the pinned key; whatever else a witness sends is ignored or an `AnchorError`. One request, and one more if
the witness turns out to be at another size than the caller believed; answers are bounded, redirects are not
followed, and nothing is read from the environment. A witness that forgot what it cosigned, or cosigned
another tree, is reported as that.

Neither a cosignature nor its time is ever randomness. Format: docs/spec/witness.md, section 3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NoReturn

import httpx

from gradseal.errors import AnchorError, Error, MalformedBundle
from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.cosignature import CosignatureKey
from gradseal.proof.note import Note, NoteSignature, open_note
from gradseal.proof.submission import SIZE_TYPE, Submission, parse_size

MAX_ANSWER_BYTES = 16 * 1024
"""The longest answer that is read."""

TIMEOUT_SECONDS = 10.0

Prove = Callable[[int, int], Sequence[bytes]]
"""The consistency proof from a size to a larger one, as `Tree.consistency_proof` gives it."""

_ADVICE = {
    403: "is the log's key the one that the witness lists for it?",
    404: "ask the witness's operator to list the log's verification key",
    422: "the log and the witness do not agree on what the log held: keep both, and ask its operator",
    429: "ask again later",
    503: "ask again later",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessAddress:
    """A witness that is asked.

    Args:
        key: The pinned key.
        url: Its submission prefix, without `/add-checkpoint`.
    """

    key: CosignatureKey
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosignature:
    """What a witness gave: the line for the note, and the time that it states, in seconds of Unix time."""

    signature: NoteSignature
    timestamp: int


def cosign(
    witness: WitnessAddress,
    note: Note,
    *,
    known_size: int,
    prove: Prove,
    timeout_seconds: float = TIMEOUT_SECONDS,
    client: httpx.Client | None = None,
) -> Cosignature:
    """Ask a witness for its cosignature of a checkpoint.

    Args:
        witness: Whom to ask.
        note: The signed checkpoint.
        known_size: The size that this witness cosigned last, as far as the caller knows; 0 if nothing.
        prove: Gives the consistency proof from the size that the witness cosigned last.
        timeout_seconds: How long one request may take.
        client: What to ask with, such as one with a proxy or certificates; one of its own if not given.

    Returns:
        The cosignature, verified under the pinned key.

    Raises:
        AnchorError: The witness is away, refuses, answers with something else, is behind what it cosigned
            before, or ahead of this checkpoint.
    """
    asking = nullcontext(client) if client else httpx.Client(trust_env=False)
    with asking as opened:
        return _Request(witness, note, known_size, prove, timeout_seconds, opened).run()


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class _Request:
    witness: WitnessAddress
    note: Note
    known_size: int
    prove: Prove
    timeout_seconds: float
    client: httpx.Client

    @property
    def where(self) -> str:
        return f"{self.witness.url.rstrip('/')}/add-checkpoint"

    def run(self) -> Cosignature:
        checkpoint = Checkpoint.parse(self.note.text, where="checkpoint")
        if self.known_size > checkpoint.size:
            raise AnchorError(
                f"a checkpoint of size {checkpoint.size}, and the witness cosigned {self.known_size} already",
                where=self.where,
                advice="submit the log's newest checkpoint",
            )
        answer = self._ask(checkpoint, self.known_size)
        if answer.status == 409:
            answer = self._ask(checkpoint, self._conflicting_size(answer, checkpoint))
        if answer.status != 200:
            self._refuse(answer)
        return self._cosignature(answer)

    def _ask(self, checkpoint: Checkpoint, old: int) -> _Answer:
        proof = tuple(self.prove(old, checkpoint.size)) if 0 < old < checkpoint.size else ()
        body = Submission(old=old, proof=proof, note=self.note, checkpoint=checkpoint).encode()
        try:
            return self._exchange(body)
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            said = str(e) or type(e).__name__
            raise AnchorError(f"the witness cannot be reached: {said}", where=self.where) from e

    def _exchange(self, body: bytes) -> _Answer:
        deadline = time.monotonic() + self.timeout_seconds
        asked = self.client.stream(
            "POST",
            self.where,
            content=body,
            headers={"Accept-Encoding": "identity", "Content-Type": "text/plain; charset=utf-8"},
            timeout=self.timeout_seconds,
            follow_redirects=False,
        )
        with asked as response:
            received = bytearray()
            for piece in response.iter_raw():
                received += piece
                if len(received) > MAX_ANSWER_BYTES:
                    raise AnchorError(f"an answer of more than {MAX_ANSWER_BYTES} bytes", where=self.where)
                if time.monotonic() > deadline:
                    raise AnchorError("the answer took too long", where=self.where)
            kind = response.headers.get("content-type", "")
            return _Answer(response.status_code, kind, bytes(received))

    def _conflicting_size(self, answer: _Answer, checkpoint: Checkpoint) -> int:
        """The size that the witness cosigned last, from which to ask again."""
        if answer.content_type != SIZE_TYPE:
            self._refuse(answer)
        try:
            size = parse_size(answer.body, where=self.where)
        except MalformedBundle as e:
            raise AnchorError("a conflict without the witness's size", where=self.where) from e
        if size < self.known_size:
            raise AnchorError(
                f"the witness is at size {size}, but cosigned {self.known_size} before: it was rolled back",
                where=self.where,
                advice="trust its key no more for what comes; its operator must retire it",
            )
        if size > checkpoint.size:
            raise AnchorError(
                f"the witness cosigned size {size} of this log, more than the {checkpoint.size} submitted",
                where=self.where,
                advice="was the log continued from another copy? submit its newest checkpoint",
            )
        if size == self.known_size:
            raise AnchorError(
                f"the witness cosigned another tree of size {size} under this origin: the log was forked",
                where=self.where,
                advice="two copies of the log were continued under one key; only one of them counts",
            )
        return size

    def _refuse(self, answer: _Answer) -> NoReturn:
        said = ascii(answer.body[:200].decode("utf-8", "replace").strip())[1:-1]
        raise AnchorError(
            f"the witness answered {answer.status}: {said}",
            where=self.where,
            advice=_ADVICE.get(answer.status, ""),
        )

    def _cosignature(self, answer: _Answer) -> Cosignature:
        try:
            opened = open_note(self.note.text.encode() + b"\n" + answer.body, where=self.where)
        except Error as e:
            raise AnchorError(f"the answer is not signature lines: {e.message}", where=self.where) from e
        if opened.text != self.note.text:
            raise AnchorError("the answer is more than signature lines", where=self.where)
        key = self.witness.key
        # Lines of other keys are ignored: the witness may be rotating its own.
        ours = [line for line in opened.signatures if (line.name, line.key_id) == (key.name, key.id)]
        times = [key.time_of(line, self.note.text) for line in ours]
        if len(times) != 1 or times[0] is None:
            raise AnchorError(
                "no cosignature that verifies under the pinned key",
                where=self.where,
                advice=f"is the pinned key {key.name} still the witness's?",
            )
        return Cosignature(signature=ours[0], timestamp=times[0])


def with_cosignatures(note: Note, cosignatures: Sequence[Cosignature]) -> Note:
    """The note with these lines after its own; those that it has already are not repeated."""
    added = (cosignature.signature for cosignature in cosignatures)
    return Note(text=note.text, signatures=tuple(dict.fromkeys((*note.signatures, *added))))
