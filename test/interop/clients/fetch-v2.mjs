// @x402/fetch, as its README uses it.

import { ExactEvmScheme } from "@x402/evm";
import { decodePaymentResponseHeader, wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";
import { fetchInit, privateKey, reportFetch, url } from "./report.mjs";

const fetchWithPayment = wrapFetchWithPaymentFromConfig(fetch, {
  schemes: [{ network: "eip155:*", client: new ExactEvmScheme(privateKeyToAccount(privateKey)) }],
});

await reportFetch(fetchWithPayment(url, fetchInit), decodePaymentResponseHeader, "PAYMENT-RESPONSE");
