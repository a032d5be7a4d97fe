"""What only a GPU can show. `make test-gpu` runs it; everywhere else it is skipped, with the reason."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _gpu():
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")


@pytest.fixture
def gpu():
    return torch.device("cuda", torch.cuda.current_device())
