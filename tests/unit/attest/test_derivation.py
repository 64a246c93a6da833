import pytest
from fakes.run import profile
from fakes.world import make_world

from attest.derivation import NOT_MEASURED, Derivation, Rel, derived_statement
from attest.digests import digest
from attest.errors import AttestError, FormatError, ManifestMismatchError
from attest.figures import settle
from attest.lineage import ChainError, check_chain, lineage
from attest.manifest import open_manifest, sign_statement
from attest.rules import PrincipleRule
from attest.statement import Terms, build_predicate
from attest.weights import TensorDigest

OTHER = TensorDigest("other", "F32", (1,), digest(b"other"))
WORST = {"attack": "full", "stepsBelowHalf": 12, "censored": False, "seeds": 3}
REFUSE = {
    "id": "refuse",
    "profile": profile(),
    "evaluation": {"after": "0.92"},
    "resistance": {
        "suite": "std-1",
        "suiteDigest": digest(b"std-1"),
        "required": {"suite": "std-1", "minStepsBelowHalf": 10, "onMiss": "fail"},
        "measured": {"worst": WORST, "curves": digest(b"curves")},
        "met": True,
    },
}
EVALUATION = [{"name": "test", "principle": "refuse", "after": "0.90"}]


@pytest.fixture(scope="module")
def world():
    return make_world(
        predicate={
            "principles": [REFUSE, {"id": "tone"}],
            "evaluation": EVALUATION,
            "limits": ["one seed"],
        }
    )


def statement(world, rel, *, parent=None, subjects=None, root=None, **members):
    parent = parent or world.manifest
    return derived_statement(
        parent,
        Derivation(rel=rel, **members),
        model=("child", "1"),
        subjects=parent.subjects if subjects is None else subjects,
        root=root or parent.tensor_root,
    )


def child(world, rel, *, tensors=None, change=lambda _: None, **options):
    """The signed manifest of a derived model."""
    parent = options.get("parent") or world.manifest
    tensors = tensors or list(parent.tensors)
    made = statement(world, rel, **options)
    change(made)
    shortfalls = {
        p["id"]
        for p in made["principles"]
        if "resistance" in p and p["resistance"]["met"] is None
    }
    predicate = build_predicate(
        made,
        subjects=parent.subjects,
        tensors=tensors,
        terms=Terms(not_before=world.now - 60, shortfalls=sorted(shortfalls)),
    )
    envelope = sign_statement(parent.subjects, predicate, [world.authority])
    return open_manifest(envelope, [world.authority.public])


def chain_of(manifest, *parents):
    known = {parent.digest: parent for parent in parents}
    return check_chain(manifest, lineage(manifest, known))


def test_resharded_model_keeps_what_was_measured(world):
    made = statement(world, Rel.RESHARDED_FROM)
    [refuse, tone] = made["principles"]
    for member in ("profile", "evaluation", "resistance"):
        assert refuse[member] == {**REFUSE[member], "carried": True}
    assert tone == {"id": "tone"}
    assert made["evaluation"] == [{**EVALUATION[0], "carried": True}]
    assert made["limits"] == ["one seed"]
    assert made["constitution"] == world.manifest.constitution
    assert settle(made["principles"]).notes == ()


def test_resharded_model_in_other_files(world):
    subjects = {
        name: value
        for name, value in world.manifest.subjects.items()
        if not name.endswith(".safetensors")
    }
    shards = {f"model-0000{n}-of-00002.safetensors": digest(b"x") for n in (1, 2)}
    index = {"model.safetensors.index.json": digest(b"y")}
    made = statement(
        world, Rel.RESHARDED_FROM, subjects={**subjects, **shards, **index}
    )
    assert made["principles"][0]["resistance"]["met"] is True


@pytest.mark.parametrize("name", ["chat_template.jinja", "new.bin", "a/b.safetensors"])
def test_same_tensors_with_another_template_answer_otherwise(world, name):
    subjects = {**world.manifest.subjects, name: digest(b"another")}
    [refuse, _] = statement(world, Rel.RESHARDED_FROM, subjects=subjects)["principles"]
    assert refuse["profile"]["carried"] is True
    assert refuse["evaluation"] == {"status": NOT_MEASURED}
    assert refuse["resistance"]["measured"] is None


def test_resharding_changes_no_tensor(world):
    with pytest.raises(
        ManifestMismatchError, match="expected the parent's tensor root"
    ):
        statement(world, Rel.RESHARDED_FROM, root=digest(b"other"))


@pytest.mark.parametrize("rel", [rel for rel in Rel if rel is not Rel.RESHARDED_FROM])
def test_every_other_model_is_not_measured(world, rel):
    made = statement(world, rel, root=digest(b"other"))
    [refuse, _] = made["principles"]
    assert refuse["profile"] == {"of": "parent", "manifest": world.manifest.digest}
    assert refuse["evaluation"] == {"status": NOT_MEASURED}
    assert refuse["resistance"] == {
        "suite": "std-1",
        "required": REFUSE["resistance"]["required"],
        "measured": None,
        "met": None,
    }
    assert made["evaluation"] == [
        {"name": "test", "principle": "refuse", "status": NOT_MEASURED}
    ]
    assert any("parent" in limit for limit in made["limits"])
    with pytest.raises(AttestError, match="found no measurement"):
        settle(made["principles"])


def test_equal_tensors_alone_carry_nothing(world):
    """A conversion that happens to change no tensor says that it converted."""
    [refuse, _] = statement(world, Rel.CONVERTED_FROM)["principles"]
    assert refuse["profile"]["of"] == "parent"


def test_merge_that_was_made_again_keeps_the_profile_alone(world):
    made = statement(world, Rel.MERGED_FROM, reproduced=True, root=digest(b"merged"))
    [refuse, _] = made["principles"]
    assert refuse["profile"] == {**REFUSE["profile"], "carried": True}
    assert refuse["evaluation"] == {"status": NOT_MEASURED}
    assert refuse["resistance"]["measured"] is None
    assert made["derivation"]["reproduced"] is True


def test_derivation_says_what_was_done(world):
    made = statement(world, Rel.QUANTISED_FROM, tool="gptq 1.0", params={"bits": "4"})[
        "derivation"
    ]
    assert made == {
        "parent": world.manifest.digest,
        "parentWeights": world.manifest.tensor_root,
        "rel": "quantised-from",
        "transformation": "quantised-from, by gptq 1.0",
        "tool": "gptq 1.0",
        "params": {"bits": "4"},
    }


def test_grandchild_refers_to_where_it_was_measured(world):
    small = child(world, Rel.QUANTISED_FROM, tensors=[OTHER])
    made = statement(world, Rel.RESHARDED_FROM, parent=small)
    [refuse, _] = made["principles"]
    assert refuse["profile"] == {"of": "parent", "manifest": world.manifest.digest}
    assert refuse["resistance"]["measured"] is None
    assert "shortfall" not in refuse["resistance"]
    again = child(world, Rel.RESHARDED_FROM, parent=small, tensors=[OTHER])
    assert chain_of(again, small, world.manifest) is None


def test_signed_shortfall_does_not_go_over_by_itself(world):
    small = child(world, Rel.QUANTISED_FROM, tensors=[OTHER])
    [refuse, _] = small.predicate["principles"]
    assert refuse["resistance"]["shortfall"] == "not-measured"
    made = statement(world, Rel.RESHARDED_FROM, parent=small)
    with pytest.raises(AttestError, match="found no measurement"):
        settle(made["principles"])


def test_no_policy_takes_the_parents_figures_for_the_childs(world):
    rule = PrincipleRule("refuse", min_steps_below_half=1)
    assert not list(rule.misses([REFUSE]))
    made = statement(world, Rel.QUANTISED_FROM, root=digest(b"x"))
    assert list(rule.misses(made["principles"]))
    in_band = PrincipleRule.from_json({"id": "refuse", "min_in_band": "0.1"})
    assert not list(in_band.misses([REFUSE]))
    assert list(in_band.misses(made["principles"]))


@pytest.mark.parametrize("principles", ["x", ["x"], [{"profile": 1}]])
def test_parent_of_another_form(principles):
    other = make_world(predicate={"principles": principles})
    with pytest.raises(FormatError):
        statement(other, Rel.RESHARDED_FROM)


def test_parent_without_a_constitution():
    other = make_world(predicate={"constitution": None, "limits": 3})
    made = statement(other, Rel.CONVERTED_FROM)
    assert "constitution" not in made
    assert made["principles"] == []


# --- chains -------------------------------------------------------------------------


def test_chain_to_its_root(world):
    small = child(world, Rel.QUANTISED_FROM, tensors=[OTHER])
    assert chain_of(small, world.manifest) is None
    assert chain_of(small).digest == world.manifest.digest


def test_chain_names_the_link_that_is_missing(world):
    small = child(world, Rel.QUANTISED_FROM, tensors=[OTHER])
    shards = child(world, Rel.RESHARDED_FROM, parent=small, tensors=[OTHER])
    assert chain_of(shards, small).digest == world.manifest.digest
    assert chain_of(shards, world.manifest).digest == small.digest


def _carry(member, **changes):
    def change(made):
        made["principles"][0][member] = {**REFUSE[member], "carried": True, **changes}

    return change


@pytest.mark.parametrize(
    ("rel", "change", "match"),
    [
        (
            Rel.QUANTISED_FROM,
            lambda m: m["derivation"].update(parentWeights=digest(b"x")),
            "its parent's tensors",
        ),
        (
            Rel.CONVERTED_FROM,
            lambda m: m["derivation"].update(rel="resharded-from"),
            "its tensors",
        ),
        (Rel.QUANTISED_FROM, _carry("profile"), "profile.*measured anew"),
        (Rel.QUANTISED_FROM, _carry("evaluation"), "evaluation.*measured anew"),
        (Rel.QUANTISED_FROM, _carry("resistance"), "resistance.*measured anew"),
        (Rel.MERGED_FROM, _carry("profile"), "profile.*measured anew"),
        (
            Rel.MERGED_FROM,
            lambda m: (_carry("profile")(m), m["derivation"].update(reproduced=True)),
            "profile.*measured anew",  # the parent is no adapter
        ),
        (
            Rel.FINETUNED_FROM,
            lambda m: m.update(training={"stages": [{"base": digest(b"x")}]}),
            "the base of its training",
        ),
    ],
)
def test_child_that_says_what_is_not_so(world, rel, change, match):
    liar = child(world, rel, tensors=[OTHER], change=change)
    with pytest.raises(ChainError, match=match) as caught:
        chain_of(liar, world.manifest)
    assert liar.digest in str(caught.value)
    assert world.manifest.digest in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        _carry("profile", inBand="0.9900"),
        _carry("evaluation", after="0.99"),
        lambda m: m["principles"][1].update(evaluation={"carried": True}),
    ],
)
def test_figures_that_were_changed_on_the_way(world, change):
    liar = child(world, Rel.RESHARDED_FROM, change=change)
    with pytest.raises(ChainError, match="expected the parent's, found another"):
        chain_of(liar, world.manifest)


def test_merge_of_an_adapter_carries_its_profile(world):
    adapter = child(world, Rel.ADAPTER_OF, tensors=[OTHER], change=_trained)
    merged = child(world, Rel.MERGED_FROM, parent=adapter, reproduced=True)
    assert merged.predicate["principles"][0]["profile"]["carried"] is True
    assert chain_of(merged, adapter, world.manifest) is None


def _trained(made):
    made["principles"][0]["profile"] = REFUSE["profile"]


def test_derivation_of_an_older_signer_is_followed(world):
    predicate = {
        **world.manifest.predicate,
        "derivation": {"parent": world.manifest.digest, "transformation": "tuned"},
    }
    envelope = sign_statement(world.manifest.subjects, predicate, [world.authority])
    older = open_manifest(envelope, [world.authority.public])
    assert chain_of(older, world.manifest) is None
