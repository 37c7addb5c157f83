// @x402/fetch with what it needs to pay through Permit2: a node, RPC_URL, to look up
// allowances, the scheme upto beside exact, and leave to pay with any token.

import { ExactEvmScheme, UptoEvmScheme } from "@x402/evm";
import { decodePaymentResponseHeader, wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";
import { fetchInit, privateKey, reportFetch, url } from "./report.mjs";

const account = privateKeyToAccount(privateKey);
const options = { rpcUrl: process.env.RPC_URL };

const fetchWithPayment = wrapFetchWithPaymentFromConfig(fetch, {
  schemes: [
    { network: "eip155:*", client: new ExactEvmScheme(account, options) },
    { network: "eip155:*", client: new UptoEvmScheme(account, options) },
  ],
  spendControls: { allowedAssets: true },
});

await reportFetch(fetchWithPayment(url, fetchInit), decodePaymentResponseHeader, "PAYMENT-RESPONSE");
