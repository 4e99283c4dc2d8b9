"""The commands, as a user calls them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fedproof_auditor.chain import open_chain, serve_journal
from fedproof_auditor.cli import app
from fedproof_auditor.run import load_run
from typer.testing import CliRunner

from fedproof.devchain.backend import DevChain
from fedproof.devchain.journal import Genesis
from fedproof.devchain.server import DevChainServer
from fedproof.digests import checksum_address
from fedproof.errors import ConfigurationError, FedproofError, LedgerUnreachable
from fedproof.ledger.events import RoundFinalised
from fedproof.store import ObjectStore
from tests.auditor.world import NAMES, World


def call(*arguments: object) -> tuple[int, str]:
    """Return the exit status and the output of a command; what fedproof refuses is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
    if isinstance(result.exception, FedproofError):
        raise result.exception
    return result.exit_code, result.stdout


@pytest.fixture
def run(world: World, tmp_path: Path) -> Path:
    """A copy of the run's folder whose chain is still served."""
    copy = tmp_path / "run"
    shutil.copytree(world.folder, copy, ignore=shutil.ignore_patterns("lost"))
    return copy


def edit_run(folder: Path, **changes: object) -> Path:
    """Change facts in a run.json."""
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.fixture
def other_chain() -> Iterator[str]:
    """A development chain on which nothing was deployed."""
    with DevChainServer(DevChain(Genesis(chain_id=31337, timestamp=1)), port=0, block_time_s=0) as server:
        yield server.url


# verify


def test_a_sound_run_ends_with_status_0(world: World) -> None:
    """The checklist of an honest run is ticked, line by line, and the status is 0."""
    status, output = call("verify", "--run", world.folder)
    assert status == 0
    assert output.count("✓") == 12
    assert output.splitlines()[-1] == "every check holds"


def test_a_batched_run_ends_with_status_0(batched: World) -> None:
    """So is a run whose nodes signed; each batch and each proposal has its line."""
    status, output = call("verify", "--run", batched.folder)
    assert status == 0
    assert (output.count(": batch 0x"), output.count(": proposal 0x")) == (4, 2)


def test_json_is_one_object(world: World) -> None:
    """--json prints one object and nothing else."""
    status, output = call("verify", "--run", world.folder, "--json")
    document = json.loads(output)
    assert (status, document["holds"], document["counts"]["rounds"]) == (0, True, 4)
    assert document["block"]["number"] == world.evidence.block.number


def test_a_tampered_copy_of_the_store_is_refused(world: World, store: Path) -> None:
    """--store puts other ciphertexts in the run's place; a flipped bit ends with 1, named."""
    path = ObjectStore(store).object_path(world.leaves(1, 2)[0])
    chunk = path.read_bytes()
    path.write_bytes(bytes([chunk[0] ^ 1]) + chunk[1:])
    status, output = call("verify", "--run", world.folder, "--store", store, "--json")
    first = json.loads(output)["first_failure"]
    assert status == 1
    assert (first["check"], first["round"], first["node"], first["chunk"]) == (8, 1, NAMES[2], 0)
    status, output = call("verify", "--run", world.folder, "--store", store)
    assert status == 1
    assert output.splitlines()[-1].startswith(f"REFUSED at check 8: round 1, {NAMES[2]}, chunk 0, ")


def test_evidence_is_named_one_by_one(world: World) -> None:
    """Without a run's folder, chain, contract, store and policy are given on the command line."""
    status, output = call(
        "verify", "--rpc-url", world.endpoint.url, "--contract", checksum_address(world.evidence.contract),
        "--store", world.store, "--policy", world.folder / "policy.toml", "--json",
    )  # fmt: skip
    assert (status, json.loads(output)["holds"]) == (0, True)


def test_an_earlier_block_is_audited(world: World) -> None:
    """--block audits what the chain said then; what came later is not looked at."""
    block = world.find(RoundFinalised, round=2).block_number
    status, output = call("verify", "--run", world.folder, "--block", block, "--json")
    document = json.loads(output)
    assert (status, document["block"]["number"]) == (0, block)
    assert [each["round"] for each in document["rounds"]] == [1, 2]


def test_rounds_are_selected(world: World, store: Path) -> None:
    """--rounds leaves the stored evidence of other rounds alone."""
    shutil.rmtree(store / "objects")
    target = ObjectStore(store)
    for node in range(3):
        for leaf in world.leaves(2, node):
            target.put(ObjectStore(world.store).get(leaf))
    for leaf in world.sum_leaves(2):
        target.put(ObjectStore(world.store).get(leaf))
    options = ("verify", "--run", world.folder, "--store", store, "--json", "--rounds")
    status, output = call(*options, "2")
    assert (status, json.loads(output)["selected_rounds"]) == (0, "2")
    assert call(*options, "1-2")[0] == 1


def test_rounds_that_are_none_are_no_audit(world: World) -> None:
    """A range that the ledger does not have ends the root command with 2, and nothing is said to hold."""
    command = [sys.executable, "-m", "fedproof", "audit", "verify", "--run", str(world.folder)]
    done = subprocess.run(
        [*command, "--rounds", "7"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --rounds: expected some of the ledger's rounds 1 to 4, got 7\n"


def test_another_policy_is_refused(world: World, tmp_path: Path) -> None:
    """A policy document that the ledger never adopted ends with 1, naming its file."""
    path = tmp_path / "other.toml"
    path.write_text((world.folder / "policy.toml").read_text().replace("momentum = 0.0", "momentum = 0.5"))
    status, output = call("verify", "--run", world.folder, "--policy", path, "--json")
    first = json.loads(output)["first_failure"]
    assert (status, first["check"]) == (1, 3)
    assert "other.toml" in first["field"]


def test_an_address_without_code_fails_check_1(world: World) -> None:
    """A contract address without code ends with 1 at check 1, and nothing else counts as done."""
    status, output = call(
        "verify", "--rpc-url", world.endpoint.url, "--contract", "0x" + "11" * 20, "--store", world.store,
        "--json",
    )  # fmt: skip
    document = json.loads(output)
    assert (status, document["first_failure"]["check"]) == (1, 1)
    assert document["chain_id"] == world.evidence.chain_id
    assert document["first_failure"]["got"] == "no code at that address"
    assert {check["state"] for check in document["checks"][1:]} == {"not done"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected --run DIR, or --rpc-url URL and --contract ADDRESS, got neither"),
        (("--rpc-url", "http://127.0.0.1:1"), "one of the latter two"),
        (("--run", "/nowhere"), r"run\.json: expected the file that describes a run"),
        (("--rpc-url", "ftp://x", "--contract", "0x" + "11" * 20), "expected an http"),
        (("--rpc-url", "http://127.0.0.1:1", "--contract", "0x11"), "--contract: expected an address"),
    ],
)
def test_wrong_usage_is_explained(arguments: tuple[str, ...], message: str) -> None:
    """What cannot be audited is refused with what was expected; the root command ends with 2."""
    with pytest.raises(FedproofError, match=message):
        call("verify", *arguments)


def test_a_missing_store_is_refused(world: World, tmp_path: Path) -> None:
    """A store that is no folder is the user's mistake, not the aggregator's."""
    with pytest.raises(ConfigurationError, match="--store: expected the folder"):
        call("verify", "--run", world.folder, "--store", tmp_path / "none")


# the chain


def test_an_ended_chain_is_served_from_its_journal(run: Path) -> None:
    """When nobody answers, a copy of the run's journal is served for the audit, and left as it was."""
    journal = run / "chain" / "blocks.jsonl"
    before = journal.read_bytes()
    edit_run(run, rpc_url="http://127.0.0.1:1")
    status, output = call("verify", "--run", run, "--json")
    document = json.loads(output)
    assert (status, document["holds"]) == (0, True)
    assert document["notes"] == [
        f"http://127.0.0.1:1 does not answer; auditing the chain's journal in {run / 'chain'} instead"
    ]
    assert journal.read_bytes() == before


def test_a_chain_without_the_contract_is_not_mistaken_for_the_runs(run: Path, other_chain: str) -> None:
    """A fresh development chain on the same port is noticed, and the journal is audited instead."""
    with open_chain(load_run(edit_run(run, rpc_url=other_chain))) as (endpoint, note):
        assert endpoint.url != other_chain
        assert "got no code" in note


def test_another_chain_without_a_journal_is_refused(run: Path, other_chain: str) -> None:
    """An endpoint that serves another chain than the run's is refused when there is no journal."""
    chain = open_chain(load_run(edit_run(run, rpc_url=other_chain, chain_id=1, chain=None)))
    with pytest.raises(ConfigurationError, match="expected chain 1, got chain 31337"), chain:
        pass


def test_an_unreachable_chain_without_a_journal_is_refused(run: Path) -> None:
    """Nobody answers, and there is no journal: the message says what was tried."""
    chain = open_chain(load_run(edit_run(run, rpc_url="http://127.0.0.1:1", chain=None)))
    with pytest.raises(LedgerUnreachable, match=r"127\.0\.0\.1:1: expected an answer"), chain:
        pass


def test_a_broken_journal_is_explained(run: Path) -> None:
    """A journal that is none is refused with what the chain said about it."""
    (run / "chain" / "blocks.jsonl").write_text("not a journal\n")
    chain = serve_journal(run / "chain")
    with pytest.raises(ConfigurationError, match="expected a development chain's journal"), chain:
        pass


def test_a_journal_that_cannot_be_served_names_what_to_install(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the auditor's packages alone, an ended chain's journal is refused, naming the missing extra."""
    edit_run(run, rpc_url="http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "eth_tester", None)  # as if it were not installed
    with pytest.raises(ConfigurationError, match=r"expected eth-tester, .* pip install '\.\[devchain\]'$"):
        call("history", "--run", run)


def test_the_served_chain_ends_with_the_audit(run: Path) -> None:
    """Ctrl-C and SIGTERM end the audit, and the chain that it started."""
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        script = (
            "import sys, time\n"
            "from pathlib import Path\n"
            "from fedproof_auditor.chain import serve_journal\n"
            "try:\n"
            "    with serve_journal(Path(sys.argv[1])) as url:\n"
            "        print(url, flush=True)\n"
            "        time.sleep(60)\n"
            "except KeyboardInterrupt:\n"
            "    sys.exit(130)\n"
        )
        audit = subprocess.Popen(
            [sys.executable, "-c", script, str(run / "chain")], stdout=subprocess.PIPE, text=True
        )
        assert audit.stdout is not None
        with audit.stdout as output:
            assert output.readline().startswith("http://127.0.0.1:")
            children = Path(f"/proc/{audit.pid}/task/{audit.pid}/children").read_text().split()
            assert len(children) == 1
            audit.send_signal(number)
            assert audit.wait(timeout=30) == status
        assert not is_alive(int(children[0])), "the chain outlived the audit"


def is_alive(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# history


def test_the_history_is_shown_line_by_line(world: World) -> None:
    """Without a terminal each event is a plain line."""
    status, output = call("history", "--run", world.folder)
    lines = output.splitlines()
    assert (status, len(lines)) == (0, len(world.evidence.events))
    assert "UpdateCommitted  1  hospital-a  update_root=0x" in output


def test_the_history_is_filtered(world: World) -> None:
    """Round, node by name, and kind narrow the history down; --json prints an object a line, with gas."""
    status, output = call(
        "history", "--run", world.folder, "--round", 2, "--node", NAMES[1], "--kind", "UpdateCommitted",
        "--json",
    )  # fmt: skip
    (line,) = output.splitlines()
    event = json.loads(line)
    assert status == 0
    assert (event["kind"], event["round"], event["name"], event["examples"]) == (
        "UpdateCommitted", 2, NAMES[1], 110,
    )  # fmt: skip
    assert 20_000 < event["gas"] < 40_000


def test_an_unknown_node_is_explained(world: World) -> None:
    """A name that nobody has is refused with the names that there are."""
    with pytest.raises(ConfigurationError, match=r"--node: .*hospital-a.*got 'hospital-x'"):
        call("history", "--run", world.folder, "--node", "hospital-x")


def test_the_root_command_ends_with_2(tmp_path: Path) -> None:
    """Through `fedproof`, an audit that cannot be made ends with status 2 and a message on standard error."""
    command = [sys.executable, "-m", "fedproof", "audit", "verify", "--run", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
