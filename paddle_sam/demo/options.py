"""Options of the web demo."""

from __future__ import annotations

import dataclasses

from paddle_sam.options import Options, device_option, option

# OpenMP's threads sleep while they wait for each other. By default they spin for up to 0.2 s on the
# CPU that another visitor's photograph is read on, and under load a third of the ages is rendered.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


@dataclasses.dataclass(frozen=True)
class DemoOptions(Options):
    """How the demo is served, and which models it offers."""

    checkpoint_path: str = option(
        "", "SAM weight files to choose from, separated by commas (default: the embedded model)"
    )
    identity_path: str = option(
        "", "face recognition weights, to show how similar results are to the input"
    )
    age_regressor_path: str = option(
        "", "age regressor weights (default: the embedded one, for the embedded model)"
    )
    host: str = option("127.0.0.1", "address to bind to; others can only reach it beyond loopback")
    port: int = option(7860, "port; 0 takes a free one", minimum=0, maximum=65535)
    open: bool = option(False, "also open the page, in a window of this machine's browser")
    max_upload_mb: float = option(20.0, "largest photo accepted, in megabytes", minimum=0)
    max_megapixels: float = option(
        50.0, "largest photo in millions of pixels; larger JPEG files are read reduced", above=0
    )
    queue_length: int = option(64, "requests that may wait for the network", minimum=1)
    sessions: int = option(256, "photos kept in memory at once", minimum=1)
    memory_mb: float = option(1000.0, "memory for all photos, in megabytes", minimum=100)
    idle_minutes: float = option(15.0, "minutes until an unused photo is forgotten", minimum=0)
    allowed_hosts: str = option(
        "", "further host names to answer to, separated by commas, such as a reverse proxy's"
    )
    device: str = device_option()

    def names(self) -> tuple[str, ...]:
        """The host names of `--allowed_hosts`, in lower case."""
        return tuple(name.strip().lower() for name in self.allowed_hosts.split(",") if name.strip())
