// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {FederationTest} from "./FederationTest.sol";
import {Wallet} from "./Wallets.sol";
import {IFederation} from "../interfaces/IFederation.sol";

contract SignaturesTest is FederationTest {
    /// @dev The order of secp256k1.
    uint256 private constant N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    Wallet private wallet;

    function setUp() public override {
        super.setUp();
        prepare();
    }

    /// @notice The attestation digest is EIP-712's, of this chain, this ledger, the round, the node and the model.
    function test_hashAttestation_is_typed_data() public {
        bytes32 structHash = keccak256(
            abi.encode(
                keccak256("Attestation(uint24 round,address node,bytes32 modelDigest)"),
                uint256(7),
                nodes[0].addr,
                MODEL
            )
        );
        assertEq(federation.hashAttestation(7, nodes[0].addr, MODEL), hashTyped(structHash));
        vm.chainId(4242);
        assertEq(federation.hashAttestation(7, nodes[0].addr, MODEL), hashTyped(structHash));
    }

    /// @notice So is the commitment digest, with base model, update root, examples and nonce.
    function test_hashCommitment_is_typed_data() public view {
        bytes32 structHash = keccak256(
            abi.encode(
                keccak256(
                    "Commitment(uint24 round,address node,bytes32 baseModel,bytes32 updateRoot,uint32 examples,uint64 nonce)"
                ),
                uint256(7),
                nodes[0].addr,
                GENESIS,
                ROOT,
                uint256(1_000),
                uint256(9)
            )
        );
        assertEq(federation.hashCommitment(7, nodes[0].addr, GENESIS, ROOT, 1_000, 9), hashTyped(structHash));
    }

    /// @notice A node's own signature is its, and nobody else's.
    function testFuzz_isSignedBy_takes_the_signer_alone(bytes32 digest, address other) public view {
        vm.assume(other != nodes[0].addr && other.code.length == 0 && uint160(other) > 0xffff);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(nodes[0].privateKey, digest);
        bytes memory signature = abi.encodePacked(r, s, v);
        assertTrue(federation.isSignedBy(nodes[0].addr, digest, signature));
        assertFalse(federation.isSignedBy(other, digest, signature));
        assertFalse(federation.isSignedBy(nodes[0].addr, keccak256(abi.encode(digest)), signature));
    }

    /// @notice What is no signature is nobody's.
    function testFuzz_isSignedBy_refuses_other_bytes(bytes calldata signature) public view {
        assertFalse(federation.isSignedBy(nodes[0].addr, MODEL, signature));
        assertFalse(federation.isSignedBy(address(0), MODEL, signature));
    }

    /// @notice One signature has one form: high s, 64 bytes, and other v are refused.
    function test_finalise_refuses_other_forms_of_a_signature() public {
        reachAggregated();
        bytes32 digest = federation.hashAttestation(1, nodes[1].addr, MODEL);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(nodes[1].privateKey, digest);
        assertSignatureRefused(abi.encodePacked(r, bytes32(N - uint256(s)), v == 27 ? uint8(28) : uint8(27)));
        (bytes32 short, bytes32 vs) = vm.signCompact(nodes[1].privateKey, digest);
        assertSignatureRefused(abi.encodePacked(short, vs));
        assertSignatureRefused(abi.encodePacked(r, s, v - 27));
        assertSignatureRefused(abi.encodePacked(r, s, v, uint8(0)));
        assertSignatureRefused("");
        finalise(MODEL, 0, 3);
    }

    /// @notice A signature counts for its signer, its round and its model alone.
    function test_finalise_refuses_signatures_of_something_else() public {
        reachAggregated();
        assertSignatureRefused(sign(2, MODEL));
        assertSignatureRefused(sign(1, OTHER_MODEL));
        round = 2;
        bytes memory ofAnotherRound = sign(1, MODEL);
        round = 1;
        assertSignatureRefused(ofAnotherRound);
        IFederation here = federation;
        federation = deploy(address(0));
        bytes memory elsewhere = sign(1, MODEL);
        federation = here;
        assertSignatureRefused(elsewhere);
        vm.chainId(4242);
        bytes memory onAnotherChain = sign(1, MODEL);
        vm.chainId(31337);
        assertSignatureRefused(onAnotherChain);
    }

    /// @notice Signers are listed ascending, and so once.
    function test_finalise_refuses_signers_out_of_order() public {
        reachAggregated();
        address[] memory signers = list(0, 3);
        bytes[] memory signatures = signAll(0, 3, MODEL);
        (signers[2], signatures[2]) = (signers[1], signatures[1]);
        assertFinalisationRefused(
            signers, signatures, abi.encodeWithSelector(IFederation.NotAscending.selector, signers[1], signers[1])
        );
        (signers[1], signatures[1]) = (nodes[4].addr, sign(4, MODEL));
        assertFinalisationRefused(
            signers, signatures, abi.encodeWithSelector(IFederation.NotAscending.selector, signers[1], signers[2])
        );
        signers[0] = address(0);
        assertFinalisationRefused(
            signers, signatures, abi.encodeWithSelector(IFederation.NotAscending.selector, address(0), address(0))
        );
    }

    /// @notice A signer belongs to the cohort, also where it has left since; who joined since does not.
    function test_finalise_takes_signers_of_the_cohort() public {
        reachAggregated();
        leave(nodes[1].addr);
        join(stranger);
        address[] memory signers = new address[](1);
        signers[0] = stranger;
        assertFinalisationRefused(
            signers, new bytes[](1), abi.encodeWithSelector(IFederation.NotInCohort.selector, 1, stranger)
        );
        finalise(MODEL, 0, 3);
    }

    /// @notice Who attested by transaction is not counted again by its signature.
    function test_finalise_refuses_signers_that_attested() public {
        reachAggregated();
        attest(1, MODEL);
        assertFinalisationRefused(
            list(0, 3),
            signAll(0, 3, MODEL),
            abi.encodeWithSelector(IFederation.AlreadyAttested.selector, 1, nodes[1].addr)
        );
        // An attestation of an earlier round does not count as one of this.
        vm.prank(aggregator);
        federation.fail(1, 1);
        open();
        anchor(5);
        seal(list(0, 0), "");
        publish();
        finalise(MODEL, 0, 3);
    }

    /// @notice A contract is a node like any other, and its word is its signature (EIP-1271).
    function test_finalise_takes_the_word_of_a_contract() public {
        (address[] memory signers, bytes[] memory signatures) = reachAggregatedWithWallet();
        wallet.accept(federation.hashAttestation(round, address(wallet), MODEL), "yes");
        vm.expectEmit(address(federation));
        emit IFederation.RoundFinalised(round, MODEL, 0, signers);
        federation.finalise(round, MODEL, signers, signatures);
    }

    /// @notice A contract may think for 450,000 gas, and costs whoever asks 500,000 whatever it does.
    function test_finalise_gives_a_contract_so_much_gas() public {
        (address[] memory signers, bytes[] memory signatures) = reachAggregatedWithWallet();
        wallet.accept(federation.hashAttestation(round, address(wallet), MODEL), "yes");
        wallet.burn(type(uint256).max);
        bytes memory reason = abi.encodeWithSelector(IFederation.InvalidSignature.selector, round, address(wallet));
        uint256 before = gasleft();
        assertFinalisationRefused(signers, signatures, reason);
        assertLt(before - gasleft(), 700_000);
        wallet.burn(500_000);
        assertFinalisationRefused(signers, signatures, reason);
        wallet.burn(480_000);
        federation.finalise(round, MODEL, signers, signatures);
    }

    /// @notice Of a long answer the first word counts.
    function test_finalise_reads_one_word_of_a_contract() public {
        (address[] memory signers, bytes[] memory signatures) = reachAggregatedWithWallet();
        wallet.answerWith(abi.encodePacked(bytes32(IERC1271.isValidSignature.selector), new bytes(4096)));
        federation.finalise(round, MODEL, signers, signatures);
    }

    /// @notice A contract that refuses, reverts or answers otherwise than EIP-1271 has not signed.
    function test_finalise_refuses_other_answers_of_a_contract() public {
        (address[] memory signers, bytes[] memory signatures) = reachAggregatedWithWallet();
        bytes memory reason = abi.encodeWithSelector(IFederation.InvalidSignature.selector, round, address(wallet));
        bytes4 magic = IERC1271.isValidSignature.selector;
        assertFinalisationRefused(signers, signatures, reason);
        wallet.accept(federation.hashAttestation(round, address(wallet), OTHER_MODEL), "yes");
        assertFinalisationRefused(signers, signatures, reason);
        wallet.answerWith(abi.encodePacked(magic));
        assertFinalisationRefused(signers, signatures, reason);
        wallet.answerWith(abi.encode(uint256(1)));
        assertFinalisationRefused(signers, signatures, reason);
        wallet.answerWith(abi.encode(uint256(bytes32(magic)) | 1));
        assertFinalisationRefused(signers, signatures, reason);
        wallet.answerWith(abi.encodePacked(bytes32(0), magic));
        assertFinalisationRefused(signers, signatures, reason);
        wallet.revertWith(abi.encode(magic));
        assertFinalisationRefused(signers, signatures, reason);
    }

    /// @dev The wallet is a node of the round, and one of the three signers. Nobody committed by transaction.
    function reachAggregatedWithWallet() private returns (address[] memory signers, bytes[] memory signatures) {
        // Above all others, so that the list stays ascending.
        wallet = Wallet(address(type(uint160).max));
        vm.etch(address(wallet), vm.getDeployedCode("Wallets.sol:Wallet"));
        wallet.execute(address(federation), abi.encodeCall(IFederation.register, (ROOT, ROOT, 0)));
        admit(address(wallet));
        leave(nodes[4].addr);
        renewEpoch();
        open();
        wallet.execute(address(federation), abi.encodeCall(IFederation.commit, (round, ROOT, 1)));
        anchor(4);
        signers = new address[](1);
        signers[0] = address(wallet);
        seal(signers, new bytes(1));
        publish();
        signers = list(0, 3);
        signatures = signAll(0, 3, MODEL);
        (signers[2], signatures[2]) = (address(wallet), bytes("yes"));
    }

    /// @dev In the place of node 1's signature, among three.
    function assertSignatureRefused(bytes memory signature) private {
        bytes[] memory signatures = signAll(0, 3, MODEL);
        signatures[1] = signature;
        assertFinalisationRefused(
            list(0, 3), signatures, abi.encodeWithSelector(IFederation.InvalidSignature.selector, 1, nodes[1].addr)
        );
    }

    function assertFinalisationRefused(address[] memory signers, bytes[] memory signatures, bytes memory reason)
        private
    {
        assertRefused(stranger, abi.encodeCall(IFederation.finalise, (round, MODEL, signers, signatures)), reason);
    }

    function hashTyped(bytes32 structHash) private view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("fedproof"),
                keccak256("1"),
                block.chainid,
                address(federation)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }
}
