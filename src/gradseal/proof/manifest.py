"""The manifest: everything fixed before step 0, as entry 0 of the log.

Whatever changes a digest later is named here. What it names by digest (program, initialisation, data, release
map) are blobs with formats of their own. Format: docs/spec/bundle.md, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gradseal.errors import KeyFileError, MalformedBundle
from gradseal.proof.canonical import Json, decode, encode
from gradseal.proof.fields import Fields
from gradseal.proof.merkle import leaf_hash
from gradseal.proof.note import VerificationKey
from gradseal.proof.tiles import MAX_ENTRY_BYTES

KIND = "manifest"
FORMAT = "gradseal/1"
MAX_STEPS = 1 << 40
MAX_SAMPLES = 1 << 40
MAX_SEGMENTS = 1 << 24
MAX_ACCUMULATED = 65_536
MAX_SEGMENT_STEPS = 1 << 20
ORDERS = ("shuffled-v1", "sequential-v1")
COLLATIONS = ("stack-v1",)
DECLARED, BEACON = "declared", "beacon"
MAX_CHAINS = 8
"""The most beacon chains whose values one slot combines."""
MAX_ROUND = 1 << 40
MAX_CADENCE_SECONDS = 86_400
MAX_SLOTS = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The commitment to the data.

    Args:
        root: RFC 6962 root over the samples' leaf hashes.
        samples: How many there are.
        schema: Digest of the blob that says what a sample's bytes are.
        leaves: Digest of the blob of all leaf hashes, one after another.
        shards: Digest of the blob of the digests of the shards, one after another.
        shard_samples: How many samples a shard holds, but for the last.
    """

    root: bytes
    samples: int
    schema: bytes
    leaves: bytes
    shards: bytes
    shard_samples: int

    def to_json(self) -> dict[str, Json]:
        """Its JSON form."""
        return {
            "root": self.root.hex(),
            "samples": self.samples,
            "schema": self.schema.hex(),
            "leaves": self.leaves.hex(),
            "shards": self.shards.hex(),
            "shard_samples": self.shard_samples,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Data:
        """Reads the JSON form strictly."""
        data = cls(
            root=fields.digest("root"),
            samples=fields.integer("samples", 1, MAX_SAMPLES),
            schema=fields.digest("schema"),
            leaves=fields.digest("leaves"),
            shards=fields.digest("shards"),
            shard_samples=fields.integer("shard_samples", 1, MAX_SAMPLES),
        )
        fields.end()
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredSeed:
    """Randomness that the owner chose: it shows nothing of time.

    Args:
        value: 32 bytes.
    """

    value: bytes

    def to_json(self) -> dict[str, Json]:
        """Its JSON form."""
        return {"source": DECLARED, "value": self.value.hex()}


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotChain:
    """A beacon chain whose rounds give the slots' seeds.

    Args:
        chain: The chain's parameters; read by `precede.chain`.
        first_round: The round of slot 0.
    """

    chain: Mapping[str, Json]
    first_round: int

    def to_json(self) -> dict[str, Json]:
        """Its JSON form."""
        return {"chain": dict(self.chain), "first_round": self.first_round}


@dataclass(frozen=True, slots=True, kw_only=True)
class BeaconSeed:
    """Randomness from rounds of beacon chains, all fixed here: slot after slot has a seed of its own.

    Args:
        cadence_seconds: From the beginning of one slot to that of the next.
        chains: One or several, combined in this order.
    """

    cadence_seconds: int
    chains: tuple[SlotChain, ...]

    def to_json(self) -> dict[str, Json]:
        """Its JSON form."""
        return {
            "source": BEACON,
            "cadence_seconds": self.cadence_seconds,
            "chains": [chain.to_json() for chain in self.chains],
        }


Seed = DeclaredSeed | BeaconSeed


def _seed(fields: Fields) -> Seed:
    """Reads the JSON form of a seed strictly, but for the parameters of chains."""
    if fields.kind("source", [DECLARED, BEACON]) == DECLARED:
        declared = DeclaredSeed(value=fields.digest("value"))
        fields.end()
        return declared
    chains = []
    for item in fields.objects("chains", MAX_CHAINS):
        chain = item.object("chain").value
        chains.append(SlotChain(chain=chain, first_round=item.integer("first_round", 1, MAX_ROUND)))
        item.end()
    if not chains:
        raise MalformedBundle("no chain at all", where=fields.where("chains"))
    seed = BeaconSeed(
        cadence_seconds=fields.integer("cadence_seconds", 1, MAX_CADENCE_SECONDS), chains=tuple(chains)
    )
    fields.end()
    return seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many steps, cut how, on which batches.

    Args:
        steps: Optimizer updates in all.
        every: Steps in a segment, but for the last.
        batch_size: Samples in a full batch.
        accumulate: Batches in a step, whose gradients are added up before the update.
        drop_last: Whether what is left at an epoch's end is dropped.
        order: The rule for the order of samples.
        collation: The rule by which samples become a batch.
        seed: Where randomness comes from.
    """

    steps: int
    every: int
    batch_size: int
    accumulate: int
    drop_last: bool
    order: str
    collation: str
    seed: Seed

    @property
    def segments(self) -> int:
        """How many segments the run has."""
        return -(-self.steps // self.every)

    def steps_of(self, segment: int) -> range:
        """The steps of segment number `segment`."""
        return range(segment * self.every, min((segment + 1) * self.every, self.steps))

    def batches_of(self, step: int) -> range:
        """The numbers, in the run, of the batches of step number `step`."""
        return range(step * self.accumulate, (step + 1) * self.accumulate)

    def to_json(self) -> dict[str, Json]:
        """Its JSON form."""
        return {
            "steps": self.steps,
            "every": self.every,
            "batch_size": self.batch_size,
            "accumulate": self.accumulate,
            "drop_last": self.drop_last,
            "order": self.order,
            "collation": self.collation,
            "seed": self.seed.to_json(),
        }

    @classmethod
    def from_fields(cls, fields: Fields, samples: int) -> Plan:
        """Reads the JSON form strictly."""
        plan = cls(
            steps=fields.integer("steps", 1, MAX_STEPS),
            every=fields.integer("every", 1, MAX_SEGMENT_STEPS),
            batch_size=fields.integer("batch_size", 1, samples),
            accumulate=fields.integer("accumulate", 1, MAX_ACCUMULATED),
            drop_last=fields.boolean("drop_last"),
            order=fields.kind("order", ORDERS),
            collation=fields.kind("collation", COLLATIONS),
            seed=_seed(fields.object("seed")),
        )
        fields.end()
        if plan.segments > MAX_SEGMENTS:
            raise MalformedBundle(
                f"{plan.segments} segments, over the limit of {MAX_SEGMENTS}", where=fields.where()
            )
        return plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything fixed before step 0.

    Args:
        owner: The key whose log this is.
        program: Digest of the program blob.
        initialisation: Digest of the blob that says where state zero and constants come from.
        data: The commitment to the data.
        plan: Steps, segments, batches, seed.
        arithmetic: Which arithmetic, and for native what it depends on; read by `program.native`.
        release: Digest of the blob that names the released tensors.
    """

    owner: VerificationKey
    program: bytes
    initialisation: bytes
    data: Data
    plan: Plan
    arithmetic: Mapping[str, Json]
    release: bytes

    def encode(self) -> bytes:
        """Its bytes as entry 0."""
        return encode(
            {
                "kind": KIND,
                "format": FORMAT,
                "owner": str(self.owner),
                "program": self.program.hex(),
                "initialisation": self.initialisation.hex(),
                "data": self.data.to_json(),
                "plan": self.plan.to_json(),
                "arithmetic": dict(self.arithmetic),
                "release": self.release.hex(),
            }
        )

    def digest(self) -> bytes:
        """The leaf hash of entry 0: what seeds and the log's origin are bound to."""
        return leaf_hash(self.encode())

    @property
    def origin(self) -> str:
        """The origin of the run's log, its own for each manifest."""
        return f"{self.owner.name}/{self.digest().hex()[:32]}"

    @classmethod
    def decode(cls, data: bytes, *, where: str = "entry 0") -> Manifest:
        """Reads a manifest from an untrusted entry.

        Raises:
            MalformedBundle: Not a manifest, or over a limit.
            UnknownKind: A format, rule or source that this version does not know.
        """
        fields = Fields(decode(data, where=where, max_bytes=MAX_ENTRY_BYTES), where)
        fields.choice("kind", [KIND])
        fields.kind("format", [FORMAT])
        committed = Data.from_fields(fields.object("data"))
        arithmetic = fields.raw("arithmetic")
        if not isinstance(arithmetic, dict):
            raise MalformedBundle("is not an object", where=fields.where("arithmetic"))
        manifest = cls(
            owner=_owner(fields),
            program=fields.digest("program"),
            initialisation=fields.digest("initialisation"),
            data=committed,
            plan=Plan.from_fields(fields.object("plan"), committed.samples),
            arithmetic=arithmetic,
            release=fields.digest("release"),
        )
        fields.end()
        return manifest


def _owner(fields: Fields) -> VerificationKey:
    where = fields.where("owner")
    try:
        return VerificationKey.parse(fields.text("owner"), where=where)
    except KeyFileError as e:
        # Here it is a field of untrusted bytes, not a file that the user named.
        raise MalformedBundle(e.message, where=where) from e
