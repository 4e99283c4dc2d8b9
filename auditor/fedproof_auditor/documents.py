"""Check 3: the policy documents that an audit works with are those that the ledger adopted. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fedproof.codec.parameters import CodecParameters
from fedproof.digests import Digest
from fedproof.errors import ConfigurationError, DigestMismatch, MalformedMessage, MissingObject
from fedproof.ledger.events import PolicyAdopted
from fedproof.policy import Policy
from fedproof_auditor.chronicle import Chronicle
from fedproof_auditor.findings import CheckFailed, Failure, Findings, require_equal, spell


@dataclass(frozen=True, slots=True)
class AdoptedPolicy:
    """A policy document that is the ledger's, and the codec's parameters that follow from it."""

    document: Policy
    parameters: CodecParameters

    @property
    def chunks(self) -> int:
        """How many chunks an update has."""
        return self.parameters.chunk_count(self.document.update_length)


class PolicyStore(Protocol):
    """Where policies are read from: `fedproof_auditor.stored.StoredEvidence`."""

    def get_policy(self, digest: Digest) -> bytes:
        """Return the canonical bytes of the policy of that digest, or raise PeerError."""
        ...


def verify_documents(
    chronicle: Chronicle, given: Mapping[str, Policy], store: PolicyStore, findings: Findings
) -> dict[int, AdoptedPolicy]:
    """Return the document of each version that a round or an epoch rests on, collecting failures of check 3.

    1. Each document that was handed in is one that the ledger adopted.
    2. There is a document, handed in or stored, for each version that a round or epoch rests on.
    3. What the contract enforces is what that document says, and the first one's genesis is the first model.

    Args:
        chronicle: what happened.
        given: the documents that were handed in, by where they come from.
        store: may hold others.
        findings: takes the failures.
    """
    adopted = {event.policy.digest for event in chronicle.policies.values()}
    by_digest = read_documents(adopted, store, findings)
    for where, document in given.items():  # 1
        findings.expect(
            document.digest in adopted,
            Failure(
                check=3,
                field=f"digest of {where}",
                expected=" or ".join(spell(each) for each in adopted) or "nothing: no policy was adopted",
                got=spell(document.digest),
            ),
        )
        by_digest[document.digest] = document
    found: dict[int, AdoptedPolicy] = {}
    for version, first_round in _used_versions(chronicle).items():
        event = chronicle.policies.get(version)
        if event is None:
            continue  # a version that was never adopted is a failure of check 4
        with findings.collect():
            present = by_digest.get(event.policy.digest)
            if present is None:  # 2
                raise CheckFailed(
                    Failure(
                        check=3,
                        round=first_round,
                        field=f"document of policy version {version}",
                        expected=f"digest {spell(event.policy.digest)}",
                        got=", ".join(spell(digest) for digest in by_digest) or "no document",
                    )
                )
            verify_terms(present, event, is_first=version == 1 and not chronicle.has_inherited)  # 3
            found[version] = AdoptedPolicy(present, plan_codec(present, version=version))
    return found


def read_documents(digests: Iterable[Digest], store: PolicyStore, findings: Findings) -> dict[Digest, Policy]:
    """Return those of some policies that are stored, collecting failures of check 3."""
    found = {}
    for digest in digests:
        try:
            with findings.collect():
                try:
                    found[digest] = Policy.parse(store.get_policy(digest))
                except (DigestMismatch, MalformedMessage) as error:
                    expected = f"digest {spell(digest)}"
                    failure = Failure(check=3, field="stored policy", expected=expected, got=str(error))
                    raise CheckFailed(failure) from error
        except MissingObject:
            continue  # it may have been handed in
    return found


def verify_terms(document: Policy, event: PolicyAdopted, *, is_first: bool) -> None:
    """Check 3: what the contract enforces of a policy is what the document says.

    Args:
        document: the policy.
        event: its adoption.
        is_first: whether its genesis became the head model.

    Raises:
        CheckFailed: naming the first field that differs.
    """
    rounds, on_chain = document.rounds, event.policy
    terms: list[tuple[str, object, object]] = [
        ("min_contributors", rounds.min_contributors, on_chain.min_contributors),
        ("attestation_quorum", rounds.attestation_quorum, on_chain.attestation_quorum),
        ("max_examples", rounds.max_examples, on_chain.max_examples),
        ("commit_window_s", rounds.commit_window_s, on_chain.commit_window),
        ("aggregate_window_s", rounds.aggregate_window_s, on_chain.aggregate_window),
        ("attest_window_s", rounds.attest_window_s, on_chain.attest_window),
        ("batching", rounds.batching, on_chain.batching),
        ("privacy round_cost", document.privacy.round_cost, on_chain.privacy_cost),
        ("privacy budget", document.privacy.budget, on_chain.privacy_budget),
    ]
    if is_first:
        terms.append(("genesis model", document.model.genesis, event.head_model))
    for name, expected, came in terms:
        require_equal(came, expected, check=3, field=f"policy version {event.version}: {name}")


def plan_codec(document: Policy, *, version: int) -> CodecParameters:
    """Return the codec's parameters for a document.

    Raises:
        CheckFailed: no parameters keep its sums exact.
    """
    try:
        return document.codec_parameters()
    except ConfigurationError as error:
        raise CheckFailed(
            Failure(
                check=3,
                field=f"codec of policy version {version}",
                expected="parameters that keep sums exact",
                got=str(error),
            )
        ) from error


def _used_versions(chronicle: Chronicle) -> dict[int, int | None]:
    """Return the versions that something rests on, each with the first round under it."""
    used: dict[int, int | None] = {}
    for record in sorted(chronicle.rounds.values(), key=lambda each: each.number):
        used.setdefault(record.opened.policy_version, record.number)
    for epoch in chronicle.epochs.values():
        if epoch.policy_version:
            used.setdefault(epoch.policy_version, None)
    return used
