// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {FederationTest} from "./FederationTest.sol";
import {IFederation} from "../interfaces/IFederation.sol";

contract OpeningTest is FederationTest {
    /// @notice A round opens on the head model, with the policy's terms and all admitted nodes.
    function test_openRound_fixes_cohort_and_terms() public {
        prepare();
        uint40 deadline = uint40(vm.getBlockTimestamp() + COMMIT_WINDOW);
        vm.expectEmit(address(federation));
        emit IFederation.RoundOpened(1, 1, 1, GENESIS, deadline);
        open();
        IFederation.Round memory expected = IFederation.Round({
            number: 1,
            phase: IFederation.Phase.Open,
            deadline: deadline,
            cohort: 5,
            committed: 0,
            batched: 0,
            attested: 0,
            minContributors: 2,
            attestationQuorum: 3,
            maxExamples: 1_000,
            aggregateWindow: AGGREGATE_WINDOW,
            attestWindow: ATTEST_WINDOW,
            batching: true
        });
        assertEq(abi.encode(federation.currentRound()), abi.encode(expected));
        for (uint256 i; i < 5; ++i) {
            assertTrue(federation.isInCohort(nodes[i].addr));
        }
        assertFalse(federation.isInCohort(stranger));
    }

    /// @notice A later round starts from nothing, on the model that the one before made the head.
    function test_openRound_starts_from_nothing() public {
        prepare();
        open();
        commitFirst(2);
        anchor(3);
        seal(list(0, 2), new bytes(2));
        publish();
        for (uint256 i; i < 3; ++i) {
            attest(i, MODEL);
        }
        vm.expectEmit(address(federation));
        emit IFederation.RoundOpened(2, 1, 1, MODEL, uint40(vm.getBlockTimestamp() + COMMIT_WINDOW));
        open();
        IFederation.Round memory current = federation.currentRound();
        assertEq(current.committed, 0);
        assertEq(current.batched, 0);
        assertEq(current.attested, 0);
    }

    /// @notice Rounds are numbered without gaps.
    function test_openRound_refuses_other_numbers() public {
        prepare();
        assertOpeningRefused(0, abi.encodeWithSelector(IFederation.WrongRound.selector, 1, 0));
        assertOpeningRefused(2, abi.encodeWithSelector(IFederation.WrongRound.selector, 1, 2));
        open();
        assertOpeningRefused(1, abi.encodeWithSelector(IFederation.WrongRound.selector, 2, 1));
        assertOpeningRefused(3, abi.encodeWithSelector(IFederation.WrongRound.selector, 2, 3));
    }

    /// @notice A round needs a policy, a key, and a key of the present membership.
    function test_openRound_refuses_without_policy_or_key() public {
        for (uint256 i; i < 5; ++i) {
            join(nodes[i].addr);
        }
        assertOpeningRefused(1, abi.encodeWithSelector(IFederation.NoPolicy.selector));
        adopt(makePolicy());
        assertOpeningRefused(1, abi.encodeWithSelector(IFederation.NoEpoch.selector));
        renewEpoch();
        suspend(nodes[4].addr);
        assertOpeningRefused(1, abi.encodeWithSelector(IFederation.StaleEpoch.selector, 1, 6));
        renewEpoch();
        open();
    }

    /// @notice The cohort can reach the fewest contributors: one node less cannot.
    function test_openRound_refuses_a_cohort_below_the_contributors() public {
        IFederation.Policy memory policy = makePolicy();
        policy.minContributors = 6;
        prepare(policy);
        assertOpeningRefused(1, abi.encodeWithSelector(IFederation.QuorumNotReached.selector, 1, 5, 6));
        policy.minContributors = 5;
        adopt(policy);
        open();
    }

    /// @notice The cohort can reach the attestation quorum: one node less cannot.
    function test_openRound_refuses_a_cohort_below_the_quorum() public {
        IFederation.Policy memory policy = makePolicy();
        policy.attestationQuorum = 6;
        prepare(policy);
        assertOpeningRefused(1, abi.encodeWithSelector(IFederation.QuorumNotReached.selector, 1, 5, 6));
        policy.attestationQuorum = 5;
        adopt(policy);
        open();
    }

    /// @notice Two quorums of one cohort share a node: half of it, or less, is no quorum.
    function test_openRound_refuses_an_ambiguous_quorum() public {
        IFederation.Policy memory policy = makePolicy();
        policy.attestationQuorum = 2;
        prepare(policy);
        assertOpeningRefused(1, abi.encodeWithSelector(IFederation.QuorumAmbiguous.selector, 1, 2, 5));
        suspend(nodes[4].addr);
        renewEpoch();
        assertOpeningRefused(1, abi.encodeWithSelector(IFederation.QuorumAmbiguous.selector, 1, 2, 4));
        suspend(nodes[3].addr);
        renewEpoch();
        open();
    }

    /// @notice The budget can be spent to the last unit, and no unit more.
    function test_openRound_spends_the_privacy_budget() public {
        IFederation.Policy memory policy = makePolicy();
        policy.privacyCost = 10;
        policy.privacyBudget = 20;
        prepare(policy);
        vm.expectEmit(address(federation));
        emit IFederation.PrivacySpent(1, 10, 10, 20);
        reachFailed();
        vm.expectEmit(address(federation));
        emit IFederation.PrivacySpent(2, 10, 20, 20);
        reachFailed();
        assertEq(abi.encode(federation.privacy()), abi.encode(IFederation.Privacy({cost: 10, budget: 20, spent: 20})));
        assertOpeningRefused(3, abi.encodeWithSelector(IFederation.BudgetExceeded.selector, 3, 30, 20));
        policy.privacyBudget = 29;
        adopt(policy);
        assertOpeningRefused(3, abi.encodeWithSelector(IFederation.BudgetExceeded.selector, 3, 30, 29));
        policy.privacyBudget = 30;
        adopt(policy);
        open();
        assertEq(federation.privacy().spent, 30);
    }

    /// @notice A sum that 64 bits do not hold is over any budget.
    function test_openRound_counts_privacy_without_overflow() public {
        IFederation.Policy memory policy = makePolicy();
        policy.privacyCost = type(uint64).max;
        policy.privacyBudget = type(uint64).max;
        prepare(policy);
        reachFailed();
        uint256 needed = 2 * uint256(type(uint64).max);
        assertOpeningRefused(
            2, abi.encodeWithSelector(IFederation.BudgetExceeded.selector, 2, needed, type(uint64).max)
        );
    }

    /// @notice Without a budget rounds are not accounted for, and what was spent before stays spent.
    function test_openRound_accounts_for_nothing_without_a_budget() public {
        IFederation.Policy memory policy = makePolicy();
        (policy.privacyCost, policy.privacyBudget) = (10, 10);
        prepare(policy);
        reachFailed();
        (policy.privacyCost, policy.privacyBudget) = (0, 0);
        adopt(policy);
        open();
        assertEq(federation.privacy().spent, 10);
    }

    function assertOpeningRefused(uint24 number, bytes memory reason) private {
        assertRefused(aggregator, abi.encodeCall(IFederation.openRound, (number)), reason);
    }
}
