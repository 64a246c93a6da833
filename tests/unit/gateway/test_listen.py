import socket

import pytest

from attest.errors import ConfigurationError
from gateway.listen import SharedPort, listen


@pytest.fixture
def port():
    shared = SharedPort("127.0.0.1", 0, "port")
    yield shared
    shared.close()


def test_connections_go_to_those_that_listen_alone(port):
    with port.bound() as first, port.bound() as second:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port.port))
        second.listen()
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port.port)):
                second.accept()[0].close()
        first.listen()
        second.close()
        with socket.create_connection(("127.0.0.1", port.port)):
            first.accept()[0].close()


def test_port_stays_ours_while_nobody_listens(port):
    with (
        socket.socket() as other,
        pytest.raises(OSError, match="in use"),
    ):
        other.bind(("127.0.0.1", port.port))


def test_second_gateway_does_not_share_it_unnoticed(port):
    with port.bound() as bound:
        bound.listen()
        with pytest.raises(ConfigurationError, match="Address already in use"):
            SharedPort("127.0.0.1", port.port, "port")


def test_port_of_another_process(port):
    with (
        listen("127.0.0.1", 0, "port") as busy,
        pytest.raises(ConfigurationError) as caught,
    ):
        SharedPort("127.0.0.1", busy.getsockname()[1], "port")
    assert caught.value.hint == "stop what listens there, or set another port"
