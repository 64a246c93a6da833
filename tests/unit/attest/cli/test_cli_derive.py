import json
import shutil

import numpy as np
import pytest
from fakes.run import make_run
from safetensors.numpy import load_file, save_file

from attest.hashing import hash_tensors, scan_model
from attest.keys import PublicKey
from attest.manifest import open_manifest
from attest.weights import tensor_root

MANIFEST = "training-manifest.json"


def root(directory):
    return tensor_root(hash_tensors(scan_model(directory)))


@pytest.fixture
def parent(attest, model, keys, tmp_path):
    """The manifest of a governed model, in its directory."""
    run = make_run(tmp_path / "run", weights=root(model))
    key = keys / "authority.key.pem"
    result = attest("manifest", "sign", model, "--run", run.path, "--key", key)
    assert result.exit_code == 0, result.stderr
    return model / MANIFEST


@pytest.fixture
def copy(model, tmp_path, parent):
    """A copy of the model without its manifest."""
    folder = shutil.copytree(model, tmp_path / "copy")
    (folder / MANIFEST).unlink()
    return folder


@pytest.fixture
def small(copy):
    """A copy in half precision."""
    path = copy / "model.safetensors"
    save_file({n: t.astype(np.float16) for n, t in load_file(path).items()}, path)
    return copy


@pytest.fixture
def shards(copy):
    """A copy in two files."""
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    for part, file in ((names[:3], "a.safetensors"), (names[3:], "b.safetensors")):
        save_file({name: tensors[name] for name in part}, copy / file)
    return copy


@pytest.fixture
def derive(attest, parent, keys):
    def derive(directory, *arguments, key="authority", of=parent):
        path = keys / f"{key}.key.pem"
        command = ("manifest", "derive", of, directory, "--key", path)
        return attest(*command, *arguments)

    return derive


@pytest.fixture
def verify(attest, keys):
    def verify(directory, *chain):
        links = [word for path in chain for word in ("--chain", path)]
        trusted = ("--authority", keys / "authority.pub.pem")
        path = directory / MANIFEST if directory.is_dir() else directory
        return attest("manifest", "verify", path, *trusted, *links, "--format", "json")

    return verify


def opened(directory, keys):
    authority = PublicKey.from_bytes((keys / "authority.pub.pem").read_bytes())
    return open_manifest((directory / MANIFEST).read_bytes(), [authority])


def test_resharded_copy_is_the_same_governed_model(
    derive, verify, shards, keys, parent
):
    result = derive(shards, "--rel", "resharded-from")
    assert result.exit_code == 0, result.stderr
    child, origin = opened(shards, keys), opened(parent.parent, keys)
    assert child.parent == origin.digest
    assert (child.model_name, child.model_version) == ("toy", "2+resharded")
    assert child.tensor_root == origin.tensor_root
    [refuse, _] = child.predicate["principles"]
    assert refuse["resistance"]["carried"] is True
    result = verify(shards, parent)
    assert (result.exit_code, json.loads(result.stdout)["chainVerified"]) == (0, True)


def test_quantised_copy_is_not_signed_as_if_it_resisted(derive, small):
    options = ("--rel", "quantised-from", "--tool", "numpy")
    result = derive(small, *options, "--format", "json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "shortfall"
    assert "found no measurement" in error["message"]
    assert not (small / MANIFEST).exists()


def test_quantised_copy_is_signed_with_its_shortfall(
    derive, verify, small, keys, parent
):
    result = derive(
        *(small, "--rel", "quantised-from", "--tool", "numpy", "--param", "bits=16"),
        *("--sign-shortfall", "refuse", "--quantization", "fp16"),
        *("--name", "toy-small", "--version", "3"),
    )
    assert result.exit_code == 0, result.stderr
    assert "note: shortfall: principle 'refuse'" in result.stderr
    child = opened(small, keys)
    assert (child.model_name, child.model_version) == ("toy-small", "3")
    assert child.transformation == "quantised-from, by numpy"
    assert child.predicate["derivation"]["params"] == {"bits": "16"}
    assert child.runtime.quantizations == ("fp16",)
    [refuse, _] = child.predicate["principles"]
    assert refuse["profile"] == {"of": "parent", "manifest": child.parent}
    assert refuse["resistance"]["shortfall"] == "not-measured"
    assert verify(small, parent).exit_code == 0


def test_show_says_whose_profile_it_is(attest, derive, small):
    derive(small, "--rel", "quantised-from", "--sign-shortfall", "refuse")
    text = attest("manifest", "show", small / MANIFEST).stdout
    assert "of parent" in text
    assert "NOT MET" in text


def test_model_measured_anew_has_a_run_of_its_own(derive, small, keys, tmp_path):
    run = make_run(tmp_path / "again", weights=root(small))
    origin_root = opened(tmp_path / "model", keys).tensor_root
    run.edit(lambda s: s["training"]["stages"][0].update(base=origin_root))
    result = derive(small, "--rel", "finetuned-from", "--run", run.path)
    assert result.exit_code == 0, result.stderr
    child = opened(small, keys)
    [refuse, _] = child.predicate["principles"]
    assert refuse["resistance"]["met"] is True
    assert "carried" not in refuse["profile"]
    assert child.parent is not None


def test_run_that_began_with_other_weights(derive, small, tmp_path):
    run = make_run(tmp_path / "again", weights=root(small))
    result = derive(small, "--rel", "finetuned-from", "--run", run.path)
    assert result.exit_code == 1
    assert "base of the first stage" in result.stderr


def test_parent_that_the_signer_did_not_sign(derive, shards, keys):
    options = ("--rel", "resharded-from")
    assert derive(shards, *options, key="issuer").exit_code == 1
    authority = ("--authority", keys / "authority.pub.pem")
    assert derive(shards, *options, *authority, key="issuer").exit_code == 0


def test_resharding_that_changed_a_tensor(derive, small):
    result = derive(small, "--rel", "resharded-from")
    assert result.exit_code == 1
    assert "expected the parent's tensor root" in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--rel", "stolen-from"],
        ["--rel", "merged-from", "--base", "."],
        ["--rel", "quantised-from", "--base", ".", "--adapter", "."],
        ["--rel", "quantised-from", "--param", "bits"],
        ["--rel", "quantised-from", "--param", "a=1", "--param", "a=2"],
    ],
)
def test_unclear_options_are_usage(derive, small, options):
    assert derive(small, *options).exit_code == 2


def test_merge_needs_the_manifest_of_an_adapter(derive, small):
    options = ("--base", small, "--adapter", small)
    result = derive(small, "--rel", "merged-from", *options)
    assert result.exit_code == 4
    assert "--rel adapter-of" in result.stderr


# --- chains -------------------------------------------------------------------------


@pytest.fixture
def family(derive, small, tmp_path, parent):
    """Parent, its quantised child, and that one's re-sharded child."""
    assert (
        derive(small, "--rel", "quantised-from", "--sign-shortfall", "refuse").exit_code
        == 0
    )
    grandchild = shutil.copytree(small, tmp_path / "grandchild")
    (grandchild / MANIFEST).unlink()
    options = ("--rel", "resharded-from", "--sign-shortfall", "refuse")
    assert derive(grandchild, *options, of=small / MANIFEST).exit_code == 0
    return parent, small / MANIFEST, grandchild / MANIFEST


def test_chain_is_followed_to_its_root(verify, family):
    parent, child, grandchild = family
    result = verify(grandchild, child, parent)
    found = json.loads(result.stdout)
    assert (result.exit_code, found["verdict"]) == (0, "proven")
    assert found["chainVerified"] is True
    assert len(found["chain"]) == 2


@pytest.mark.parametrize("missing", [0, 1])
def test_chain_with_a_missing_link_cannot_be_told(verify, attest, family, missing):
    rest = [path for path in family[:2] if path != family[missing]]
    result = verify(family[2], *rest)
    found = json.loads(result.stdout)
    assert (result.exit_code, found["verdict"]) == (3, "unknown")
    assert found["chainVerified"] is False


def test_missing_link_is_named(attest, family, keys):
    parent, child, grandchild = family
    digest = opened(parent.parent, keys).digest
    trusted = ("--authority", keys / "authority.pub.pem")
    result = attest("manifest", "verify", grandchild, *trusted, "--chain", child)
    assert f"link 2, {digest}, is not at hand" in result.stdout
    assert "CANNOT TELL" in result.stdout
    assert "PROVEN" not in result.stdout


def test_chain_that_nobody_asked_for_is_not_checked(verify, family):
    result = verify(family[2])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["chainVerified"] is None


def _other_byte(text):
    return ("B" if text[0] == "A" else "A") + text[1:]


@pytest.mark.parametrize("spoil", [_other_byte, lambda text: text[::-1]])
def test_unsigned_link_breaks_the_chain(verify, family, tmp_path, spoil):
    parent, child, grandchild = family
    forged = json.loads(child.read_bytes())
    forged["signatures"][0]["sig"] = spoil(forged["signatures"][0]["sig"])
    path = tmp_path / "forged.json"
    path.write_text(json.dumps(forged))
    result = verify(grandchild, path, parent)
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "chain"
    assert "forged.json" in error["message"]


def test_link_of_another_authority_breaks_the_chain(
    attest, verify, derive, family, keys
):
    parent, child, grandchild = family
    (child.parent / MANIFEST).unlink()
    result = derive(
        *(child.parent, "--rel", "quantised-from", "--sign-shortfall", "refuse"),
        *("--authority", keys / "authority.pub.pem"),
        key="issuer",
    )
    assert result.exit_code == 0, result.stderr
    assert verify(grandchild, child, parent).exit_code == 1
