// Holds the test dollar to what USDC does, on a real EVM.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, beforeEach, test } from "node:test";
import {
  bytesToHex,
  concat,
  encodeAbiParameters,
  encodeFunctionData,
  keccak256,
  multicall3Abi,
  numberToHex,
  parseEventLogs,
  parseSignature,
  serializeSignature,
  toEventSelector,
} from "viem";
import { account, artifact, mint, MULTICALL3, startChain, TOKEN } from "../chain.mjs";

const { abi } = artifact("TestDollar");
const owner = account(0);
const payer = account(1);
const payee = account(2);
const relay = account(3); // sends other people's signatures, as a facilitator does
const price = 10_000n;

let chain;
let client;
before(async () => ({ client } = chain = await startChain()));
after(() => chain.stop());

// Each test finds the payer with one dollar and everything else as placed.
let snapshot;
beforeEach(async () => {
  if (snapshot) await client.revert({ id: snapshot });
  else await mint(client, payer.address, 1_000_000n);
  snapshot = await client.snapshot();
});

const read = (functionName, ...args) => client.readContract({ address: TOKEN, abi, functionName, args });
const balance = who => read("balanceOf", who.address ?? who);

async function send(from, functionName, ...args) {
  const { request } = await client.simulateContract({ account: from, address: TOKEN, abi, functionName, args });
  const receipt = await client.waitForTransactionReceipt({ hash: await client.writeContract(request) });
  return parseEventLogs({ abi, logs: receipt.logs }).map(log => ({ name: log.eventName, ...log.args }));
}

const domain = { name: "USDC", version: "2", chainId: 84532, verifyingContract: TOKEN };
const transfer = [
  { name: "from", type: "address" },
  { name: "to", type: "address" },
  { name: "value", type: "uint256" },
  { name: "validAfter", type: "uint256" },
  { name: "validBefore", type: "uint256" },
  { name: "nonce", type: "bytes32" },
];
const types = {
  TransferWithAuthorization: transfer,
  ReceiveWithAuthorization: transfer,
  CancelAuthorization: [
    { name: "authorizer", type: "address" },
    { name: "nonce", type: "bytes32" },
  ],
  Permit: [
    { name: "owner", type: "address" },
    { name: "spender", type: "address" },
    { name: "value", type: "uint256" },
    { name: "nonce", type: "uint256" },
    { name: "deadline", type: "uint256" },
  ],
};
const sign = (primaryType, message, signer = payer) =>
  signer.signTypedData({ domain, types: { [primaryType]: types[primaryType] }, primaryType, message });

const authorization = (changes = {}) => ({
  from: payer.address,
  to: payee.address,
  value: price,
  validAfter: 0n,
  validBefore: 2n ** 40n,
  nonce: bytesToHex(randomBytes(32)),
  ...changes,
});
const vrs = signature => {
  const { v, r, s } = parseSignature(signature);
  return [Number(v), r, s];
};
const pay = (a, ...signature) => send(relay, "transferWithAuthorization", ...Object.values(a), ...signature);
const refused = (promise, reason) => assert.rejects(promise, e => e.message.includes(reason) || assert.fail(e.message));

test("it calls itself what clients take USDC on Base Sepolia for", async () => {
  assert.deepEqual(
    await Promise.all(["name", "symbol", "version", "decimals"].map(f => read(f))),
    ["USDC", "USDC", "2", 6],
  );
  // Published constants of the real deployment.
  assert.equal(
    await read("DOMAIN_SEPARATOR"),
    "0x71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818",
  );
  assert.equal(
    await read("TRANSFER_WITH_AUTHORIZATION_TYPEHASH"),
    "0x7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267",
  );
  assert.equal(
    await read("RECEIVE_WITH_AUTHORIZATION_TYPEHASH"),
    "0xd099cc98ef71107a616c4f0f941f04c322d8e254fe26b3c6668db87aae413de8",
  );
  assert.equal(
    await read("CANCEL_AUTHORIZATION_TYPEHASH"),
    "0x158b0a9edf7a828aad02f63cd515c68ef2f50ba807396f6d12842833a1597429",
  );
  assert.equal(
    await read("PERMIT_TYPEHASH"),
    "0x6e71edae12b1b97f4d1f60370fef10105fa2faae0126114a169c64845d6126c9",
  );
});

test("the selectors and topics are those that facilitators hard-code", () => {
  const args = [payer.address, payee.address, 1n, 0n, 1n, `0x${"00".repeat(32)}`];
  const selector = (...signature) =>
    encodeFunctionData({ abi, functionName: "transferWithAuthorization", args: [...args, ...signature] }).slice(0, 10);
  assert.equal(selector(27, args[5], args[5]), "0xe3ee160e");
  assert.equal(selector("0x00"), "0xcf092995");
  const topic = name => toEventSelector(abi.find(item => item.type === "event" && item.name === name));
  assert.equal(topic("Transfer"), "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
  assert.equal(topic("AuthorizationUsed"), "0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5");
});

test("the storage is where the source says", async () => {
  const slotOf = (key, slot) =>
    keccak256(encodeAbiParameters([{ type: "address" }, { type: "uint256" }], [key, slot]));
  const other = account(5).address;
  await client.setStorageAt({ address: TOKEN, index: slotOf(other, 2n), value: numberToHex(42n, { size: 32 }) });
  assert.equal(await balance(other), 42n);
  await client.setStorageAt({ address: TOKEN, index: 1, value: numberToHex(77n, { size: 32 }) });
  assert.equal(await read("totalSupply"), 77n);
  await client.setStorageAt({ address: TOKEN, index: 0, value: numberToHex(0n, { size: 32 }) });
  await refused(send(owner, "mint", other, 1n), "caller is not the owner");
  assert.deepEqual(
    artifact("TestDollar").storageLayout.map(({ slot, label }) => `${slot} ${label}`),
    [
      "0 owner",
      "1 totalSupply",
      "2 balanceOf",
      "3 allowance",
      "4 nonces",
      "5 authorizationState",
      "6 isBlacklisted",
      "7 paused",
    ],
  );
});

for (const [form, split] of [
  ["v, r, s", vrs],
  ["bytes", s => [s]],
]) {
  test(`an authorization pays once (${form})`, async () => {
    const a = authorization();
    const signature = split(await sign("TransferWithAuthorization", a));
    assert.deepEqual(await pay(a, ...signature), [
      { name: "AuthorizationUsed", authorizer: payer.address, nonce: a.nonce },
      { name: "Transfer", from: payer.address, to: payee.address, value: price },
    ]);
    assert.equal(await balance(payee), price);
    assert.equal(await balance(payer), 1_000_000n - price);
    assert.equal(await read("authorizationState", payer.address, a.nonce), true);
    await refused(pay(a, ...signature), "authorization is used or canceled");
  });

  test(`what was not signed like this does not pay (${form})`, async () => {
    const a = authorization();
    const signature = split(await sign("TransferWithAuthorization", a));
    await refused(pay({ ...a, value: price + 1n }, ...signature), "FiatTokenV2: invalid signature");
    await refused(pay({ ...a, to: relay.address }, ...signature), "FiatTokenV2: invalid signature");
    await refused(
      send(payee, "receiveWithAuthorization", ...Object.values(a), ...signature),
      "FiatTokenV2: invalid signature",
    );
  });

  test(`only the payee may use a receive authorization (${form})`, async () => {
    const a = authorization();
    const signature = split(await sign("ReceiveWithAuthorization", a));
    await refused(
      send(relay, "receiveWithAuthorization", ...Object.values(a), ...signature),
      "caller must be the payee",
    );
    await send(payee, "receiveWithAuthorization", ...Object.values(a), ...signature);
    assert.equal(await balance(payee), price);
  });

  test(`a cancelled authorization does not pay (${form})`, async () => {
    const a = authorization();
    const signature = split(await sign("TransferWithAuthorization", a));
    const cancel = { authorizer: payer.address, nonce: a.nonce };
    assert.deepEqual(
      await send(
        relay,
        "cancelAuthorization",
        ...Object.values(cancel),
        ...split(await sign("CancelAuthorization", cancel)),
      ),
      [{ name: "AuthorizationCanceled", ...cancel }],
    );
    await refused(pay(a, ...signature), "authorization is used or canceled");
    await refused(
      send(
        relay,
        "cancelAuthorization",
        ...Object.values(cancel),
        ...split(await sign("CancelAuthorization", cancel)),
      ),
      "authorization is used or canceled",
    );
  });

  test(`a permit allows once (${form})`, async () => {
    const message = { owner: payer.address, spender: relay.address, value: price, nonce: 0n, deadline: 2n ** 256n - 1n };
    const args = [payer.address, relay.address, price, message.deadline, ...split(await sign("Permit", message))];
    await send(relay, "permit", ...args);
    await refused(send(relay, "permit", ...args), "EIP2612: invalid signature");
    await send(relay, "transferFrom", payer.address, payee.address, price);
    assert.equal(await balance(payee), price);
    assert.equal(await read("allowance", payer.address, relay.address), 0n);
  });
}

test("an authorization pays only between its times", async () => {
  const now = (await client.getBlock()).timestamp;
  const early = authorization({ validAfter: now + 1000n });
  await refused(pay(early, await sign("TransferWithAuthorization", early)), "authorization is not yet valid");
  const late = authorization({ validBefore: now });
  await refused(pay(late, await sign("TransferWithAuthorization", late)), "authorization is expired");
});

test("what the payer does not have does not move", async () => {
  const a = authorization({ value: 1_000_001n });
  await refused(pay(a, await sign("TransferWithAuthorization", a)), "transfer amount exceeds balance");
});

test("of the encodings of one signature only the strict one counts", async () => {
  const a = authorization();
  const signature = await sign("TransferWithAuthorization", a);
  const { r, s, v } = parseSignature(signature);
  const n = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
  const high = serializeSignature({ r, s: numberToHex(n - BigInt(s), { size: 32 }), v: 55n - v });
  await refused(pay(a, high), "invalid signature 's' value");
  await refused(pay(a, concat([r, s, numberToHex(v - 27n, { size: 1 })])), "invalid signature 'v' value");
  await refused(pay(a, concat([r, s])), "invalid signature length");
  await pay(a, signature);
});

test("a contract account signs by ERC-1271, and only so", async () => {
  const wallet = "0x000000000000000000000000000000000000c0de";
  const owns = who => `0x${who.address.slice(2).padStart(64, "0")}`;
  await client.setCode({ address: wallet, bytecode: artifact("TestWallet").deployedBytecode });
  await client.setStorageAt({ address: wallet, index: 0, value: owns(payer) });
  await mint(client, wallet, price);

  const a = authorization({ from: wallet });
  await refused(pay(a, await sign("TransferWithAuthorization", a, relay)), "FiatTokenV2: invalid signature");
  await pay(a, await sign("TransferWithAuthorization", a));
  assert.equal(await balance(payee), price);

  // An account that gained code no longer signs with its own key.
  await client.setCode({ address: payer.address, bytecode: artifact("TestWallet").deployedBytecode });
  await client.setStorageAt({ address: payer.address, index: 0, value: owns(relay) });
  const b = authorization();
  await refused(pay(b, await sign("TransferWithAuthorization", b)), "FiatTokenV2: invalid signature");
  await pay(b, await sign("TransferWithAuthorization", b, relay));
});

test("ordinary transfers and allowances work", async () => {
  assert.deepEqual(await send(payer, "transfer", payee.address, 5n), [
    { name: "Transfer", from: payer.address, to: payee.address, value: 5n },
  ]);
  assert.deepEqual(await send(payer, "approve", relay.address, 7n), [
    { name: "Approval", owner: payer.address, spender: relay.address, value: 7n },
  ]);
  await refused(send(relay, "transferFrom", payer.address, payee.address, 8n), "transfer amount exceeds allowance");
  await send(relay, "transferFrom", payer.address, payee.address, 7n);
  assert.equal(await balance(payee), 12n);
});

test("the owner, and nobody else, pauses, blacklists and mints", async () => {
  for (const [f, ...args] of [["pause"], ["unpause"], ["blacklist", payer.address], ["unBlacklist", payer.address], ["mint", payer.address, 1n]]) {
    await refused(send(payer, f, ...args), "caller is not the owner");
  }
  const a = authorization();
  const signature = await sign("TransferWithAuthorization", a);
  await send(owner, "pause");
  await refused(pay(a, signature), "Pausable: paused");
  await send(owner, "unpause");
  for (const party of [payer, payee]) {
    await send(owner, "blacklist", party.address);
    await refused(pay(a, signature), "account is blacklisted");
    await send(owner, "unBlacklist", party.address);
  }
  await pay(a, signature);
  const supply = await read("totalSupply");
  await send(owner, "mint", payee.address, 3n);
  assert.equal(await read("totalSupply"), supply + 3n);
});

test("Multicall3 tells failures from answers", async () => {
  const data = (functionName, ...args) => encodeFunctionData({ abi, functionName, args });
  const good = { target: TOKEN, callData: data("balanceOf", payer.address) };
  const bad = { target: TOKEN, callData: "0xdeadbeef" };
  const dollar = numberToHex(1_000_000n, { size: 32 });
  const ask = async (functionName, args) =>
    (await client.simulateContract({ address: MULTICALL3, abi: artifact("Multicall3").abi, functionName, args })).result;

  assert.deepEqual(await ask("tryAggregate", [false, [good, bad]]), [
    { success: true, returnData: dollar },
    { success: false, returnData: "0x" },
  ]);
  await refused(ask("tryAggregate", [true, [bad]]), "Multicall3: call failed");
  // viem's own ABI of the real contract.
  const { result } = await client.simulateContract({
    address: MULTICALL3,
    abi: multicall3Abi,
    functionName: "aggregate3",
    args: [[{ ...bad, allowFailure: true }, { ...good, allowFailure: false }]],
  });
  assert.deepEqual(result, [
    { success: false, returnData: "0x" },
    { success: true, returnData: dollar },
  ]);
  await refused(ask("aggregate3", [[{ ...bad, allowFailure: false }]]), "Multicall3: call failed");
});
