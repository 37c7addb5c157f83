// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title A contract account (ERC-1271) that cannot be relied upon.
///
/// Slot 0 holds the owner and slot 1 the number of a Mode, so that both can be
/// written into a genesis block.
contract BadWallet {
    enum Mode {
        Honest,
        /// Takes whatever it is shown.
        SaysYes,
        /// Takes its owner's signature while no gas is paid for, as in a simulation.
        OnlySimulated,
        /// Takes its owner's signature while nobody has called `close`.
        UntilClosed,
        /// Never ends.
        BurnsGas,
        /// Returns a mebibyte that begins with a yes.
        ReturnsMuch,
        /// Reverts with a mebibyte.
        RevertsMuch,
        /// Returns a yes of four bytes, where a word belongs.
        ReturnsShort,
        /// Returns a yes with something else behind it in the same word.
        ReturnsDirty
    }

    address public owner;
    uint256 public mode; // a whole slot
    bool public closed;

    constructor(address owner_, Mode mode_) {
        owner = owner_;
        mode = uint256(mode_);
    }

    function close() external {
        closed = true;
    }

    function open() external {
        closed = false;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        Mode m = Mode(mode);
        if (m == Mode.SaysYes) return 0x1626ba7e;
        if (m == Mode.OnlySimulated && tx.gasprice != 0) return 0xffffffff;
        if (m == Mode.UntilClosed && closed) return 0xffffffff;
        if (m == Mode.BurnsGas) {
            while (true) {}
        }
        if (signature.length < 65) return 0xffffffff;
        bytes32 r = bytes32(signature[0:32]);
        bytes32 s = bytes32(signature[32:64]);
        address signer = ecrecover(digest, uint8(signature[64]), r, s);
        if (signer == address(0) || signer != owner) return 0xffffffff;
        assembly ("memory-safe") {
            mstore(0, shl(224, 0x1626ba7e))
            switch m
            case 5 { return(0, 1048576) }
            case 6 { revert(0, 1048576) }
            case 7 { return(0, 4) }
            case 8 {
                mstore(0, not(sub(shl(224, 1), 1)))
                mstore(0, or(shl(224, 0x1626ba7e), 1))
                return(0, 32)
            }
        }
        return 0x1626ba7e;
    }
}
