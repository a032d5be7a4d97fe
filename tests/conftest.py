import pytest
import torch
from hypothesis import settings

settings.register_profile("gradconf", max_examples=10, deadline=None, derandomize=True, database=None)
settings.load_profile("gradconf")


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])], scope="session")
def device(request):
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
