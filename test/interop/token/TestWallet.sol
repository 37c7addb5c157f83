// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title A contract account (ERC-1271) that takes its owner's signature for its own.
///
/// Slot 0 holds the owner, so that it can be written into a genesis block too. It is
/// lax where USDC is strict (it takes a high s), as many real wallets are.
contract TestWallet {
    address public owner;

    constructor(address owner_) {
        owner = owner_;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        if (signature.length < 65) return 0xffffffff;
        bytes32 r = bytes32(signature[0:32]);
        bytes32 s = bytes32(signature[32:64]);
        address signer = ecrecover(digest, uint8(signature[64]), r, s);
        return signer != address(0) && signer == owner ? bytes4(0x1626ba7e) : bytes4(0xffffffff);
    }
}
