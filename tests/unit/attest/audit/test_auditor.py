import json
from dataclasses import replace

import pytest
from fakes.log import SignedLog, leaf_of
from fakes.world import GATEWAY, NOW, make_world
from hypothesis import given
from hypothesis import strategies as st

from attest import disclosures, tokens
from attest.audit.auditor import Auditor
from attest.audit.findings import Kind, changes
from attest.audit.reading import audit
from attest.claims import EAT_PROFILE
from attest.errors import EvidenceUnavailableError, FormatError
from attest.keys import Algorithm, PrivateKey
from attest.log.tiles import encode_entries, entry_tiles


class Copy:
    """A log in memory, as a source: what an honest gateway would have written."""

    def __init__(self, world, log):
        self.world, self.log = world, log
        self.records, self.leaves, self.endorsements = [], [], {}
        self.seq, self.prev = 0, None

    def add(self, token, endorsements=None):
        record = disclosures.split(token)[0] if "~" in token else token
        self.log.add(record)
        self.records.append(record)
        self.leaves.append(leaf_of(record))
        if endorsements is not None:
            name = f"endorsements/{leaf_of(record).hex()}"
            self.endorsements[name] = json.dumps(endorsements).encode()
        return self

    def boot(self, world=None):
        self.world = world or self.world
        self.seq, self.prev = 0, None
        return self.add(self.world.boot, self.world.endorsements)

    def answer(self, **claims):
        chain = {"seq": self.seq, "prev": self.prev}
        token = self.world.token(claims={**chain, **claims})
        self.seq += 1
        self.prev = tokens.signing_digest(disclosures.split(token)[0])
        return self.add(token)

    def refusal(self, *, key=None, **changes):
        claims = {
            "iss": GATEWAY,
            "iat": NOW,
            "jti": "ref_1",
            "eat_profile": EAT_PROFILE,
            "manifest": {"digest": self.world.manifest.digest},
            "code": "manifest_mismatch",
            "reason": "weights differ",
            **changes,
        }
        token = tokens.mint("startup-refusal+jwt", claims, key or self.world.session)
        record = {
            "refusal": token,
            "keyCertificate": self.world.certificate,
            "manifest": json.loads(self.world.envelope),
        }
        return self.add(token, record)

    def get(self, path):
        if path == "checkpoint":
            return self.log.checkpoint().encode()
        if path in self.endorsements:
            return self.endorsements[path]
        for tile in entry_tiles(0, len(self.records)):
            span = slice(tile.number * 256, tile.number * 256 + tile.width)
            if path == f"tile/entries/{tile.path}":
                return encode_entries(self.leaves[span])
            if path == f"records/{tile.path}":
                return "".join(f"{x}\n" for x in self.records[span]).encode()
        raise EvidenceUnavailableError(path)


@pytest.fixture(params=list(Algorithm))
def copy(request):
    log = SignedLog()
    anchors = {"trustAnchors": log.anchors}
    return Copy(make_world(alg=request.param, predicate=anchors), log).boot()


def look(copy, auditor=None, **options):
    auditor = auditor or Auditor(copy.world.policy)
    return auditor, audit(auditor, copy, **options)


def kinds(findings):
    return [finding.kind for finding in findings]


def faults(copy):
    return kinds(look(copy)[0].alarms)


def test_whole_log(copy):
    for _ in range(3):
        copy.answer()
    auditor, found = look(copy)
    assert kinds(found) == [Kind.BOOT, Kind.SYSTEM_PROMPT]
    assert (auditor.alarms, auditor.head.size, auditor.cosigned) == ([], 4, (3, 3))


def test_many_records_over_several_tiles():
    log = SignedLog()
    copy = Copy(make_world(predicate={"trustAnchors": log.anchors}), log).boot()
    for _ in range(300):
        copy.answer()
    auditor, _ = look(copy)
    for _ in range(300):
        copy.answer()
    _, found = look(copy, auditor)
    assert (found, auditor.head.size, auditor.alarms) == ([], 601, [])


def test_state_goes_on(copy):
    auditor, _ = look(copy.answer())
    value = json.loads(json.dumps(auditor.to_json()))
    again = Auditor.from_json(copy.world.policy, value)
    assert again.to_json() == auditor.to_json()
    _, found = look(copy.answer(), again)
    assert (found, again.alarms) == ([], [])
    copy.seq += 1
    _, found = look(copy.answer(), again)
    assert kinds(found) == [Kind.MISSING]
    value = json.loads(json.dumps(again.to_json()))
    assert kinds(Auditor.from_json(copy.world.policy, value).alarms) == [Kind.MISSING]


@pytest.mark.parametrize(
    "member", ["head", "frontier", "logs", "witnesses", "chains", "posture", "alarms"]
)
def test_broken_state(copy, member):
    auditor, _ = look(copy.answer())
    value = auditor.to_json()
    for broken in ({**value, member: 7}, {k: value[k] for k in value if k != member}):
        with pytest.raises(FormatError):
            Auditor.from_json(copy.world.policy, broken)


def test_gap(copy):
    copy.answer().seq += 2
    _, found = look(copy.answer())
    assert Kind.MISSING in kinds(found)
    assert "records 1 to 2 are missing" in found[-1].detail


def test_missing_first_record(copy):
    copy.seq = 1
    assert faults(copy.answer()) == [Kind.MISSING]


def test_two_records_of_one_number(copy):
    copy.answer().answer().answer(seq=1)
    assert faults(copy) == [Kind.TWICE]


def test_record_that_follows_another(copy):
    copy.answer().answer(prev="sha256:" + "0" * 64)
    assert faults(copy) == [Kind.TWICE]


def test_record_by_another_key(copy):
    other = PrivateKey.generate(copy.world.session.public.alg)
    copy.add(copy.world.token(key=other))
    assert faults(copy) == [Kind.INVALID]


def test_record_of_a_boot_that_is_not_logged(copy):
    copy.answer(boot="sha256:" + "0" * 64)
    assert faults(copy) == [Kind.INVALID]


def test_record_of_another_manifest(copy):
    copy.answer(manifest={"digest": "sha256:" + "0" * 64})
    assert faults(copy) == [Kind.INVALID]


def test_record_of_no_kind(copy):
    token = tokens.mint("gateway-key+jwt", {}, copy.world.session)
    assert faults(copy.add(token)) == [Kind.INVALID]


def test_record_that_is_no_token(copy):
    assert faults(copy.add("a.b.c")) == [Kind.INVALID]


def test_hidden_record(copy):
    copy.answer().answer()
    copy.records[1] = ""
    assert Kind.MISSING in faults(copy)


def test_exchanged_record(copy):
    copy.answer()
    copy.records[1] = disclosures.split(copy.world.token())[0]
    assert faults(copy) == [Kind.ALTERED]


def test_exchanged_leaf(copy):
    copy.answer()
    token = disclosures.split(copy.world.token())[0]
    copy.records[1], copy.leaves[1] = token, leaf_of(token)
    auditor, _ = look(copy)
    assert kinds(auditor.alarms) == [Kind.FORKED]
    assert auditor.head is None


def test_head_by_another_key(copy):
    copy.log.key = SignedLog().key
    assert faults(copy.answer()) == [Kind.HEAD]


def followed(copy, count):
    """The log goes on under the next key, which says what the one before made."""
    before = tokens.signing_digest(copy.world.boot)
    session = PrivateKey.generate(copy.world.session.public.alg)
    follows = {"boot": before, "count": count}
    world = copy.world.certified(session, boot={"follows": follows})
    return copy.boot(world)


def test_next_key_that_counts_right_is_no_fault(copy):
    assert faults(followed(copy.answer().answer(), 2).answer()) == []


@pytest.mark.parametrize(("count", "kind"), [(3, Kind.MISSING), (1, Kind.TWICE)])
def test_records_at_the_end_of_the_key_before_are_counted(copy, count, kind):
    assert faults(followed(copy.answer().answer(), count)) == [kind]


def test_next_key_of_a_boot_that_is_not_logged(copy):
    copy.world = copy.world.certified(copy.world.session)
    assert faults(followed(copy, 0)) == [Kind.MISSING]


def test_boot_logged_twice(copy):
    assert faults(copy.boot()) == [Kind.TWICE]


def test_boot_that_nobody_certified(copy):
    stranger = make_world(alg=copy.world.session.public.alg)
    copy.add(stranger.boot, stranger.endorsements)
    assert faults(copy) == [Kind.INVALID]


def test_second_boot_with_another_posture(copy):
    copy.answer()
    state = {"settings": {"max_model_len": 2048}, "adapter": "none"}
    session = PrivateKey.generate(copy.world.session.public.alg)
    copy.boot(copy.world.certified(session, boot={"serving_state": state})).answer()
    auditor, found = look(copy)
    assert auditor.alarms == []
    (changed,) = (item for item in found if item.kind is Kind.POSTURE)
    assert "serving_state.settings.max_model_len: 1024 → 2048" in changed.detail
    assert "serving_state.adapter: None → none" in changed.detail


def test_system_prompt_of_each_kind_is_noted_once(copy):
    for kind in ("governed", "unlisted", "governed", "unlisted", "absent"):
        copy.answer(system_prompt=kind)
    _, found = look(copy)
    noted = [item.detail.split()[1] for item in found if item.kind == "system_prompt"]
    assert noted == ["governed", "unlisted", "absent"]


def test_refused_start_is_noted(copy):
    _, found = look(copy.refusal())
    assert kinds(found)[-1] is Kind.REFUSED
    assert found[-1].detail == "manifest_mismatch: weights differ"


@pytest.mark.parametrize(
    "changes", [{"iss": "other"}, {"iat": "x"}, {"manifest": None}, {"code": 7}]
)
def test_refusal_that_does_not_hold(copy, changes):
    assert faults(copy.refusal(**changes)) == [Kind.INVALID]


def test_refusal_by_another_key(copy):
    other = PrivateKey.generate(copy.world.session.public.alg)
    assert faults(copy.refusal(key=other)) == [Kind.INVALID]


def test_shrunken_log(copy):
    auditor, _ = look(copy.answer().answer())
    shorter = Copy(copy.world, SignedLog())
    shorter.log.key = copy.log.key
    _, found = look(shorter.boot(), auditor)
    assert kinds(found) == [Kind.SHRUNK]


def test_other_log_at_the_same_place(copy):
    auditor, _ = look(copy.answer())
    other = Copy(copy.world, SignedLog("other.test"))
    _, found = look(other.boot().answer(), auditor)
    assert kinds(found) == [Kind.FORKED]


def test_wanted_token(copy):
    copy.answer()
    here, gone = leaf_of(copy.records[1]), leaf_of("x.y.z")
    assert Kind.NOT_LOGGED not in kinds(look(copy, wanted=[here])[1])
    assert kinds(look(copy, wanted=[here, gone])[1])[-1] is Kind.NOT_LOGGED


@pytest.mark.parametrize("data", [b"", b"x\n", b"x\ny\nz\n", b"x\ny", b"\xff\n\n"])
def test_broken_records(copy, data):
    copy.answer()
    source = Copy(copy.world, copy.log)
    whole = copy.get

    def get(path):
        return data if path.startswith("records/") else whole(path)

    source.get = get
    with pytest.raises(FormatError, match="records"):
        look(source)


@given(st.text("ab.0_-{}", max_size=60))
def test_any_record_is_judged(text):
    auditor = Auditor(make_world().policy)
    found = auditor.read(leaf_of(text), text, Copy(None, None))
    assert [item.kind.false for item in found] == [True]


def test_changes():
    before = {"a": 1, "b": {"c": 2}, "d": "x" * 100}
    after = {"a": 1, "b": {"c": 3, "e": 4}, "d": "y" * 100}
    found = changes(before, after)
    assert found[:2] == ["b.c: 2 → 3", "b.e: None → 4"]
    assert found[2].startswith("d: sha256:")
    assert changes(before, before) == []
    many = changes({}, {str(i): i for i in range(40)})
    assert (len(many), many[-1]) == (13, "and 28 more")


def test_policy_names_the_log_by_itself(copy):
    policy = replace(copy.world.policy, logs=(SignedLog().key.key,))
    auditor, _ = look(copy.answer(), Auditor(policy))
    assert kinds(auditor.alarms) == [Kind.HEAD]
