"""Taking the port: the operator's message if it is not available."""

import pytest

from gpufc.errors import StartError
from supervisor.http.server import bind, urls


def test_a_taken_port_is_one_line_with_a_way_out() -> None:
    (held,) = bind("127.0.0.1", 0)
    port = held.getsockname()[1]
    with pytest.raises(StartError, match=f"port {port} on 127.0.0.1 is taken; .*--port"):
        bind("127.0.0.1", port)
    held.close()


def test_an_address_that_is_not_ours_is_one_line() -> None:
    with pytest.raises(StartError, match=r"cannot listen on 203\.0\.113\.1"):
        bind("203.0.113.1", 0)


def test_urls_are_those_a_browser_takes() -> None:
    (held,) = bind("127.0.0.1", 0)
    assert urls([held]) == [f"http://127.0.0.1:{held.getsockname()[1]}"]
    held.close()
