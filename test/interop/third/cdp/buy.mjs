// CdpX402Client with @x402/fetch, as the README of @coinbase/cdp-sdk uses it. Its wallet is
// at Coinbase, whose answers are made up here, by the axios that it asks with: the accounts
// of a name, and the signature of what it sends. What it would ask by fetch, a node's address
// and to be counted, it can do without.

import { generateKeyPairSync } from "node:crypto";
import { CdpX402Client } from "@coinbase/cdp-sdk/x402";
import { decodePaymentResponseHeader, wrapFetchWithPayment } from "@x402/fetch";
import axios from "axios";
import { privateKeyToAccount } from "viem/accounts";
import { fetchInit, privateKey, reportFetch, url } from "../../clients/report.mjs";

const account = privateKeyToAccount(privateKey);
const secret = () => generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
const client = new CdpX402Client({
  environment: "development", // Base Sepolia
  apiKeyId: "nobody",
  apiKeySecret: secret().export({ type: "pkcs8", format: "pem" }),
  walletSecret: secret().export({ type: "pkcs8", format: "der" }).toString("base64"),
  spendControls: { maxAmountPerPayment: { atomic: 1_000_000n } },
});

const fetchWithPayment = wrapFetchWithPayment(fetch, client);
globalThis.fetch = () => Promise.reject(new Error("Coinbase is not asked"));

const wallet = {
  [`GET /v2/solana/accounts/by-name/${client.accountName}`]: () => ({ address: "1".repeat(32) }),
  [`GET /v2/evm/accounts/by-name/${client.accountName}`]: () => ({ address: account.address }),
  [`POST /v2/evm/accounts/${account.address}/sign/typed-data`]: async typed => ({ signature: await account.signTypedData(typed) }),
};
axios.defaults.adapter = async config => {
  const answer = wallet[`${config.method.toUpperCase()} ${config.url}`];
  if (!answer) throw new Error(`nobody answers ${config.method} ${config.url}`);
  return { status: 200, data: await answer(config.data && JSON.parse(config.data)), headers: {}, config };
};

await reportFetch(fetchWithPayment(url, fetchInit), decodePaymentResponseHeader, "PAYMENT-RESPONSE");
