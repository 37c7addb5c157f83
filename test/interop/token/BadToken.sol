// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title A token that can be paid with in every way, and misbehaves in one.
///
/// Slot 5 holds the way, the number of a Mode, so that it can be written into a
/// genesis block; slots 0 to 4 are those of TestTether and the used authorizations.
/// Signatures are not checked: that is not what it is for.
contract BadToken {
    enum Mode {
        Honest,
        /// Nothing moves, nothing is written, and nothing is reverted.
        Silent,
        /// Nothing moves, and the call returns false.
        SaysNo,
        /// A hundredth stays with the owner, and the event says so.
        TakesFee,
        /// Another contract writes the event. Nothing moves.
        ForgedEvent,
        /// Calls what `hook` holds in the middle of each transfer, once.
        Reenters,
        /// Everybody has all the money in the world, if asked.
        LiesInBalance,
        /// Its decimals are another number in each block.
        ChangesDecimals,
        /// An authorization can be used again, for nothing, and counts as unused.
        ForgetsNonces,
        /// Never ends.
        BurnsGas,
        /// Returns a mebibyte.
        ReturnsMuch,
        /// Works while no gas is paid for, as in a simulation, and else is Silent.
        OnlySimulated,
        /// As OnlySimulated, but reverts.
        OnlySimulatedReverts
    }

    address public owner;
    uint256 public totalSupply;
    mapping(address => uint256) private _balance;
    mapping(address => mapping(address => uint256)) public allowance;
    mapping(address => mapping(bytes32 => bool)) private _used;
    Mode public mode;
    address private _hookTarget;
    bytes private _hookData;

    string public constant name = "Bad Token";
    string public constant symbol = "BAD";
    string public constant version = "1";

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);
    event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);

    constructor() {
        owner = msg.sender;
    }

    function setMode(Mode mode_) external {
        require(msg.sender == owner, "not the owner");
        mode = mode_;
    }

    function decimals() external view returns (uint8) {
        return mode == Mode.ChangesDecimals ? uint8(block.number) : 6;
    }

    function balanceOf(address account) external view returns (uint256) {
        return mode == Mode.LiesInBalance ? type(uint256).max : _balance[account];
    }

    function authorizationState(address authorizer, bytes32 nonce) external view returns (bool) {
        return mode != Mode.ForgetsNonces && _used[authorizer][nonce];
    }

    /// Anyone may set what is called in the middle of the next transfer.
    function hook(address target, bytes calldata data) external {
        _hookTarget = target;
        _hookData = data;
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    function permit(address holder, address spender, uint256 value, uint256, uint8, bytes32, bytes32) external {
        allowance[holder][spender] = value;
        emit Approval(holder, spender, value);
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        uint256 allowed = allowance[from][msg.sender];
        require(value <= allowed, "ERC20: transfer amount exceeds allowance");
        if (allowed != type(uint256).max) allowance[from][msg.sender] = allowed - value;
        _move(from, to, value);
        return mode != Mode.SaysNo;
    }

    function transferWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256,
        uint256,
        bytes32 nonce,
        uint8,
        bytes32,
        bytes32
    ) external returns (bool) {
        return _authorized(from, to, value, nonce);
    }

    function transferWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256,
        uint256,
        bytes32 nonce,
        bytes calldata
    ) external returns (bool) {
        return _authorized(from, to, value, nonce);
    }

    // ---- inside ----

    function _authorized(address from, address to, uint256 value, bytes32 nonce) private returns (bool) {
        if (mode == Mode.Silent || mode == Mode.SaysNo) return mode != Mode.SaysNo;
        if (_used[from][nonce]) {
            require(mode == Mode.ForgetsNonces, "authorization is used or canceled");
            return true;
        }
        _used[from][nonce] = true;
        emit AuthorizationUsed(from, nonce);
        _move(from, to, value);
        return true;
    }

    function _move(address from, address to, uint256 value) private {
        bool simulated = tx.gasprice == 0 || block.basefee == 0;
        if (mode == Mode.Silent || mode == Mode.SaysNo) return;
        if (mode == Mode.OnlySimulated && !simulated) return;
        require(mode != Mode.OnlySimulatedReverts || simulated, "not now");
        if (mode == Mode.ForgedEvent) {
            new Forger(from, to, value);
            return;
        }
        if (mode == Mode.BurnsGas) {
            while (true) {}
        }
        if (mode == Mode.Reenters && _hookTarget != address(0)) {
            address target = _hookTarget;
            _hookTarget = address(0);
            (bool ok,) = target.call(_hookData);
            require(ok, "the hook failed");
        }
        require(value <= _balance[from], "ERC20: transfer amount exceeds balance");
        _balance[from] -= value;
        if (mode == Mode.TakesFee) {
            uint256 fee = value / 100;
            _balance[owner] += fee;
            emit Transfer(from, owner, fee);
            value -= fee;
        }
        _balance[to] += value;
        emit Transfer(from, to, value);
        if (mode == Mode.ReturnsMuch) {
            assembly ("memory-safe") {
                return(0, 1048576)
            }
        }
    }
}

/// @title Writes the event of a transfer that nobody made.
contract Forger {
    event Transfer(address indexed from, address indexed to, uint256 value);

    constructor(address from, address to, uint256 value) {
        emit Transfer(from, to, value);
    }
}
