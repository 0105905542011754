"""The machines that run workers for a front."""

from typing import Annotated

from msgspec import Meta, Struct

from gpufc.config.marks import FLAG, PATH, UPGRADE


class ClusterConfig(Struct, frozen=True, kw_only=True):
    """Worker hosts on other machines. Without `cluster_listen` there are none."""

    cluster_listen: Annotated[
        Annotated[str, Meta(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5}$")] | None,
        Meta(
            description="HOST:PORT on which worker hosts join, always encrypted [default: none]",
            extra=FLAG,
        ),
    ] = None
    cluster_advertise: Annotated[
        Annotated[str, Meta(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5}$")] | None,
        Meta(
            description="HOST:PORT by which worker hosts reach the front [default: cluster_listen]",
            extra=UPGRADE,
        ),
    ] = None
    cluster_dir: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="private folder with the front's key and the keys of its worker hosts"
            " [default: gpufc/cluster in $XDG_STATE_HOME or ~/.local/state]",
            extra=PATH | UPGRADE,
        ),
    ] = None
    cluster_models_url: Annotated[
        Annotated[str, Meta(pattern=r"^https?://[^\s/]+", max_length=1024)] | None,
        Meta(
            description="URL of a folder, such as that of a mirror, from which machines download"
            " models that they lack, by their files' names [default: the front sends them]",
            extra=UPGRADE,
        ),
    ] = None
    remote_silence_s: Annotated[
        float,
        Meta(
            ge=1.0,
            le=8.0,
            description="seconds without any message after which a machine counts as lost",
            extra=UPGRADE,
        ),
    ] = 5.0
    remote_lease_s: Annotated[
        float,
        Meta(
            ge=2.0,
            le=3600.0,
            description="seconds that workers of a machine live on without the front: one that is"
            " back by then goes on with them",
            extra=UPGRADE,
        ),
    ] = 10.0
    workers_per_machine: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="most workers of a joined machine; with several, each gets its share of the"
            " GPUs",
            extra=UPGRADE,
        ),
    ] = 1
    cluster: Annotated[
        Annotated[str, Meta(pattern=r"^ray://(auto|(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5})$")]
        | None,
        Meta(
            description="ray://HOST:PORT, the head of a Ray cluster that runs worker hosts; this"
            " machine is one of its nodes [default: none]",
            extra=FLAG | UPGRADE,
        ),
    ] = None
    cluster_hosts: Annotated[
        int,
        Meta(ge=1, le=1024, description="worker hosts that the cluster runs", extra=UPGRADE),
    ] = 1
    cluster_resources: Annotated[
        str,
        Meta(
            pattern=r"^([A-Za-z_][\w:.-]*=\d+(\.\d+)?(,(?!$)|$))*$",
            description="resources of each of these hosts by Ray's names, such as CPU=4,GPU=1",
            extra=UPGRADE,
        ),
    ] = "GPU=1"
    insecure_ray: Annotated[
        bool,
        Meta(
            description="use a Ray cluster without a token or without durable storage",
            extra=FLAG | UPGRADE,
        ),
    ] = False
