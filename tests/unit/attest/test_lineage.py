import pytest
from fakes.operated import run_command
from fakes.world import make_world

from attest.cli._read import now
from attest.errors import FormatError
from attest.lineage import Relation, lineage, successors
from attest.manifest import open_manifest, sign_statement


@pytest.fixture(scope="module")
def world():
    return make_world(now=now() - 60)


def signed(world, **predicate):
    """An envelope of the same authority."""
    manifest = world.manifest
    return sign_statement(
        manifest.subjects, {**manifest.predicate, **predicate}, [world.authority]
    )


def opened(world, **predicate):
    return open_manifest(signed(world, **predicate), [world.authority.public])


def derivation(manifest, words):
    return {"parent": manifest.digest, "transformation": words}


@pytest.fixture(scope="module")
def family(world):
    """Base, fine-tuned, quantised, and a second version of the last."""
    base = world.manifest
    tuned = opened(world, derivation=derivation(base, "fine-tuned"))
    small = opened(world, derivation=derivation(tuned, "quantised to int8"))
    newer = opened(
        world,
        derivation=derivation(tuned, "quantised to int4"),
        supersedes=small.digest,
    )
    return base, tuned, small, newer


def known(*manifests):
    return {manifest.digest: manifest for manifest in manifests}


def test_chain_of_parents(family):
    base, tuned, small, _ = family
    links = lineage(small, known(base, tuned))
    assert [(link.digest, link.transformation) for link in links] == [
        (tuned.digest, "quantised to int8"),
        (base.digest, "fine-tuned"),
    ]


def test_chain_ends_where_a_manifest_is_not_at_hand(family):
    _, tuned, small, _ = family
    links = lineage(small, known(small))
    assert [(link.digest, link.manifest) for link in links] == [(tuned.digest, None)]


def test_versions_stand_apart_from_parents(family):
    base, tuned, small, newer = family
    links = lineage(newer, known(base, tuned, small))
    assert [link.relation for link in links] == [
        Relation.DERIVED_FROM,
        Relation.DERIVED_FROM,
        Relation.SUPERSEDES,
    ]
    assert links[-1].manifest == small


def test_successor_is_found(family):
    base, tuned, small, newer = family
    assert successors(small, [base, tuned, newer]) == (newer,)
    assert successors(newer, [base, tuned, small]) == ()


def test_first_of_its_kind_has_no_chain(world):
    assert lineage(world.manifest, {}) == ()


def test_long_chain_is_refused(world):
    chain = [world.manifest]
    for _ in range(66):
        chain.append(opened(world, supersedes=chain[-1].digest))
    with pytest.raises(FormatError, match="more than 64"):
        lineage(chain[-1], known(*chain))


@pytest.mark.parametrize(
    "predicate",
    [{"supersedes": "v1"}, {"supersedes": 7}, {"derivation": {"parent": "base"}}],
)
def test_reference_that_is_no_digest(world, predicate):
    with pytest.raises(FormatError):
        signed(world, **predicate)


@pytest.fixture
def files(tmp_path, world):
    base = world.manifest
    child = signed(
        world,
        derivation=derivation(base, "quantised"),
        supersedes=base.digest,
    )
    (tmp_path / "base.json").write_bytes(world.envelope)
    (tmp_path / "child.json").write_bytes(child)
    (tmp_path / "authority.pem").write_bytes(world.authority.public.pem)
    return tmp_path


def test_show_follows_the_chain(files, world):
    code, found = run_command(
        *("manifest", "show", files / "child.json", "--chain", files / "base.json")
    )
    assert code == 0
    assert [link["relation"] for link in found["chain"]] == [
        "derived from",
        "supersedes",
    ]
    assert found["chain"][0]["model"] == {"name": "tiny", "version": "1"}


def test_verify_says_that_a_newer_one_is_there(files):
    verify = ("manifest", "verify", files / "base.json", "--authority")
    code, found = run_command(
        *verify, files / "authority.pem", "--chain", files / "child.json"
    )
    assert (code, len(found["supersededBy"])) == (0, 1)


def test_verify_takes_no_strangers_into_the_chain(files):
    (files / "stranger.json").write_bytes(make_world().envelope)
    code, _ = run_command(
        *("manifest", "verify", files / "child.json"),
        *("--authority", files / "authority.pem"),
        *("--chain", files / "stranger.json"),
    )
    assert code == 1
