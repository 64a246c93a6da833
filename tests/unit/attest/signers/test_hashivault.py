"""Keys in Vault's transit engine."""

import pytest
from fakes.vault import TOKEN, running_vault

from attest.errors import ConfigurationError, SignerError
from attest.keys import Algorithm, PrivateKey
from attest.signers import load_signer


@pytest.fixture
def vault(monkeypatch):
    with running_vault() as vault:
        monkeypatch.setenv("VAULT_ADDR", vault.url)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        yield vault


@pytest.mark.parametrize("alg", list(Algorithm))
def test_signature_verifies_with_the_public_key_that_vault_shows(vault, alg):
    key = PrivateKey.generate(alg)
    vault.keys["issuer"] = [key]
    signer = load_signer("hashivault:issuer")
    assert signer.public == key.public
    signer.public.verify(signer.sign(b"certificate"), b"certificate")


@pytest.mark.parametrize("alg", list(Algorithm))
def test_key_rotated_in_vault_does_not_change_the_issuer(vault, alg):
    vault.keys["issuer"] = [PrivateKey.generate(alg)]
    signer = load_signer("hashivault:issuer")
    vault.keys["issuer"].append(PrivateKey.generate(alg))
    signer.public.verify(signer.sign(b"x"), b"x")
    assert load_signer("hashivault:issuer").public != signer.public


def test_signature_of_another_version_is_never_passed_on(vault):
    vault.keys["issuer"] = [PrivateKey.generate()]
    signer = load_signer("hashivault:issuer")
    vault.sign = lambda *_: {"signature": "vault:v2:AAAA"}
    with pytest.raises(SignerError):
        signer.sign(b"x")


@pytest.mark.parametrize(
    "answer", [{}, {"signature": None}, {"signature": "vault:v1:***"}]
)
def test_answer_that_is_no_signature(vault, answer):
    vault.keys["issuer"] = [PrivateKey.generate(Algorithm.ES256)]
    signer = load_signer("hashivault:issuer")
    vault.sign = lambda *_: answer
    with pytest.raises(SignerError):
        signer.sign(b"x")


def test_sealed_vault_can_not_sign(vault):
    vault.keys["issuer"] = [PrivateKey.generate()]
    signer = load_signer("hashivault:issuer")
    vault.sealed = True
    with pytest.raises(SignerError):
        signer.sign(b"x")


def test_missing_key_is_never_made_up(vault):
    with pytest.raises(ConfigurationError) as caught:
        load_signer("hashivault:issuer")
    assert "vault read transit/keys/issuer" in caught.value.hint
    assert vault.requests == ["/v1/transit/keys/issuer"]


def test_wrong_token_is_a_configuration_error_that_does_not_show_it(vault, monkeypatch):
    monkeypatch.setenv("VAULT_TOKEN", "s.wrong-and-secret")
    vault.keys["issuer"] = [PrivateKey.generate()]
    with pytest.raises(ConfigurationError) as caught:
        load_signer("hashivault:issuer")
    assert "secret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "x" * 129])
def test_names_that_could_mean_another_route(name):
    with pytest.raises(ConfigurationError):
        load_signer(f"hashivault:{name}")
