"""What a participant writes in node.toml; node.example.toml explains each key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from fedproof.config import ChainConfig, Section, TlsConfig, load_config


class TaskConfig(Section):
    """The model and the data.

    Attributes:
        reference: ``package.module:Class``.
        settings: what the class's constructor takes, by name.
    """

    reference: str
    settings: dict[str, Any] = Field(default_factory=dict)


class AggregatorConfig(Section):
    """Where the aggregator listens.

    Attributes:
        target: ``host:port``; TLS always.
        attempts: how often a call that finds no one is made before it is given up.
    """

    target: str
    attempts: Annotated[int, Field(ge=1, le=100)] = 8


class VerifyConfig(Section):
    """How much of each sum is recomputed before anything is decrypted.

    Attributes:
        chunks: how many drawn chunks, or "all".
    """

    chunks: Literal["all"] | Annotated[int, Field(ge=1)] = 3


class NodeConfig(Section):
    """A node's configuration file.

    Attributes:
        name: what logs call this node; the ledger knows it by its address.
        state_dir: journal, models and spools; one daemon at a time.
        policy: the federation's policy document.
        wrapping_key: private key that this node's epoch keys are wrapped for, under the wallet's password.
        poll_interval_s: how often the ledger is asked for news.
        public_key_wait_s: how long a key maker waits for public keys that the aggregator does not hold yet.
        keep_models: how many of the latest models stay on the disk.
        codec_processes: processes that encrypt, add up and decrypt; one for each core when 0.
        exit_after_round: end once this round has ended; run for good when absent.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    state_dir: Path
    policy: Path
    wrapping_key: Path
    poll_interval_s: Annotated[float, Field(gt=0, le=60)] = 0.5
    public_key_wait_s: Annotated[float, Field(ge=0, le=86_400)] = 120.0
    keep_models: Annotated[int, Field(ge=1)] = 3
    codec_processes: Annotated[int, Field(ge=0, le=1024)] = 0
    exit_after_round: Annotated[int, Field(ge=1)] | None = None
    task: TaskConfig
    chain: ChainConfig
    aggregator: AggregatorConfig
    tls: TlsConfig
    verify: VerifyConfig = VerifyConfig()


def load_node_config(path: Path) -> NodeConfig:
    """Return the configuration at a path.

    Raises:
        ConfigurationError: as `fedproof.config.load_config`.
    """
    return load_config(path, NodeConfig)
