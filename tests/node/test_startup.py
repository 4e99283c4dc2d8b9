"""What stops a node before it takes part, and how it says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedproof_node.membership import Membership
from fedproof_node.relay import Relay
from fedproof_node.startup import (
    await_admission,
    lock_state,
    verify_aggregator,
    verify_model,
    verify_policy,
)
from fedproof_node.watch import LedgerWatch

from fedproof.digests import Digest
from fedproof.errors import ConfigurationError, DigestMismatch, PolicyMismatch
from fedproof.ledger.finality import Finality
from fedproof.model import Model, ModelLayout, TensorSpec
from fedproof.wire import aggregation_pb2 as wire
from tests.node.aggregator import QUICK
from tests.node.world import Node, Recorder, World, make_policy

OTHER_KEY = Digest(b"\x01" * 32)


def test_right_model_is_put_on_the_shelf(tmp_path: Path) -> None:
    """The first model is there after the check, and a second start finds it."""
    policy, layout, genesis = make_policy(6)
    for _ in range(2):
        shelf = verify_model(layout, genesis, policy, models_dir=tmp_path)
        model = shelf.load(policy.model.genesis)
        assert np.array_equal(model.flat, genesis)
        assert model.clips == (policy.codec.clip,)


def test_another_architecture_is_named(tmp_path: Path) -> None:
    """At the first start: both digests, both counts, and the tensors of the task's model."""
    policy, _, _ = make_policy(6)
    layout = ModelLayout((TensorSpec("weight", (2, 4), "float32"),))
    with pytest.raises(ConfigurationError) as caught:
        verify_model(layout, np.zeros(8, dtype=np.float32), policy, models_dir=tmp_path)
    message = str(caught.value)
    assert policy.model.architecture.hex() in message
    assert "of 6 parameters" in message
    assert f"{layout.digest.hex()} of 8 parameters: weight float32[2, 4]" in message


def test_the_tensor_that_differs_is_named(tmp_path: Path) -> None:
    """Once the node has had the right model, the message names the first tensor that differs."""
    policy, layout, genesis = make_policy(6)
    verify_model(layout, genesis, policy, models_dir=tmp_path)
    changed = ModelLayout((TensorSpec("weight", (2, 4), "float32"),))
    with pytest.raises(
        ConfigurationError, match=r"tensor 0: expected weight float32\[6\], got weight float32\[2, 4\]"
    ):
        verify_model(changed, np.zeros(8, dtype=np.float32), policy, models_dir=tmp_path)


def test_other_frozen_values_are_named(tmp_path: Path) -> None:
    """What is frozen belongs to the architecture: a node with other values is refused, naming the tensor."""
    head = TensorSpec("head", (6,), "float32")
    digests = (Digest(b"\x01" * 32), Digest(b"\x02" * 32))
    layouts = [ModelLayout((TensorSpec("body", (2,), "float32", each), head)) for each in digests]
    policy, _, genesis = make_policy(6)
    model = dataclasses.replace(
        policy.model,
        architecture=layouts[0].digest,
        genesis=Model(genesis, (policy.codec.clip,)).compute_digest(layouts[0].digest),
    )
    policy = dataclasses.replace(policy, model=model)
    verify_model(layouts[0], genesis, policy, models_dir=tmp_path)
    with pytest.raises(ConfigurationError, match="frozen tensor 'body': expected the values of digest 0101"):
        verify_model(layouts[1], genesis, policy, models_dir=tmp_path)


def test_another_first_model_is_named(tmp_path: Path) -> None:
    """The right shape with other values: both digests, and the seed."""
    policy, layout, genesis = make_policy(6)
    with pytest.raises(ConfigurationError, match=f"first model {policy.model.genesis.hex()}.*under seed 7"):
        verify_model(layout, genesis + 1, policy, models_dir=tmp_path)
    assert not list(tmp_path.glob("*.model"))


def test_another_policy_names_both_digests(make_world: Callable[..., World]) -> None:
    """A document that is not the ledger's is refused before anything else happens."""
    world = make_world(nodes=2)
    history = world.history()
    verify_policy(world.policy, history, where=Path("policy.toml"))
    other = dataclasses.replace(world.policy, name="other")
    with pytest.raises(PolicyMismatch) as caught:
        verify_policy(other, history, where=Path("policy.toml"))
    assert "policy.toml" in str(caught.value)
    assert str(caught.value).endswith(": put the adopted document there, and start again")
    assert world.policy.digest.hex() in str(caught.value)
    assert other.digest.hex() in str(caught.value)


def test_another_federations_aggregator_is_refused(make_world: Callable[..., World]) -> None:
    """An aggregator of another chain, contract or policy gets nothing from this node."""
    world = make_world(nodes=2)
    node = world.nodes[0]
    membership = Membership(
        chain_id=world.admin.chain_id,
        contract=world.contract,
        node=node.address,
        policy=world.policy,
        policy_path=Path("policy.toml"),
        codec_parameters=world.codec.parameters,
    )
    right: dict[str, Any] = {
        "chain_id": membership.chain_id,
        "contract": membership.contract,
        "policy_digest": world.policy.digest,
    }
    wrong = {"chain_id": 1, "contract": b"\x01" * 20, "policy_digest": b"\x02" * 32}
    with Relay(world.aggregator.target, node.tls, patience=QUICK) as relay:
        world.servicer.federation = wire.GetFederationResponse(**right)
        verify_aggregator(relay, membership)
        for field, value in wrong.items():
            world.servicer.federation = wire.GetFederationResponse(**{**right, field: value})
            with pytest.raises(DigestMismatch, match=f"aggregator {world.aggregator.target}: expected chain"):
                verify_aggregator(relay, membership)


def admission(
    world: World, node: Node, log: Recorder, *, key: Digest | None = None, finality: Finality = "latest"
) -> None:
    await_admission(
        LedgerWatch(node.ledger, from_block=0, finality=finality),
        node.address,
        wrapping_key_digest=key or node.wrapping_key.digest,
        poll_interval_s=0.01,
        log=log,  # type: ignore[arg-type]
    )


def test_unregistered_node_is_told_what_to_do(make_world: Callable[..., World]) -> None:
    """A node that never applied is sent to `fedproof node register`."""
    world = make_world(nodes=2)
    stranger = Node(world, 2)
    with pytest.raises(ConfigurationError, match="run `fedproof node register` first"):
        admission(world, stranger, Recorder())


def test_another_wrapping_key_is_named(make_world: Callable[..., World]) -> None:
    """A wrapping key that is not the registered one would leave the node without a key: both are named."""
    world = make_world(nodes=2)
    node = world.nodes[0]
    with pytest.raises(ConfigurationError, match=f"{node.wrapping_key.digest.hex()}.*{OTHER_KEY.hex()}"):
        admission(world, node, Recorder(), key=OTHER_KEY)


def test_applied_node_waits_and_says_so(make_world: Callable[..., World]) -> None:
    """Until it is admitted, a node waits, says for what, once, and then goes on."""
    world = make_world(nodes=2)
    node = Node(world, 2)
    node.ledger.register(node.wrapping_key.digest, Digest(b"\x0c" * 32))
    log = Recorder()

    def admit_when_it_waits(entry: dict[str, Any]) -> bool:
        if entry["event"] == "waiting":
            world.admin.admit(node.address)
        return False

    log.crash_at = admit_when_it_waits
    admission(world, node, log)
    waiting, admitted = log.events
    assert waiting["event"] == "waiting"
    assert "APPLIED" in waiting["reason"]
    assert admitted["event"] == "admitted"


def test_short_windows_are_warned_of(make_world: Callable[..., World]) -> None:
    """An admitted node whose blocks count too late for the policy's windows says so, and goes on."""
    world = make_world(nodes=2)
    node = world.nodes[0]
    # Some blocks of minutes each, on average.
    world.chain.travel_to(node.ledger.latest_block().timestamp + 100_000)
    world.chain.mine(3)
    log = Recorder()
    admission(world, node, log, finality=2)
    admitted, warning = log.events
    assert admitted["event"] == "admitted"
    assert warning["event"] == "finality_unfit"
    assert "attest_window_s = 600" in warning["found"]


def test_second_daemon_on_one_state_is_refused(tmp_path: Path) -> None:
    """Two daemons on one journal would contradict each other: the second one does not start."""
    refused = pytest.raises(ConfigurationError, match="expected no other daemon")
    with lock_state(tmp_path), refused, lock_state(tmp_path):
        pass
    with lock_state(tmp_path):
        pass
