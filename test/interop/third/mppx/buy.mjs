// mppx as a library, with the tokens of Base Sepolia that it knows.

import { evm, Mppx } from "mppx/client";
import { privateKeyToAccount } from "viem/accounts";
import { fetchInit, fromBase64, privateKey, reportFetch, url } from "../../clients/report.mjs";

const mppx = Mppx.create({
  polyfill: false,
  methods: [evm({ account: privateKeyToAccount(privateKey), currencies: [evm.assets.baseSepolia.USDC] })],
});

await reportFetch(mppx.fetch(url, fetchInit), fromBase64, "PAYMENT-RESPONSE");
