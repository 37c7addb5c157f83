// An anvil chain that stands in for Base Sepolia: its chain id, a test dollar
// where USDC is there, a token with nothing but ERC-20, and Multicall3, Permit2 and
// the x402 proxies where they are everywhere.

import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { createTestClient, http, publicActions, walletActions } from "viem";
import { mnemonicToAccount } from "viem/accounts";
import { baseSepolia } from "viem/chains";

export const TOKEN = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
// TestTether, which is paid with through Permit2 only, after an approval.
export const TETHER = "0xeED520980fC7C7B4eB379B96d61CEdea2423005a";
export const MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11";
export const PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3";
export const EXACT_PERMIT2_PROXY = "0x402085c248EeA27D92E8b30b2C58ed07f9E20001";
export const UPTO_PERMIT2_PROXY = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002";

// The mnemonic that every development chain uses; its keys are public knowledge.
const MNEMONIC = "test test test test test test test test test test test junk";
export const account = index => mnemonicToAccount(MNEMONIC, { addressIndex: index });

export const artifact = name =>
  JSON.parse(readFileSync(new URL(`token/${name}.json`, import.meta.url), "utf8"));

// The runtime code of the contracts that the development chain has too, by name.
const code = JSON.parse(readFileSync(new URL("../../devchain/contracts/code.json", import.meta.url), "utf8"));

// Starts anvil on a free port and places the contracts, owned by account 0.
// Returns { rpc, client, ended, stop }: client is viem's, with every kind of action;
// ended is a promise for anvil's end; stop brings it about and waits for it.
export async function startChain() {
  const { rpc, child } = await startAnvil();
  const ended = new Promise(resolve => child.once("exit", resolve));
  const stop = () => {
    child.kill("SIGKILL"); // it has nothing to save
    return ended;
  };

  const client = createTestClient({
    mode: "anvil",
    account: account(0),
    chain: baseSepolia,
    transport: http(rpc),
    pollingInterval: 50,
    cacheTime: 0,
  })
    .extend(publicActions)
    .extend(walletActions);

  const place = (address, name) => client.setCode({ address, bytecode: code[name] });
  await place(TOKEN, "TestDollar");
  await place(TETHER, "TestTether");
  await place(MULTICALL3, "Multicall3");
  await place(PERMIT2, "Permit2");
  await place(EXACT_PERMIT2_PROXY, "ExactPermit2Proxy");
  await place(UPTO_PERMIT2_PROXY, "UptoPermit2Proxy");
  // Code placed like this had no constructor, so slot 0, the owner, is still zero.
  const owner = `0x${account(0).address.slice(2).toLowerCase().padStart(64, "0")}`;
  await client.setStorageAt({ address: TOKEN, index: 0, value: owner });
  await client.setStorageAt({ address: TETHER, index: 0, value: owner });
  return { rpc, client, ended, stop };
}

// Gives an account test dollars, or units of the other token, in atomic units.
export async function mint(client, to, amount, token = TOKEN) {
  const hash = await client.writeContract({
    address: token,
    abi: artifact(token === TETHER ? "TestTether" : "TestDollar").abi,
    functionName: "mint",
    args: [to, amount],
  });
  const receipt = await client.waitForTransactionReceipt({ hash });
  if (receipt.status !== "success") throw new Error(`mint to ${to} failed`);
}

async function startAnvil() {
  const child = spawn(
    anvilBinary(),
    ["--port", "0", "--chain-id", String(baseSepolia.id), "--mnemonic", MNEMONIC, "--hardfork", "cancun"],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  process.once("exit", () => child.kill("SIGKILL"));
  const rpc = await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", code => reject(new Error(`anvil ended with ${code}`)));
    // The pipe is read to the end, or anvil would stop when it is full.
    createInterface({ input: child.stdout }).on("line", line => {
      const m = /^Listening on (\S+)/.exec(line);
      if (m) resolve(`http://${m[1]}`);
    });
  });
  return { rpc, child };
}

// npm has anvil as one package per platform; we pin the one CI runs on. Elsewhere
// an installed anvil does.
function anvilBinary() {
  const pinned = fileURLToPath(
    new URL("node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil", import.meta.url),
  );
  return process.env.ANVIL || (existsSync(pinned) ? pinned : "anvil");
}
