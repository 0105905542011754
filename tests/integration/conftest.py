"""The scripted engine in one service, for all tests that need no settings of their own."""

from collections.abc import Iterator

import pytest

from tests.integration.fake_service import FAKE
from tests.service import Service, service


@pytest.fixture(scope="session")
def plain_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("plain") / "run", environ=FAKE) as started:
        yield started


@pytest.fixture
def plain(plain_service: Service) -> Service:
    """The service with nothing to do and a worker ready. Workers may be killed; the front stays."""
    plain_service.wait_idle()
    return plain_service
