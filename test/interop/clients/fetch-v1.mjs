// x402-fetch, the first protocol version, as its README uses it.

import { createWalletClient, http } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { baseSepolia } from "viem/chains";
import { decodeXPaymentResponse, wrapFetchWithPayment } from "x402-fetch";
import { fetchInit, privateKey, reportFetch, url } from "./report.mjs";

const client = createWalletClient({
  account: privateKeyToAccount(privateKey),
  transport: http(),
  chain: baseSepolia,
});
const fetchWithPay = wrapFetchWithPayment(fetch, client);

await reportFetch(fetchWithPay(url, fetchInit), decodeXPaymentResponse, "X-PAYMENT-RESPONSE");
