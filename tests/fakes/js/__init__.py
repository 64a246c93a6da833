"""Programs that the tests of clients/js start: an oracle, a gateway, a bundle."""
