// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {FederationTest} from "./FederationTest.sol";
import {IFederation} from "../interfaces/IFederation.sol";

contract PolicyTest is FederationTest {
    /// @notice A policy's terms are those of the next round, and the first one brings the first model.
    function test_adoptPolicy_sets_the_terms() public {
        IFederation.Policy memory policy = makePolicy();
        policy.privacyCost = 7;
        policy.privacyBudget = 70;
        vm.expectEmit(address(federation));
        emit IFederation.PolicyAdopted(1, policy, GENESIS);
        adopt(policy);

        IFederation.State memory expected = IFederation.State({
            policyVersion: 1,
            epoch: 0,
            membership: 0,
            admitted: 0,
            isEpochStale: false,
            isAccounted: true,
            batching: true,
            minContributors: 2,
            attestationQuorum: 3,
            maxExamples: 1_000,
            commitWindow: COMMIT_WINDOW,
            aggregateWindow: AGGREGATE_WINDOW,
            attestWindow: ATTEST_WINDOW
        });
        assertEq(abi.encode(federation.state()), abi.encode(expected));
        assertEq(abi.encode(federation.privacy()), abi.encode(IFederation.Privacy({cost: 7, budget: 70, spent: 0})));
        assertEq(federation.policyDigest(), policy.digest);
        assertEq(federation.headModel(), GENESIS);
    }

    /// @notice A later policy replaces all terms, and cannot replace the head model.
    function test_adoptPolicy_keeps_the_head() public {
        adopt(makePolicy());
        IFederation.Policy memory policy = makePolicy();
        policy.digest = keccak256("second policy");
        policy.batching = false;
        policy.attestWindow = COMMIT_WINDOW;
        vm.expectEmit(address(federation));
        emit IFederation.PolicyAdopted(2, policy, GENESIS);
        vm.prank(admin);
        federation.adoptPolicy(policy, OTHER_MODEL);
        assertEq(federation.headModel(), GENESIS);
        assertEq(federation.policyDigest(), policy.digest);
        assertFalse(federation.state().batching);
        assertFalse(federation.state().isAccounted);
        assertEq(federation.state().attestWindow, COMMIT_WINDOW);

        vm.prank(admin);
        federation.adoptPolicy(policy, 0);
        assertEq(federation.state().policyVersion, 3);
    }

    /// @notice A policy names its document, and the first one a model.
    function test_adoptPolicy_refuses_zero_digests() public {
        bytes memory reason = abi.encodeWithSelector(IFederation.ZeroDigest.selector);
        IFederation.Policy memory policy = makePolicy();
        assertRefused(admin, abi.encodeCall(IFederation.adoptPolicy, (policy, 0)), reason);
        policy.digest = 0;
        assertRefused(admin, abi.encodeCall(IFederation.adoptPolicy, (policy, GENESIS)), reason);
    }

    /// @notice Each term has a least value: it passes, and one less does not.
    function test_adoptPolicy_refuses_terms_below_the_least() public {
        IFederation.Policy memory policy = makePolicy();
        policy.minContributors = 1;
        assertInvalid(policy);
        policy.minContributors = 2;
        policy.attestationQuorum = 0;
        assertInvalid(policy);
        policy.attestationQuorum = 1;
        policy.maxExamples = 0;
        assertInvalid(policy);
        policy.maxExamples = 1;
        policy.commitWindow = 0;
        assertInvalid(policy);
        policy.commitWindow = 2;
        policy.aggregateWindow = 0;
        assertInvalid(policy);
        policy.aggregateWindow = 1;
        policy.attestWindow = 0;
        assertInvalid(policy);
        policy.attestWindow = 1;
        adopt(policy);

        policy.batching = false;
        policy.commitWindow = 0;
        assertInvalid(policy);
        policy.commitWindow = 1;
        adopt(policy);
    }

    /// @notice What a round costs is counted against a budget: there is no cost without one.
    function test_adoptPolicy_refuses_a_privacy_cost_without_a_budget() public {
        IFederation.Policy memory policy = makePolicy();
        policy.privacyCost = 1;
        assertInvalid(policy);
        policy.privacyBudget = 1;
        adopt(policy);
        policy.privacyCost = 0;
        adopt(policy);
        policy.privacyBudget = 0;
        adopt(policy);
    }

    /// @notice A batch leaves nodes some time to commit by themselves.
    function test_adoptPolicy_bounds_the_attest_window_of_batches() public {
        IFederation.Policy memory policy = makePolicy();
        policy.attestWindow = COMMIT_WINDOW;
        assertInvalid(policy);
        policy.attestWindow = COMMIT_WINDOW - 1;
        adopt(policy);
        policy.batching = false;
        policy.attestWindow = type(uint24).max;
        adopt(policy);
    }

    /// @notice A round under way keeps the terms it opened with.
    function test_adoptPolicy_leaves_the_round_its_terms() public {
        prepare();
        open();
        bytes memory before = abi.encode(federation.currentRound());
        IFederation.Policy memory policy = makePolicy();
        policy.minContributors = 5;
        policy.attestationQuorum = 5;
        policy.maxExamples = 1;
        policy.aggregateWindow = 1;
        policy.attestWindow = 1;
        policy.batching = false;
        adopt(policy);
        assertEq(abi.encode(federation.currentRound()), before);

        commitFirst(2);
        anchor(3);
        seal(list(0, 2), new bytes(2));
        assertEq(federation.currentRound().deadline, vm.getBlockTimestamp() + AGGREGATE_WINDOW);
        publish();
        assertEq(federation.currentRound().deadline, vm.getBlockTimestamp() + ATTEST_WINDOW);
        finalise(MODEL, 0, 3);
    }

    /// @notice An admitted node agrees to the newest policy.
    function test_approvePolicy_records_an_agreement() public {
        prepare();
        vm.expectEmit(address(federation));
        emit IFederation.PolicyApproved(1, nodes[0].addr, keccak256("policy"));
        vm.prank(nodes[0].addr);
        federation.approvePolicy(1, keccak256("policy"));
    }

    /// @notice Nobody agrees to another policy than the newest.
    function test_approvePolicy_refuses_other_policies() public {
        join(nodes[0].addr);
        bytes32 digest = keccak256("policy");
        assertRefused(nodes[0].addr, abi.encodeCall(IFederation.approvePolicy, (0, bytes32(0))), wrongPolicy(0, 0, 0));
        adopt(makePolicy());
        assertRefused(nodes[0].addr, abi.encodeCall(IFederation.approvePolicy, (1, ROOT)), wrongPolicy(1, digest, ROOT));
        assertRefused(
            nodes[0].addr, abi.encodeCall(IFederation.approvePolicy, (2, digest)), wrongPolicy(1, digest, digest)
        );
        assertRefused(
            nodes[0].addr, abi.encodeCall(IFederation.approvePolicy, (0, digest)), wrongPolicy(1, digest, digest)
        );
        assertRefused(
            stranger,
            abi.encodeCall(IFederation.approvePolicy, (1, digest)),
            abi.encodeWithSelector(IFederation.NotAdmitted.selector, stranger, IFederation.MemberStatus.None)
        );
    }

    function assertInvalid(IFederation.Policy memory policy) private {
        assertRefused(
            admin,
            abi.encodeCall(IFederation.adoptPolicy, (policy, GENESIS)),
            abi.encodeWithSelector(IFederation.InvalidPolicy.selector)
        );
    }

    function wrongPolicy(uint24 version, bytes32 expected, bytes32 actual) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IFederation.WrongPolicy.selector, version, expected, actual);
    }
}
