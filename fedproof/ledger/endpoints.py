"""Several endpoints as one: another one answers where one fails, and enough of them agree where it matters.

If fewer endpoints than have to agree are malicious, then at most they stall their client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from web3 import Web3

from fedproof.errors import ConfigurationError, LedgerError, LedgerUnreachable, Reverted
from fedproof.ledger.answers import quote
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.reverts import decode_revert
from fedproof.ledger.roster import Roster
from fedproof.ledger.url import drop_doubles, name_endpoints

Answer = TypeVar("Answer")

# How far behind the others an endpoint may be.
MOST_BLOCKS_BEHIND = 8


def connect_endpoints(
    urls: Sequence[str],
    *,
    agreement: int = 1,
    timeout_s: float = 10.0,
    attempts: int = 6,
    receipt_timeout_s: float = 120.0,
) -> Endpoint:
    """Return one or several endpoints over HTTP as one; nothing is sent yet.

    Args:
        urls: ``http://`` or ``https://`` addresses, the first preferred.
        agreement: how many have to say the same where it matters.
        timeout_s: for the connection, and for each pause of an answer; a whole one may take thrice it.
        attempts: requests that are made before an endpoint, or all of them, count as unreachable.
        receipt_timeout_s: how long a transaction may take until it is mined.

    Raises:
        ConfigurationError: another kind of address, or fewer addresses than have to agree.
    """
    urls = drop_doubles(urls)
    if not 1 <= agreement <= len(urls):
        raise ConfigurationError(
            f"agreement: expected 1 to {len(urls)}, the number of different addresses in rpc_url, "
            f"got {agreement}"
        )
    if len(urls) == 1:
        return Endpoint.connect(
            urls[0], timeout_s=timeout_s, attempts=attempts, receipt_timeout_s=receipt_timeout_s
        )
    members = [
        Endpoint.connect(url, name=name, timeout_s=timeout_s, attempts=1)
        for url, name in zip(urls, name_endpoints(urls), strict=True)
    ]
    return Endpoints(members, agreement=agreement, attempts=attempts, receipt_timeout_s=receipt_timeout_s)


class Endpoints(Endpoint):
    """Several endpoints as one."""

    def __init__(
        self,
        members: Sequence[Endpoint],
        *,
        agreement: int = 1,
        attempts: int = 6,
        backoff_s: float = 0.25,
        receipt_timeout_s: float = 120.0,
    ) -> None:
        """Put endpoints together.

        Args:
            members: each makes one attempt.
            agreement: how many have to say the same where it matters.
            attempts: how often all of them are asked.
            backoff_s: the first pause between two of these.
            receipt_timeout_s: how long a transaction may take until it is mined.
        """
        self._roster = Roster(members)
        super().__init__(
            members[0].web3,  # for what asks nobody, such as encoding a call
            url=" or ".join(member.url for member in members),
            attempts=attempts,
            backoff_s=backoff_s,
            receipt_timeout_s=receipt_timeout_s,
        )
        self.members = len(members)
        self.agreement = agreement

    def agree(self, what: str, request: Callable[[Web3], Answer]) -> Answer:
        """Return what as many endpoints as have to agree answer alike.

        Raises:
            LedgerUnreachable: too few answer.
            LedgerError: too few answer alike; the message says who says what.
        """
        return self._insist(lambda: self._agree_once(what, request), on=LedgerError)

    def _agree_once(self, what: str, request: Callable[[Web3], Answer]) -> Answer:
        said: dict[Endpoint, Answer] = {}
        silent: dict[Endpoint, LedgerError] = {}
        for member in self._roster.in_order():
            try:
                answer = said[member] = member.ask(what, lambda member=member: request(member.web3))  # type: ignore[misc]
            except LedgerUnreachable as error:
                silent[member] = error
                self._roster.rest(member, "endpoint_silent", str(error))
                continue
            except LedgerError as error:
                silent[member] = error  # such as a block that it does not have yet
                continue
            if sum(other == answer for other in said.values()) == self.agreement:
                self._judge(said, answer, what=what)
                return answer
        everybody: dict[Endpoint, object] = {**said, **silent}
        spelled = "; ".join(f"{member.url}: {_spell(answer)}" for member, answer in everybody.items())
        kind = LedgerUnreachable if len(said) < self.agreement else LedgerError
        raise kind(
            f"{what}: expected {self.agreement} of {self.members} endpoints to say the same, got {spelled}"
        )

    def confirm(self, what: str, request: Callable[[Web3], Answer | None]) -> Answer | None:
        """Return what as many endpoints as have to agree answer alike, or None while too few do.

        Raises:
            LedgerUnreachable: too few answer.
        """
        answers = self._ask_each(what, lambda member: member.ask(what, lambda: request(member.web3)))
        said = {member: answer for member, answer in answers.items() if answer is not None}
        for answer in said.values():
            if sum(other == answer for other in said.values()) >= self.agreement:
                self._judge(said, answer, what=what)
                return answer
        return None

    def broadcast(self, what: str, request: Callable[[Web3], object]) -> int:
        """Make a request of every endpoint, and return how many took it; those that rest count when needed.

        Raises:
            LedgerUnreachable: nobody took it, and an endpoint may have got the request all the same.
            LedgerError: all refuse.
        """
        return self._insist(lambda: self._broadcast_once(what, request))

    def _broadcast_once(self, what: str, request: Callable[[Web3], object]) -> int:
        taken = 0
        failures: list[LedgerError] = []
        awake = self._roster.awake()
        for member in self._roster.in_order():
            if taken >= self.agreement and member not in awake:
                break
            try:
                member.ask(what, lambda member=member: request(member.web3))  # type: ignore[misc]
                taken += 1
            except LedgerUnreachable as error:
                self._roster.rest(member, "endpoint_silent", str(error))
                failures.append(error)
            except LedgerError as error:
                failures.append(error)
        if not taken:
            is_lost = any(isinstance(error, LedgerUnreachable) for error in failures)
            raise (LedgerUnreachable if is_lost else LedgerError)("; ".join(map(str, failures)))
        return taken

    def poll(self, what: str, request: Callable[[Endpoint], Answer]) -> list[Answer]:
        """Return what the endpoints answer that do not rest, and as many others as are needed.

        Raises:
            Reverted: too few answer, and as many as have to agree say that the contract refuses.
            LedgerUnreachable: too few answer.
            LedgerError: too many answer with an error.
        """
        return list(self._ask_each(what, request).values())

    def height(self, tag: Literal["latest", "finalized"] = "latest") -> int:
        """Return the highest block's number that as many endpoints as have to agree know of.

        Raises:
            LedgerUnreachable: too few answer.
        """
        heights = self._ask_each("eth_blockNumber", lambda member: member.height(tag))
        height = sorted(heights.values(), reverse=True)[self.agreement - 1]
        for member, own in heights.items():
            if own + MOST_BLOCKS_BEHIND < height:
                self._roster.rest(member, "endpoint_lags", f"its newest block is {own}, others know {height}")
        return height

    def _ask_each(self, what: str, request: Callable[[Endpoint], Answer]) -> dict[Endpoint, Answer]:
        """Do what `poll` does, and name who answered."""
        return self._insist(lambda: self._ask_each_once(what, request))

    def _ask_each_once(self, what: str, request: Callable[[Endpoint], Answer]) -> dict[Endpoint, Answer]:
        answers: dict[Endpoint, Answer] = {}
        failures: list[LedgerError] = []
        awake = self._roster.awake()
        for member in self._roster.in_order():
            if len(answers) >= self.agreement and member not in awake:
                break
            try:
                answers[member] = request(member)
            except LedgerUnreachable as error:
                self._roster.rest(member, "endpoint_silent", str(error))
                failures.append(error)
            except LedgerError as error:
                failures.append(error)
        if len(answers) < self.agreement:
            refusals = [error for error in failures if isinstance(error, Reverted)]
            if len(refusals) >= self.agreement:
                raise _choose_refusal(refusals, what=f"{self.url}: {what}")
            silent = sum(isinstance(error, LedgerUnreachable) for error in failures)
            kind = LedgerUnreachable if self.members - silent < self.agreement else LedgerError
            raise kind(
                f"{self.url}: {what}: expected an answer of {self.agreement}, got {len(answers)}: "
                + "; ".join(map(str, failures))
            )
        return answers

    def _insist(self, attempt: Callable[[], Answer], *, on: type[LedgerError] = LedgerUnreachable) -> Answer:
        """Return what an attempt does, made again after a pause where it fails with such an error."""
        pause_s = self._backoff_s
        for _ in range(self._attempts - 1):
            try:
                return attempt()
            except on:
                time.sleep(pause_s)
                pause_s *= 2
        return attempt()

    def distrust(self, reason: str) -> bool:
        """Ask the endpoint last that is asked first now; return whether there was another one."""
        awake = self._roster.awake()
        # What several said alike is no lie of the first: the chain was changing.
        if self.agreement > 1 or not awake:
            return False
        self._roster.rest(awake[0], "endpoint_lies", reason)
        return len(awake) > 1

    def _judge(self, said: dict[Endpoint, Answer], answer: Answer, *, what: str) -> None:
        for member, other in said.items():
            if other == answer:
                self._roster.praise(member)
            else:
                reason = f"{what}: it says {_spell(other)}, {self.agreement} others {_spell(answer)}"
                self._roster.rest(member, "endpoint_disagrees", reason)


def _choose_refusal(refusals: Sequence[Reverted], *, what: str) -> Reverted:
    """Return the reason that most endpoints give, or one without a reason where none is given most often."""
    # Not every endpoint passes on what the contract reverted with; it refused all the same.
    reasons = [each for each in refusals if each.name != "Revert" or each.arguments]
    counts = [sum(_is_same(other, each) for other in reasons) for each in reasons]
    most = max(counts, default=0)
    if counts.count(most) == most > 0:  # as many as give it, so nobody else's is given as often
        return reasons[counts.index(most)]
    return decode_revert(b"", what=what)


def _is_same(refusal: Reverted, other: Reverted) -> bool:
    # The block's time, which some errors carry, is another one where an endpoint lags by a block.
    first, second = ({**error.arguments, "time": None} for error in (refusal, other))
    return (refusal.name, first) == (other.name, second)


def _spell(answer: object) -> str:
    return quote("0x" + answer.hex() if isinstance(answer, bytes) else answer)
