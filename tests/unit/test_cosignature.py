"""Cosignatures and their keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forked_log import Branch
from gradseal.errors import KeyFileError
from gradseal.proof.cosignature import MAX_TIMESTAMP, CosignatureKey, CosigningKey, cosigned_message
from gradseal.proof.note import Note, NoteSignature, SigningKey, VerificationKey, open_note
from vectors.make_witness import PUBLISHED_CHECKPOINT, PUBLISHED_KEYS, PUBLISHED_TIME

KEY = CosigningKey(name="witness.example.org", seed=b"\x31" * 32)
OTHER = CosigningKey(name="witness.example.org", seed=b"\x32" * 32)
NOTE = Branch("a", 5).note(5)

# The example of C2SP tlog-cosignature, whose keys are not published.
EXAMPLE = """\
example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""  # noqa: E501 - as it was published


def cosigned(note: Note, *signatures: NoteSignature) -> Note:
    return Note(text=note.text, signatures=(*note.signatures, *signatures))


@pytest.mark.parametrize("text", PUBLISHED_KEYS)
def test_cosignatures_of_public_witnesses_verify(text: str) -> None:
    note = open_note(PUBLISHED_CHECKPOINT.encode(), where="published")
    key = CosignatureKey.parse(text)
    assert str(key) == text
    assert key.cosigned_at(note) == PUBLISHED_TIME
    altered = Note(text=note.text.replace("1432088532", "1432088533"), signatures=note.signatures)
    assert key.cosigned_at(altered) is None


def test_the_log_itself_signed_what_they_cosigned() -> None:
    note = open_note(PUBLISHED_CHECKPOINT.encode(), where="published")
    log = VerificationKey.parse(
        "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
    )
    assert note.verified_by(log)


def test_the_published_example_is_read_and_its_message_is_the_standards() -> None:
    note = open_note(EXAMPLE.encode(), where="example")
    assert note.encode() == EXAMPLE.encode()
    line = note.signatures[1].signature
    assert (len(line), int.from_bytes(line[:8], "big")) == (72, 1679315147)
    # C2SP tlog-cosignature, "Ed25519 signed message".
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    assert note.text == text
    assert cosigned_message(text, 1679315147) == b"cosignature/v1\ntime 1679315147\n" + text.encode()


@given(st.integers(0, MAX_TIMESTAMP))
def test_a_cosignature_states_its_time(timestamp: int) -> None:
    line = KEY.cosign(NOTE.text, timestamp)
    note = open_note(cosigned(NOTE, line).encode(), where="note")
    assert KEY.verification_key.cosigned_at(note) == timestamp
    assert OTHER.verification_key.cosigned_at(note) is None


@given(st.integers(0, 8 * 72 - 1))
def test_a_flipped_bit_is_noticed(bit: int) -> None:
    line = KEY.cosign(NOTE.text, 1_700_000_000)
    data = bytearray(line.signature)
    data[bit // 8] ^= 1 << bit % 8
    altered = NoteSignature(name=line.name, key_id=line.key_id, signature=bytes(data))
    assert KEY.verification_key.cosigned_at(cosigned(NOTE, altered)) is None


def test_of_several_cosignatures_the_earliest_counts() -> None:
    lines = [KEY.cosign(NOTE.text, time) for time in (30, 10, 20)]
    assert KEY.verification_key.cosigned_at(cosigned(NOTE, *lines)) == 10


def test_a_false_line_under_a_key_spoils_its_true_ones() -> None:
    true, other = KEY.cosign(NOTE.text, 10), OTHER.cosign(NOTE.text, 5)
    false = NoteSignature(name=true.name, key_id=true.key_id, signature=other.signature)
    short = NoteSignature(name=true.name, key_id=true.key_id, signature=true.signature[:-1])
    for spoiling in (false, short):
        assert KEY.verification_key.cosigned_at(cosigned(NOTE, true, spoiling)) is None


def test_a_cosignature_of_another_text_does_not_count() -> None:
    line = KEY.cosign(Branch("b", 5).note(5).text, 10)
    assert KEY.verification_key.cosigned_at(cosigned(NOTE, line)) is None
    extended = Branch("a", 5).note(5, ["an extension"])
    assert KEY.verification_key.cosigned_at(cosigned(extended, KEY.cosign(NOTE.text, 10))) is None


def test_a_plain_signature_by_the_same_seed_is_no_cosignature() -> None:
    plain = SigningKey(name=KEY.name, seed=KEY.seed)
    public = plain.verification_key
    line = NoteSignature(name=KEY.name, key_id=public.id, signature=plain.sign(NOTE.text.encode()))
    assert KEY.verification_key.cosigned_at(cosigned(NOTE, line)) is None
    assert not cosigned(NOTE, KEY.cosign(NOTE.text, 1)).verified_by(public)


@pytest.mark.parametrize("timestamp", [-1, MAX_TIMESTAMP + 1])
def test_no_time_out_of_range_is_signed(timestamp: int) -> None:
    with pytest.raises(ValueError, match="time"):
        KEY.cosign(NOTE.text, timestamp)


def test_a_time_beyond_the_limit_does_not_count() -> None:
    data = (MAX_TIMESTAMP + 1).to_bytes(8, "big") + bytes(64)
    line = NoteSignature(name=KEY.name, key_id=KEY.verification_key.id, signature=data)
    assert KEY.verification_key.time_of(line, NOTE.text) is None


def test_keys_come_back_from_their_text() -> None:
    assert CosigningKey.parse(KEY.encode()) == KEY
    assert CosignatureKey.parse(str(KEY.verification_key)) == KEY.verification_key
    assert CosigningKey.generate("w") != CosigningKey.generate("w")


@given(st.data())
def test_a_changed_character_of_a_key_is_noticed(data: st.DataObject) -> None:
    text = str(KEY.verification_key)
    at = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(KeyFileError):
        CosignatureKey.parse(
            text[:at] + data.draw(st.characters(exclude_characters=[text[at]])) + text[at + 1 :]
        )


def test_a_logs_key_is_not_a_witnesses() -> None:
    log = SigningKey(name=KEY.name, seed=KEY.seed)
    for parse, text in (
        (CosigningKey.parse, log.encode()),
        (CosignatureKey.parse, str(log.verification_key)),
    ):
        with pytest.raises(KeyFileError):
            parse(text)
    with pytest.raises(KeyFileError):
        VerificationKey.parse(str(KEY.verification_key))


def test_a_secret_shows_in_no_message() -> None:
    secret = KEY.encode()
    seed = secret.rpartition("+")[2]
    assert seed not in repr(KEY)
    for broken in (secret[:-1], secret + "\n", secret.replace("witness", "watness"), secret[8:]):
        with pytest.raises(KeyFileError) as caught:
            CosigningKey.parse(broken, where="witness.key")
        assert seed[:12] not in caught.value.diagnostics()


@pytest.mark.parametrize("name", ["", "a b", "a+b", "\ud800"])
def test_names_that_are_not_allowed(name: str) -> None:
    with pytest.raises(KeyFileError):
        CosigningKey(name=name, seed=bytes(32))
    with pytest.raises(KeyFileError):
        CosignatureKey(name=name, public=bytes(32))
