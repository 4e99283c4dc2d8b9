// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";

/// @title A contract as a node, which answers as it is told
contract Wallet is IERC1271 {
    bytes private answer;
    bool private doesRevert;
    uint256 private burnt;

    /// @dev Of each digest the one signature that is taken.
    mapping(bytes32 digest => bytes32) private accepted;

    function accept(bytes32 digest, bytes calldata signature) external {
        accepted[digest] = keccak256(signature);
    }

    function answerWith(bytes calldata answer_) external {
        answer = answer_;
    }

    function revertWith(bytes calldata answer_) external {
        (answer, doesRevert) = (answer_, true);
    }

    /// @dev Spends so much gas, or all that there is, before it answers.
    function burn(uint256 gas_) external {
        burnt = gas_;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        uint256 start = gasleft();
        uint256 wanted = burnt;
        while (wanted != 0 && start - gasleft() < wanted) {}
        bytes memory given = answer;
        if (doesRevert) {
            assembly ("memory-safe") {
                revert(add(given, 0x20), mload(given))
            }
        }
        if (given.length != 0) {
            assembly ("memory-safe") {
                return(add(given, 0x20), mload(given))
            }
        }
        return accepted[digest] == keccak256(signature) ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }

    /// @dev Acts on the ledger as a node.
    function execute(address to, bytes calldata call) external {
        (bool isAccepted,) = to.call(call);
        require(isAccepted);
    }
}
