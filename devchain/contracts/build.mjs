// Writes code.json: the runtime code of the contracts that the development chain
// has in its genesis block. Those of this folder are compiled; the others come from
// test/interop/token, where the tests with the official software have them from too.
//
//   node devchain/contracts/build.mjs          writes it
//   node devchain/contracts/build.mjs --check  fails when it is not what the sources give
//
// The compiler is the one of test/interop/ (npm ci there). code.json is checked in, so
// that who only runs the Go code needs no compiler.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const here = name => new URL(name, import.meta.url);
const read = name => readFileSync(here(name), "utf8");
const solc = createRequire(here("../../test/interop/package.json"))("solc");

const sources = ["Permit2.sol", "Permit2Proxy.sol"];
const compiled = { Permit2: "Permit2.sol", ExactPermit2Proxy: "Permit2Proxy.sol", UptoPermit2Proxy: "Permit2Proxy.sol" };
const copied = ["TestDollar", "TestTether", "Multicall3"];

const output = JSON.parse(
  solc.compile(
    JSON.stringify({
      language: "Solidity",
      sources: Object.fromEntries(sources.map(s => [s, { content: read(s) }])),
      settings: {
        optimizer: { enabled: true, runs: 200 },
        viaIR: true, // the proxies have more arguments than the stack has room for
        evmVersion: "cancun",
        metadata: { bytecodeHash: "none", appendCBOR: false },
        outputSelection: { "*": { "*": ["evm.deployedBytecode.object"] } },
      },
    }),
  ),
);
if (output.errors?.length) {
  for (const e of output.errors) console.error(e.formattedMessage);
  process.exit(1); // a warning too: these files are small enough to have none
}

const code = {};
for (const name of copied) {
  code[name] = JSON.parse(read(`../../test/interop/token/${name}.json`)).deployedBytecode;
}
for (const [name, file] of Object.entries(compiled)) {
  code[name] = "0x" + output.contracts[file][name].evm.deployedBytecode.object;
}

const text = JSON.stringify(code, null, 2) + "\n";
if (!process.argv.includes("--check")) {
  writeFileSync(here("code.json"), text);
  for (const [name, hex] of Object.entries(code)) console.log(`${name}: ${hex.length / 2 - 1} bytes of code`);
} else if (read("code.json") !== text) {
  console.error("devchain/contracts/code.json is stale: run `node devchain/contracts/build.mjs`");
  process.exit(1);
}
