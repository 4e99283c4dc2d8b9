"""The aggregator's configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from fedproof.config import ChainConfig, Section, TlsConfig

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class AggregatorConfig(Section):
    """What `fedproof aggregator run --config` reads.

    Attributes:
        name: what this aggregator calls itself in its logs.
        state_dir: folder of the journal.
        store: folder of ciphertexts, headers and wrapped keys, for auditors; below `state_dir` by default.
        policy: the policy document; its digest must be the ledger's.
        listen: host and port to serve on, as ``0.0.0.0:7443`` or ``[::]:7443``; port 0 takes a free one.
        rounds: the round number after which no further one is opened.
        expected_nodes: how many nodes must be admitted before a round is opened.
        codec_processes: how many processes add ciphertexts; 0 for one for each core.
        exit_when_finished: whether to exit after the last round; otherwise it goes on serving what it stores.
        poll_interval_s: how often the ledger is read.
        seal_grace_s: how long after the commit deadline it waits for updates that are not whole yet.
        anchor_margin_s: in a policy with batching, how long before the last moment the signed commitments are
            anchored without those whose updates are not whole; a quarter of the time until then at most.
        most_signatures: in a policy with batching, how many attestations are checked on the chain one by one;
            more are proposed as a root, to which nodes may object for `attest_window_s`. Up to 4, signatures
            on the chain are cheaper.
        attest_grace_s: how long after the quorum it waits for the rest of the cohort to attest.
        finish_grace_s: how long after the last round it stays for such nodes, before it exits.
        shutdown_grace_s: how long streams under way may go on after SIGTERM.
    """

    name: Annotated[str, Field(min_length=1)]
    state_dir: Path
    store: Path | None = None
    policy: Path
    listen: str
    rounds: Annotated[int, Field(ge=1, lt=1 << 32)]
    expected_nodes: Annotated[int, Field(ge=2, le=1000)] = 2
    codec_processes: Annotated[int, Field(ge=0, le=256)] = 0
    exit_when_finished: bool = False
    poll_interval_s: Annotated[Seconds, Field(gt=0)] = 0.5
    seal_grace_s: Seconds = 10.0
    anchor_margin_s: Seconds = 30.0
    most_signatures: Annotated[int, Field(ge=0, le=1000)] = 4
    attest_grace_s: Seconds = 5.0
    finish_grace_s: Seconds = 30.0
    shutdown_grace_s: Seconds = 5.0
    chain: ChainConfig
    tls: TlsConfig

    @field_validator("listen")
    @classmethod
    def _name_host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"expected host:port, such as 0.0.0.0:7443, got {value!r}")
        return value

    @property
    def store_dir(self) -> Path:
        """The store's folder, given or implied."""
        return self.store if self.store is not None else self.state_dir / "store"
