// A chain and the official facilitator on it, for a test that owns this process.
//
// One line of JSON on standard output says where everything is; after that all
// talk goes to standard error. It lives as long as its standard input is open, so
// that nothing is left behind however the test ends.

import { bytesToHex } from "viem";
import { account, MULTICALL3, mint, PERMIT2, startChain, TETHER, TOKEN } from "./chain.mjs";
import { startFacilitator } from "./facilitator.mjs";

const OWNER = 0; // of the token
const PAYERS = [1, 2, 3, 4, 5, 6];
const PENNILESS = 7; // has ether, as all do, and not one dollar
const PAYEE = 8;
const GAS = 9; // the facilitator's key

let chain;
let ending = false;

process.stdin.resume();
process.stdin.once("close", end);
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, end);

chain = await startChain();
chain.ended.then(code => {
  if (!ending) console.error(`stack: anvil ended with ${code}`);
  process.exit(ending ? 0 : 1);
});
for (const payer of [OWNER, ...PAYERS]) {
  await mint(chain.client, account(payer).address, 100_000_000n);
  await mint(chain.client, account(payer).address, 100_000_000n, TETHER);
}
const facilitator = await startFacilitator(chain.rpc, account(GAS));

console.log(
  JSON.stringify({
    rpc: chain.rpc,
    chainId: chain.client.chain.id,
    facilitator,
    token: TOKEN,
    tether: TETHER,
    permit2: PERMIT2,
    multicall3: MULTICALL3,
    owner: keys(OWNER),
    payers: PAYERS.map(keys), // 100 dollars each, of both tokens
    penniless: keys(PENNILESS),
    gas: keys(GAS),
    payee: keys(PAYEE).address,
  }),
);

function keys(index) {
  const { address, getHdKey } = account(index);
  return { address, privateKey: bytesToHex(getHdKey().privateKey) };
}

function end() {
  ending = true;
  if (chain) chain.stop();
  else process.exit(0);
}
