import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.digests import digest
from gateway.errors import RequestError
from gateway.form import boundary_of, read_form

B = b"xyz"
FILE = b'content-disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF'


def field(name, value, *more):
    lines = [f'Content-Disposition: form-data; name="{name}"', *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + value


def form(*parts, end=b"--\r\n"):
    return b"".join(b"--xyz\r\n" + part + b"\r\n" for part in parts) + b"--xyz" + end


def encoded(fields, content=b"RIFF", name="a.wav"):
    request = httpx2.Request(
        "POST", "http://x", data=fields, files={"file": (name, content, "audio/wav")}
    )
    kind = request.headers["content-type"].encode()
    return request.read(), boundary_of(kind)


def test_form():
    body = form(
        field("model", b"tiny"),
        field("stream", b"true"),
        field("timestamp_granularities[]", b"word"),
        field("timestamp_granularities[]", b"segment"),
        FILE,
    )
    assert read_form(body, B) == {
        "model": "tiny",
        "stream": True,
        "timestamp_granularities[]": ["word", "segment"],
        "file": digest(b"RIFF"),
    }


@pytest.mark.parametrize("end", [b"--", b"--\r\n"])
def test_empty_values(end):
    body = form(field("prompt", b""), field("file", b"").replace(b'"file"', b'"x"'))
    assert read_form(body.removesuffix(b"--\r\n") + end, B) == {"prompt": "", "x": ""}


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,9}", fullmatch=True).filter(
            lambda name: name not in ("file", "stream")
        ),
        st.text(st.characters(codec="utf-8"), max_size=20),
        max_size=4,
    ),
    st.binary(max_size=200),
)
def test_what_a_client_encodes(fields, content):
    body, boundary = encoded(fields, content)
    assert read_form(body, boundary) == {**fields, "file": digest(content)}


@given(st.binary(max_size=200), st.sampled_from([B, b"--", b"\r\n"]))
def test_arbitrary_bytes_are_a_form_or_refused(data, boundary):
    for body in (data, b"--" + boundary + b"\r\n" + data, form(data)):
        try:
            fields = read_form(body, boundary)
        except RequestError as error:
            assert error.status == 400  # noqa: PT017  # either outcome is right
        else:
            assert isinstance(fields, dict)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--xyz--\r\n",
        b"preamble\r\n" + form(FILE),
        b"\r\n" + form(FILE),
        form(FILE, end=b"--\r\nepilogue"),
        form(FILE, end=b"-- \r\n"),
        form(FILE, end=b""),
        form(FILE) + form(FILE),
        form(FILE).replace(b"\r\n", b"\n"),
        form(FILE).replace(b"--xyz\r\n", b"--xyz \r\n"),
        form(field("a", b"b\r\n--xyzz"), FILE),
        form(field("model", b"a"), field("model", b"b"), FILE),
        form(FILE, FILE),
        form(b"RIFF"),
        form(b"\r\n\r\nRIFF"),
        form(field("model", b"\xff")),
        form(field("model", b"x" * 300_000)),
        form(field("mod el", b"x")),
        form(field('a"b', b"x")),
        form(field("a\\b", b"x")),
        form(field("model", b"x", "Content-Transfer-Encoding: base64")),
        form(field("model", b"x", "X-Other: 1")),
        form(field("model", b"x", " folded")),
        form(field("model", b"x", "Content-Length: 2")),
        form(field("model", b"x", 'Content-Disposition: form-data; name="b"')),
        form(field("model", b"x").replace(b"form-data", b"attachment")),
        form(field("model", b"x").replace(b"name=", b"name*=")),
        form(field("model", b"x").replace(b'"model"', b'"model"; x="y"')),
        form(FILE.replace(b'"file"', b'"model"')),
        form(field("file", b"RIFF")),
        form(FILE.replace(b"a.wav", b'a\\"; name=\\"b')),
        form(b"x: " + b"y" * 3000 + b"\r\n\r\n"),
        form(*[field(f"a{n}", b"") for n in range(65)]),
        form(field("stream", b"1"), FILE),
        form(field("stream", b"on"), FILE),
    ],
)
def test_form_with_two_readings_is_refused(body):
    with pytest.raises(RequestError) as caught:
        read_form(body, B)
    assert "RIFF" not in str(caught.value)


def test_length_of_a_part_that_is_right():
    body = form(
        field("model", b"tiny", "Content-Length: 4", "Content-Type: text/plain")
    )
    assert read_form(body, B) == {"model": "tiny"}


@pytest.mark.parametrize(
    ("kind", "boundary"),
    [
        (b"multipart/form-data; boundary=xyz", b"xyz"),
        (b'Multipart/Form-Data;boundary="x y"', None),
        (b'multipart/form-data; boundary="x:y"', b"x:y"),
        (b"multipart/form-data; boundary=----WebKitFormBoundaryx", b"----WebKitForm"),
        (b"multipart/form-data", None),
        (b"multipart/form-data; boundary=", None),
        (b"multipart/form-data; boundary=x; boundary=y", None),
        (b"multipart/form-data; charset=utf-8; boundary=x", None),
        (b"multipart/mixed; boundary=x", None),
        (b"multipart/form-data; boundary=" + b"x" * 71, None),
        (b"application/json", None),
        (b"", None),
    ],
)
def test_boundary(kind, boundary):
    if boundary is None:
        with pytest.raises(RequestError) as caught:
            boundary_of(kind)
        assert caught.value.status == 415
    else:
        assert boundary_of(kind).startswith(boundary)
