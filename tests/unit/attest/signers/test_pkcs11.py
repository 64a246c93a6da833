"""Keys in a PKCS #11 token: SoftHSM2, the real module."""

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pkcs11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pkcs11 import Attribute, KeyType
from pkcs11.util.ec import encode_named_curve_parameters

from attest.errors import ConfigurationError, SignerError
from attest.keys import Algorithm
from attest.signers import load_signer
from attest.signers.pkcs11 import parse_uri

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "secret-1234"
needs_softhsm = pytest.mark.skipif(
    not (MODULE.exists() and shutil.which("softhsm2-util")),
    reason="Debian's softhsm2 is not installed",
)


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """A token with one key pair of each kind. The module reads its folder once."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    conf = folder / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(conf)
    command = ["softhsm2-util", "--init-token", "--free", "--label", "ca"]
    subprocess.run([*command, "--pin", PIN, "--so-pin", "so-1234"], check=True)
    (folder / "pin").write_text(PIN + "\n")
    library = pkcs11.lib(str(MODULE))
    with library.get_token(token_label="ca").open(rw=True, user_pin=PIN) as session:
        for label, kind, curve in (
            ("es256", KeyType.EC, "secp256r1"),
            ("p384", KeyType.EC, "secp384r1"),
            ("eddsa", KeyType.EC_EDWARDS, "1.3.101.112"),
        ):
            parameters = session.create_domain_parameters(
                kind,
                {Attribute.EC_PARAMS: encode_named_curve_parameters(curve)},
                local=True,
            )
            parameters.generate_keypair(store=True, label=label)
    yield folder
    del os.environ["SOFTHSM2_CONF"]


def uri(token, label, pin="pin"):
    return (
        f"pkcs11:token=ca;object={label}?module-path={MODULE}"
        f"&pin-source=file:{token / pin}"
    )


@needs_softhsm
@pytest.mark.parametrize("alg", list(Algorithm))
def test_signature_verifies_with_the_public_key_of_the_token(token, alg):
    signer = load_signer(uri(token, alg.lower()))
    assert signer.public.alg is alg
    signer.public.verify(signer.sign(b"certificate"), b"certificate")


@needs_softhsm
def test_threads_share_a_signer(token):
    signer = load_signer(uri(token, "es256"))
    found = []

    def work(number):
        data = b"%d" % number
        signer.public.verify(signer.sign(data), data)
        found.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(16))


@needs_softhsm
def test_session_that_the_token_dropped_is_opened_anew(token):
    signer = load_signer(uri(token, "es256"))
    signer._session.close()
    signer.public.verify(signer.sign(b"x"), b"x")


@needs_softhsm
def test_token_that_is_gone_can_not_sign(token):
    signer = load_signer(uri(token, "es256"))
    signer._session.close()
    signer._attributes = {**signer._attributes, "token": "gone"}
    with pytest.raises(SignerError) as caught:
        signer.sign(b"x")
    assert PIN not in str(caught.value)


@needs_softhsm
def test_missing_key_is_never_made_up(token):
    with pytest.raises(ConfigurationError) as caught:
        load_signer(uri(token, "nobody"))
    assert "list-objects" in caught.value.hint


@needs_softhsm
def test_key_on_another_curve(token):
    with pytest.raises(ConfigurationError, match="P-256"):
        load_signer(uri(token, "p384"))


@needs_softhsm
def test_missing_pin_and_module(token, tmp_path):
    with pytest.raises(ConfigurationError, match="pin-source"):
        load_signer(uri(token, "es256", pin="missing"))
    wrong = uri(token, "es256").replace(str(MODULE), str(tmp_path / "missing.so"))
    with pytest.raises(ConfigurationError):
        load_signer(wrong)


GOOD = "token=ca;object=a%20b?module-path=/m.so&pin-source=/pin"


def test_attributes_are_percent_decoded():
    assert parse_uri(GOOD)["object"] == "a b"


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "token=ca",
        GOOD + "&pin-value=1234",
        GOOD.replace("ca", ""),
        GOOD.replace("token=ca", "token=ca;token=cb"),
        GOOD.replace("token=ca", "serial=1"),
    ],
)
def test_other_uris_are_refused(rest):
    with pytest.raises(ConfigurationError):
        parse_uri(rest)


def test_pin_in_the_uri_is_refused_and_not_shown():
    with pytest.raises(ConfigurationError) as caught:
        parse_uri(GOOD + "&pin-value=8472")
    assert "8472" not in str(caught.value)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        found = parse_uri(text)
    except ConfigurationError:
        return
    assert set(found) == {"token", "object", "module-path", "pin-source"}
