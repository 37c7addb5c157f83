// Compiles the contracts of this folder into the .json files beside them.
//
//   node token/build.mjs          writes them
//   node token/build.mjs --check  fails when they are not what the sources give
//
// The files are checked in, so that who only runs the Go code needs no compiler.

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import solc from "solc";

const contracts = [
  "TestDollar", "TestTether", "BadToken", "Multicall3", "TestWallet", "BadWallet", "WalletFactory",
];
const file = name => fileURLToPath(new URL(name, import.meta.url));

const output = JSON.parse(
  solc.compile(
    JSON.stringify({
      language: "Solidity",
      sources: Object.fromEntries(
        contracts.map(c => [`${c}.sol`, { content: readFileSync(file(`${c}.sol`), "utf8") }]),
      ),
      settings: {
        optimizer: { enabled: true, runs: 200 },
        // Named, so that a newer compiler does not move on to opcodes that a
        // chain may not know.
        evmVersion: "cancun",
        // No hash of the sources in the code: a changed comment changes nothing.
        metadata: { bytecodeHash: "none", appendCBOR: false },
        outputSelection: {
          "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "storageLayout"] },
        },
      },
    }),
  ),
);

if (output.errors?.length) {
  for (const e of output.errors) console.error(e.formattedMessage);
  process.exit(1); // a warning too: these files are small enough to have none
}

let stale = false;
for (const name of contracts) {
  const { abi, evm, storageLayout } = output.contracts[`${name}.sol`][name];
  const artifact = {
    compiler: solc.version(),
    bytecode: "0x" + evm.bytecode.object,
    deployedBytecode: "0x" + evm.deployedBytecode.object,
    storageLayout: storageLayout.storage.map(({ slot, offset, label, type }) => ({
      slot: Number(slot),
      offset,
      label,
      type: storageLayout.types[type].label,
    })),
    abi,
  };
  const text = render(artifact);
  const path = file(`${name}.json`);
  if (!process.argv.includes("--check")) {
    writeFileSync(path, text);
    console.log(`${name}: ${evm.deployedBytecode.object.length / 2} bytes of code`);
  } else if (read(path) !== text) {
    console.error(`${name}.json is stale: run "npm run build" in test/interop/`);
    stale = true;
  }
}
process.exit(stale ? 1 : 0);

// One entry of a list a line: a change shows in a diff, and the file stays short.
function render(artifact) {
  const lines = Object.entries(artifact).map(([key, value]) =>
    Array.isArray(value)
      ? `  "${key}": [\n${value.map(v => "    " + JSON.stringify(v)).join(",\n")}\n  ]`
      : `  "${key}": ${JSON.stringify(value)}`,
  );
  return `{\n${lines.join(",\n")}\n}\n`;
}

function read(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
