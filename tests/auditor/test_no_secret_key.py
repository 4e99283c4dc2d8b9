"""The auditor holds no secret key, and has no code that could use one."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import fedproof_auditor
import pytest

from fedproof.codec import Codec, SecretKey
from fedproof.keys.wrapping import WrappingKey
from tests.auditor.world import World

PACKAGE = Path(fedproof_auditor.__path__[0])

FORBIDDEN = {
    "SecretKey",
    "WrappingKey",
    "Decryptor",
    "KeyGenerator",
    "decrypt",
    "decrypt_chunk",
    "encrypt",
    "encrypt_chunk",
    "make_decryptor",
    "make_encryptor",
    "expand",
    "generate_secret_key",
    "load_wallet",
    "read_password",
    "reveal",
    "unwrap",
    "wrap",
}
FORBIDDEN_MODULES = {"fedproof.codec.secret_key", "fedproof.codec.cipher", "fedproof.keys.wallet", "tenseal"}


def find_names(tree: ast.AST) -> set[str]:
    """Return every name, attribute and import of a module."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                found.add(name)
            case ast.Import(names=aliases):
                found |= {alias.name for alias in aliases}
            case ast.ImportFrom(module=module, names=aliases):
                found |= {str(module), *(alias.name for alias in aliases)}
    return found


def test_no_module_names_a_key_or_a_decryption() -> None:
    """No module of the package imports, names or calls anything that makes, opens or uses a secret key."""
    modules = sorted(PACKAGE.rglob("*.py"))
    assert len(modules) > 10
    for path in modules:
        names = find_names(ast.parse(path.read_text()))
        assert not names & (FORBIDDEN | FORBIDDEN_MODULES), path


def test_an_audit_uses_no_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole audit, sums included, passes while every way to a key or a plaintext is blocked."""

    def refuse(*_arguments: object, **_options: object) -> NoReturn:
        raise AssertionError("the auditor touched a secret key")

    for owner, name in (
        (Codec, "decrypt_chunk"),
        (Codec, "encrypt_chunk"),
        (Codec, "make_decryptor"),
        (Codec, "make_encryptor"),
        (Codec, "generate_secret_key"),
        (SecretKey, "__init__"),
        (SecretKey, "generate"),
        (WrappingKey, "__init__"),
        (WrappingKey, "load"),
        (WrappingKey, "unwrap"),
    ):
        monkeypatch.setattr(owner, name, refuse)
    audit = world.audit()
    assert audit.findings.failures == []
    assert audit.sums == 3


def test_the_process_loads_no_role_and_no_wallet() -> None:
    """An auditor's process loads neither torch, gRPC and the other roles, nor what opens keystores."""
    modules = [f"fedproof_auditor.{path.stem}" for path in PACKAGE.glob("*.py") if path.stem != "__init__"]
    unwanted = ("torch", "grpc", "fedproof_node", "fedproof_aggregator", "fedproof.keys.wallet")
    script = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
print([name for name in {unwanted!r} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
