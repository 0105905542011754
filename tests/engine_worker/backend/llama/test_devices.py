import llama_cpp.llama_cpp as lc

from engine_worker.backend.llama.bindings import library_of
from engine_worker.backend.llama.devices import device_handles, known_devices, list_devices


def test_devices_are_found_again_by_their_names() -> None:
    lc.llama_backend_init()
    names = [one.name for one in known_devices(library_of(lc))]
    assert "CPU" in names
    assert [one.name for one in list_devices(library_of(lc))] == names
    *handles, end = device_handles(library_of(lc), names)
    assert all(handles)
    assert end is None


def test_a_library_without_the_calls_has_no_devices() -> None:
    class Nothing:
        pass

    assert list_devices(Nothing()) == ()  # type: ignore[arg-type]
