// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {FederationTest} from "./FederationTest.sol";

contract InclusionProofTest is FederationTest {
    /// @dev Certificate Transparency's eight leaves, and the digests of their trees (tests/vectors/merkle.json).
    bytes[] private leaves = [
        bytes(""),
        hex"00",
        hex"10",
        hex"2021",
        hex"3031",
        hex"40414243",
        hex"5051525354555657",
        hex"606162636465666768696a6b6c6d6e6f"
    ];
    bytes32 private constant ROOT_OF_EIGHT = 0x5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328;
    bytes32 private constant ROOT_OF_FIVE = 0x4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4;

    /// @notice The usual trees, with paths written out by hand: of a first, a last and a lonely leaf.
    function test_isIncluded_takes_known_paths() public view {
        bytes32[] memory path = new bytes32[](3);
        path[0] = 0x96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7;
        path[1] = node(leafDigest(2), leafDigest(3));
        path[2] = node(node(leafDigest(4), leafDigest(5)), node(leafDigest(6), leafDigest(7)));
        assertTrue(federation.isIncluded(ROOT_OF_EIGHT, 8, 0, leaves[0], path));

        path[0] = 0xb08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f;
        path[1] = node(leafDigest(4), leafDigest(5));
        path[2] = 0xd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7;
        assertTrue(federation.isIncluded(ROOT_OF_EIGHT, 8, 7, leaves[7], path));

        path = new bytes32[](1);
        path[0] = 0xd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7;
        assertTrue(federation.isIncluded(ROOT_OF_FIVE, 5, 4, leaves[4], path));
    }

    /// @notice A tree of one leaf has an empty path.
    function test_isIncluded_takes_a_single_leaf() public view {
        bytes32 root = 0x6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d;
        assertTrue(federation.isIncluded(root, 1, 0, "", new bytes32[](0)));
        assertFalse(federation.isIncluded(root, 1, 0, hex"00", new bytes32[](0)));
        assertFalse(federation.isIncluded(root, 1, 0, "", new bytes32[](1)));
        assertFalse(federation.isIncluded(root, 1, 1, "", new bytes32[](0)));
        assertFalse(federation.isIncluded(root, 0, 0, "", new bytes32[](0)));
        assertFalse(federation.isIncluded(root, 2, 0, "", new bytes32[](0)));
    }

    /// @notice In the trees of the vectors each leaf stands at its position, and at no other of any size to nine.
    function test_isIncluded_fixes_the_position() public view {
        string memory json = vm.readFile("../tests/vectors/merkle.json");
        for (uint256 size = 1; size <= 8; ++size) {
            bytes32 root = vm.parseJsonBytes32(json, string.concat(".trees[", vm.toString(size), "].root"));
            assertEq(treeDigest(0, size), root);
            for (uint256 index; index < size; ++index) {
                assertStandsOnlyAt(root, size, index);
            }
        }
    }

    /// @notice So it is in the vectors' larger trees, of 9, 16 and 17 leaves.
    function test_isIncluded_takes_larger_trees() public {
        string memory json = vm.readFile("../tests/vectors/merkle.json");
        uint8[3] memory sizes = [9, 16, 17];
        delete leaves;
        for (uint256 i; i < 17; ++i) {
            leaves.push(abi.encodePacked(uint16(i)));
        }
        for (uint256 i; i < 3; ++i) {
            uint256 size = sizes[i];
            bytes32 root = vm.parseJsonBytes32(json, string.concat(".trees[", vm.toString(9 + i), "].root"));
            assertEq(treeDigest(0, size), root);
            for (uint256 index; index < size; ++index) {
                bytes32[] memory path = makePath(0, size, index);
                for (uint256 other; other <= size; ++other) {
                    assertEq(federation.isIncluded(root, size, other, leaves[index], path), other == index);
                }
            }
        }
    }

    /// @notice A path that is too short, too long, or not this leaf's proves nothing.
    function test_isIncluded_refuses_other_paths() public view {
        bytes32[] memory path = makePath(0, 8, 3);
        assertTrue(federation.isIncluded(ROOT_OF_EIGHT, 8, 3, leaves[3], path));
        for (uint256 i; i < 3; ++i) {
            bytes32[] memory other = makePath(0, 8, 3);
            other[i] = bytes32(uint256(other[i]) ^ 1);
            assertFalse(federation.isIncluded(ROOT_OF_EIGHT, 8, 3, leaves[3], other));
        }
        bytes32[] memory long = new bytes32[](4);
        bytes32[] memory short = new bytes32[](2);
        for (uint256 i; i < 3; ++i) {
            long[i] = path[i];
            if (i < 2) short[i] = path[i];
        }
        assertFalse(federation.isIncluded(ROOT_OF_EIGHT, 8, 3, leaves[3], long));
        assertFalse(federation.isIncluded(ROOT_OF_EIGHT, 8, 3, leaves[3], short));
        assertFalse(federation.isIncluded(ROOT_OF_EIGHT, 8, 3, leaves[2], path));
        assertFalse(federation.isIncluded(ROOT_OF_FIVE, 8, 3, leaves[3], path));
    }

    /// @notice An inner node is no leaf: its bytes are hashed with another prefix.
    function test_isIncluded_refuses_inner_nodes_as_leaves() public view {
        bytes memory inner = bytes.concat(leafDigest(0), leafDigest(1));
        bytes32[] memory path = new bytes32[](2);
        path[0] = node(leafDigest(2), leafDigest(3));
        path[1] = treeDigest(4, 4);
        assertFalse(federation.isIncluded(ROOT_OF_EIGHT, 4, 0, inner, path));
        assertFalse(federation.isIncluded(ROOT_OF_EIGHT, 8, 0, inner, path));
    }

    /// @notice No path of any length makes another leaf stand in the tree.
    function testFuzz_isIncluded_refuses_random_paths(
        uint256 size,
        uint256 index,
        bytes calldata leaf,
        bytes32[] calldata path
    ) public view {
        assertFalse(federation.isIncluded(ROOT_OF_EIGHT, size, index, leaf, path));
    }

    /// @notice Positions beyond the largest size overflow nothing.
    function test_isIncluded_takes_the_largest_sizes() public view {
        uint256 most = type(uint256).max;
        assertFalse(federation.isIncluded(ROOT_OF_EIGHT, most, most, leaves[0], new bytes32[](3)));
        assertFalse(federation.isIncluded(ROOT_OF_EIGHT, most, most - 1, leaves[0], new bytes32[](300)));
    }

    function assertStandsOnlyAt(bytes32 root, uint256 size, uint256 index) private view {
        bytes32[] memory path = makePath(0, size, index);
        for (uint256 otherSize; otherSize <= 9; ++otherSize) {
            for (uint256 other; other <= 9; ++other) {
                bool isIncluded = federation.isIncluded(root, otherSize, other, leaves[index], path);
                if (otherSize == size) assertEq(isIncluded, other == index);
                else if (isIncluded) assertTrue(isSamePath(size, index, otherSize, other));
            }
        }
    }

    /// @dev A path fixes the turns to the root and not the size: trees of other sizes have the same for some leaves.
    function isSamePath(uint256 size, uint256 index, uint256 otherSize, uint256 other) private pure returns (bool) {
        return keccak256(makeTurns(size, index)) == keccak256(makeTurns(otherSize, other));
    }

    /// @dev For each sibling from the leaf to the root, whether it stands on the left.
    function makeTurns(uint256 size, uint256 index) private pure returns (bytes memory turns) {
        while (size > 1) {
            uint256 half = splitOf(size);
            turns = bytes.concat(index < half ? bytes1(0) : bytes1(uint8(1)), turns);
            (size, index) = index < half ? (half, index) : (size - half, index - half);
        }
    }

    /// @dev RFC 6962, section 2.1.1.
    function makePath(uint256 start, uint256 size, uint256 index) private view returns (bytes32[] memory path) {
        if (size == 1) return path;
        uint256 half = splitOf(size);
        bytes32[] memory lower =
            index < half ? makePath(start, half, index) : makePath(start + half, size - half, index - half);
        path = new bytes32[](lower.length + 1);
        for (uint256 i; i < lower.length; ++i) {
            path[i] = lower[i];
        }
        path[lower.length] = index < half ? treeDigest(start + half, size - half) : treeDigest(start, half);
    }

    /// @dev RFC 6962, section 2.1.
    function treeDigest(uint256 start, uint256 size) private view returns (bytes32) {
        if (size == 1) return leafDigest(start);
        uint256 half = splitOf(size);
        return node(treeDigest(start, half), treeDigest(start + half, size - half));
    }

    /// @dev The largest power of two that is smaller.
    function splitOf(uint256 size) private pure returns (uint256 half) {
        half = 1;
        while (2 * half < size) half *= 2;
    }

    function leafDigest(uint256 index) private view returns (bytes32) {
        return sha256(bytes.concat(hex"00", leaves[index]));
    }

    function node(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return sha256(bytes.concat(hex"01", left, right));
    }
}
