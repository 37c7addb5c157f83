// @dexterai/x402, as its README uses it; it looks up the balance first, at a node that
// can be named.

import { getPaymentReceipt, wrapFetch } from "@dexterai/x402/client";
import { fetchInit, privateKey, report, url } from "../../clients/report.mjs";

const x402Fetch = wrapFetch(fetch, {
  evmPrivateKey: privateKey,
  rpcUrls: { "eip155:84532": process.env.RPC_URL },
});

const response = await x402Fetch(url, fetchInit);
report(response.status, await response.text(), getPaymentReceipt(response));
