import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread():
    """Two threads on two busy cores wait for each other: measured six times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
