"""The memory of a whole worker, reckoned: its model, its cache and itself."""

from collections.abc import Sequence

from engine_worker.placement import cells, layers
from gpufc.reckoning import Reckoning

WORKER_BYTES = 96 << 20
"""A worker's own memory beside model and cache: interpreter, libraries, llama.cpp's buffers of a
pass. Measured: the anonymous memory of an idle worker, and a margin for its first requests."""


def reckon(
    demand: layers.Demand,
    file_bytes: int,
    *,
    n_gpu_layers: int,
    host_room: int,
    device_rooms: Sequence[int],
) -> Reckoning:
    """The placement in the room of the host and of each GPU, without the model's name and context.

    Raises `MemoryShort` where not even the smallest cache fits.
    """
    model, wish = demand.model, demand.wish
    room = sum(max(0, one - layers.GPU_RESERVE_BYTES) for one in device_rooms)
    reserve = len(device_rooms) * layers.GPU_RESERVE_BYTES
    n_layers = demand.fitting_layers(n_gpu_layers, room)
    on_device = model.device_bytes(n_layers)
    stores = demand.stores(n_layers, device_room=room - on_device, host_room=host_room)
    layout = cells.choose_layout(wish, stores)
    n_attended = layout.n_cells if layout.unified else cells.round_up(wish.n_ctx)
    device = on_device + (reserve if n_layers else 0)
    taken = {True: device, False: WORKER_BYTES}
    least = dict(taken)
    for store in stores:
        taken[store.on_gpu] += store.needed_bytes(layout.n_cells, n_attended)
        least[store.on_gpu] += store.needed_bytes(wish.least_cells, wish.least_attended)
    return Reckoning(
        n_layers=model.n_layers,
        n_gpu_layers=n_layers,
        n_cells=layout.n_cells,
        host_bytes=taken[False],
        mapped_bytes=max(0, file_bytes - on_device),
        device_bytes=taken[True],
        least_host_bytes=least[False],
        least_device_bytes=least[True],
    )
