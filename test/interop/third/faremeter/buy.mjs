// @faremeter/fetch with @faremeter/payment-evm, which ask for a wallet of this shape.

import { wrap } from "@faremeter/fetch";
import { createPaymentHandler } from "@faremeter/payment-evm/exact";
import { privateKeyToAccount } from "viem/accounts";
import { baseSepolia } from "viem/chains";
import { fetchInit, fromBase64, privateKey, reportFetch, url } from "../../clients/report.mjs";

const account = privateKeyToAccount(privateKey);
const wallet = { chain: { id: baseSepolia.id, name: baseSepolia.name }, address: account.address, account };
const fetchWithPayment = wrap(fetch, { handlers: [createPaymentHandler(wallet)] });

await reportFetch(fetchWithPayment(url, fetchInit), fromBase64, "PAYMENT-RESPONSE");
