"""Cosignatures and their keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forked_log import Branch
from gradseal.errors import KeyFileError
from gradseal.proof.cosignature import MAX_TIMESTAMP, CosignatureKey, CosigningKey, cosigned_message
from gradseal.proof.note import Note, NoteSignature, SigningKey, VerificationKey, open_note

KEY = CosigningKey(name="witness.example.org", seed=b"\x31" * 32)
OTHER = CosigningKey(name="witness.example.org", seed=b"\x32" * 32)
NOTE = Branch("a", 5).note(5)

# A checkpoint of a public log that public witnesses cosigned in 2026, and the keys that four of them publish.
PUBLISHED_CHECKPOINT = """\
arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==
— witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKFYe/TmN9DAg==
"""  # noqa: E501 - as it was published
PUBLISHED_KEYS = [
    "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
    "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
    "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
    "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
]


def cosigned(note: Note, *signatures: NoteSignature) -> Note:
    return Note(text=note.text, signatures=(*note.signatures, *signatures))


@pytest.mark.parametrize("text", PUBLISHED_KEYS)
def test_cosignatures_of_public_witnesses_verify(text: str) -> None:
    note = open_note(PUBLISHED_CHECKPOINT.encode(), where="published")
    key = CosignatureKey.parse(text)
    assert str(key) == text
    assert key.cosigned_at(note) == 0x6A122120
    altered = Note(text=note.text.replace("1432088532", "1432088533"), signatures=note.signatures)
    assert key.cosigned_at(altered) is None


def test_the_log_itself_signed_what_they_cosigned() -> None:
    note = open_note(PUBLISHED_CHECKPOINT.encode(), where="published")
    log = VerificationKey.parse(
        "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
    )
    assert note.verified_by(log)


def test_the_message_is_that_of_the_standard() -> None:
    # C2SP tlog-cosignature, "Ed25519 signed message".
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
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
