// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title A token for tests that has nothing but ERC-20, and not even all of that.
///
/// It behaves like USDT on Ethereum: no EIP-3009, no EIP-2612, calls that return
/// nothing, and an allowance that can only be changed by way of zero. So it can be
/// paid with through Permit2 only, after an approval. It is worth nothing.
///
/// The code works wherever it is put, as that of TestDollar does, and has the
/// balances and the allowances in the same slots:
///
///   slot 0  owner         address
///   slot 1  totalSupply   uint256
///   slot 2  balanceOf     account => uint256
///   slot 3  allowance     owner => spender => uint256
contract TestTether {
    string public constant name = "Tether USD";
    string public constant symbol = "USDT";
    uint8 public constant decimals = 6;

    address public owner;
    uint256 public totalSupply;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    constructor() {
        owner = msg.sender;
    }

    function mint(address to, uint256 amount) external {
        require(msg.sender == owner, "Ownable: caller is not the owner");
        totalSupply += amount;
        balanceOf[to] += amount;
        emit Transfer(address(0), to, amount);
    }

    function transfer(address to, uint256 value) external {
        _transfer(msg.sender, to, value);
    }

    function approve(address spender, uint256 value) external {
        require(value == 0 || allowance[msg.sender][spender] == 0, "approve: set it to zero first");
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
    }

    function transferFrom(address from, address to, uint256 value) external {
        uint256 allowed = allowance[from][msg.sender];
        require(value <= allowed, "transfer amount exceeds allowance");
        if (allowed != type(uint256).max) allowance[from][msg.sender] = allowed - value;
        _transfer(from, to, value);
    }

    function _transfer(address from, address to, uint256 value) private {
        require(value <= balanceOf[from], "transfer amount exceeds balance");
        balanceOf[from] -= value;
        balanceOf[to] += value;
        emit Transfer(from, to, value);
    }
}
