"""What node.toml may say, and what a mistake in it is answered with."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import tomlkit
from fedproof_node.config import load_node_config

from fedproof.errors import ConfigurationError

EXAMPLE = Path(__file__).parents[2] / "node" / "node.example.toml"


def write(folder: Path, **changes: object) -> Path:
    document = tomllib.loads(EXAMPLE.read_text())
    for key, value in changes.items():
        table, _, name = key.rpartition("__")
        (document.setdefault(table, {}) if table else document)[name] = value
    path = folder / "node.toml"
    path.write_text(tomlkit.dumps(document))
    return path


def test_example_is_valid_and_complete() -> None:
    """The example names every key, and its optional values are the defaults."""
    config = load_node_config(EXAMPLE)
    text = EXAMPLE.read_text()
    assert all(key in text for key in type(config).model_fields)
    assert config.verify.chunks == 3
    assert config.policy == EXAMPLE.parent / "policy.toml"
    assert config.task.settings == {"hospital": 0, "hospitals": 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poll_interval": 1.0}, "poll_interval: unknown key .*did you mean 'poll_interval_s'"),
        ({"verify__chunk": 3}, "verify.chunk: unknown key"),
        ({"verify__chunks": 0}, "verify.chunks.*: expected"),
        ({"verify__chunks": "some"}, "verify.chunks.*: expected 'all'"),
        ({"codec_processes": -1}, "codec_processes: expected greater than or equal to 0, got -1"),
        ({"poll_interval_s": 0}, "poll_interval_s: expected greater than 0, got 0"),
        ({"exit_after_round": "5"}, "exit_after_round: expected .*integer"),
        ({"chain__contract": "0x1234"}, "chain.contract: expected an address"),
        ({"aggregator__encryption": False}, "aggregator.encryption: unknown key"),
    ],
)
def test_mistake_names_file_key_and_expectation(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    """Each mistake is answered with the file, the key, what was expected and what came."""
    path = write(tmp_path, **changes)
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_node_config(path)
    assert str(path) in str(caught.value)


def test_all_chunks_may_be_asked_for(tmp_path: Path) -> None:
    """verify.chunks takes the word all in place of a number."""
    assert load_node_config(write(tmp_path, verify__chunks="all")).verify.chunks == "all"
