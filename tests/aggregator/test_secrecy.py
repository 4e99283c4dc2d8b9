"""The aggregator can open nothing: no line of it names what makes, unwraps or uses a secret key."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import fedproof_aggregator
import pytest
from fedproof_aggregator import process

from fedproof.codec.secret_key import SecretKey
from fedproof.codec.update import Codec
from fedproof.codec.workers import CodecWorkers
from fedproof.keys import wrapping
from tests.aggregator.federation import secret_key, wrapped_keys
from tests.aggregator.world import World

PACKAGE = Path(fedproof_aggregator.__file__).parent

# Every way in which the library makes, opens or uses the epoch's key.
OPENERS = {
    "SecretKey",
    "WrappingKey",
    "decrypt",
    "decrypt_chunk",
    "encrypt_chunk",
    "expand",
    "generate",
    "generate_secret_key",
    "make_decryptor",
    "make_encryptor",
    "reveal",
    "secret_key",
    "unwrap",
    "wrap",
    "wrapping_info",
}


def names_in(path: Path) -> set[str]:
    """Return every name that a module imports, reads, calls or takes an attribute by."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case (
                ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name))
            ):
                found.add(name)
            case ast.alias(name=name):
                found |= {name, *name.split(".")}
            case ast.Constant(value=str(text)):
                found.add(text)
            case _:
                pass
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_no_module_names_a_way_to_open_anything(path: Path) -> None:
    """Neither a name, nor an attribute, nor a string that getattr could take."""
    assert names_in(path) & OPENERS == set()
    assert not any(name == "tenseal" or name.startswith("tenseal.") for name in names_in(path))


def test_the_list_of_openers_is_complete() -> None:
    """Each public callable of the library that takes or returns a secret key is on the list."""
    holders = [member for member in vars(Codec).values() if inspect.isfunction(member)]
    holders += [member for member in vars(wrapping).values() if inspect.isfunction(member)]
    for member in holders:
        annotations = inspect.get_annotations(member)
        if any("SecretKey" in str(note) for note in annotations.values()):
            assert member.__name__ in OPENERS
    assert set(inspect.signature(CodecWorkers).parameters) & OPENERS == {"secret_key"}
    public = {name for name in vars(SecretKey) if not name.startswith("_")}
    assert public <= OPENERS
    assert {"wrap", "unwrap"} <= OPENERS & (set(vars(wrapping)) | set(vars(wrapping.WrappingKey)))


def test_the_configuration_has_no_place_for_one() -> None:
    """The only secrets it names are its own wallet's password and its own TLS key."""
    fields = set(process.AggregatorConfig.model_fields)
    assert not {field for field in fields if "key" in field or "secret" in field}


def test_nothing_that_a_round_leaves_on_disk_holds_the_key(fresh: World) -> None:
    """After a whole round, neither the store nor the journal contains the secret key's bytes."""
    fresh.store.put_wrapped_keys(1, wrapped_keys(fresh.federation))
    assert fresh.daemon.step()
    fresh.deliver(0, 1, 2)
    for _ in range(2):
        assert fresh.daemon.step()
    fresh.attest(0, 1, 2)
    assert fresh.daemon.step()
    key = secret_key().reveal()
    files = [path for path in fresh.folder.rglob("*") if path.is_file()]
    assert len(files) > 12
    assert not [path for path in files if key in path.read_bytes() or key.hex().encode() in path.read_bytes()]
