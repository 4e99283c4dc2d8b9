"""What aggregator.toml may say, and what a mistake in it is answered with."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import tomlkit
from fedproof_aggregator.config import AggregatorConfig

from fedproof.config import load_config
from fedproof.errors import ConfigurationError

EXAMPLE = Path(__file__).parents[2] / "aggregator" / "aggregator.example.toml"


def write(folder: Path, **changes: object) -> Path:
    document = tomllib.loads(EXAMPLE.read_text())
    for key, value in changes.items():
        table, _, name = key.rpartition("__")
        (document.setdefault(table, {}) if table else document)[name] = value
    path = folder / "aggregator.toml"
    path.write_text(tomlkit.dumps(document))
    return path


def test_the_example_is_valid_and_complete() -> None:
    """The example names every key, its optional waits are the defaults, and its paths are beside it."""
    config = load_config(EXAMPLE, AggregatorConfig)
    text = EXAMPLE.read_text()
    assert all(f"{key} = " in text or f"[{key}]" in text for key in AggregatorConfig.model_fields)
    for key, field in AggregatorConfig.model_fields.items():
        if key.endswith("_s"):
            assert getattr(config, key) == field.default
    assert config.policy == EXAMPLE.parent / "policy.toml"
    assert config.store_dir == EXAMPLE.parent / "store"


def test_the_store_is_below_the_state_by_default(tmp_path: Path) -> None:
    """A configuration without a store keeps everything in one folder."""
    path = write(tmp_path)
    document = tomllib.loads(path.read_text())
    del document["store"]
    path.write_text(tomlkit.dumps(document))
    assert load_config(path, AggregatorConfig).store_dir == tmp_path / "state" / "store"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poll_interval": 1.0}, "poll_interval: unknown key .*did you mean 'poll_interval_s'"),
        ({"encryption": False}, "encryption: unknown key"),
        ({"secret_key": "x"}, "secret_key: unknown key"),
        ({"rounds": 0}, "rounds: expected greater than or equal to 1, got 0"),
        ({"rounds": "5"}, "rounds: expected .*integer"),
        ({"expected_nodes": 1}, "expected_nodes: expected greater than or equal to 2, got 1"),
        ({"poll_interval_s": 0}, "poll_interval_s: expected greater than 0, got 0"),
        ({"attest_grace_s": -1}, "attest_grace_s: expected greater than or equal to 0, got -1"),
        ({"listen": "7443"}, "listen: expected host:port, such as 0.0.0.0:7443, got '7443'"),
        ({"listen": "localhost:65536"}, "listen: expected host:port"),
        ({"listen": "localhost:"}, "listen: expected host:port"),
        ({"tls__verify": False}, "tls.verify: unknown key"),
        ({"chain__contract": "0x1234"}, "chain.contract: expected an address"),
    ],
)
def test_a_mistake_names_file_key_and_expectation(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    """Each mistake is answered with the file, the key, what was expected and what came."""
    path = write(tmp_path, **changes)
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_config(path, AggregatorConfig)
    assert str(path) in str(caught.value)
