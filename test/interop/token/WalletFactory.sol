// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {TestWallet} from "./TestWallet.sol";

/// @title Makes contract accounts whose addresses are known before they exist.
contract WalletFactory {
    error Exists();

    function create(address owner) external returns (TestWallet wallet) {
        if (addressOf(owner).code.length > 0) revert Exists();
        return new TestWallet{salt: 0}(owner);
    }

    function addressOf(address owner) public view returns (address) {
        bytes32 code = keccak256(abi.encodePacked(type(TestWallet).creationCode, abi.encode(owner)));
        return address(uint160(uint256(keccak256(abi.encodePacked(bytes1(0xff), address(this), bytes32(0), code)))));
    }

    /// Does what it is told: a factory that an operator should not have allowed.
    function call(address target, bytes calldata data) external {
        (bool ok,) = target.call(data);
        require(ok, "the call failed");
    }
}
