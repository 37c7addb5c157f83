// An agent on @x402/core, as agents and wallets are made that speak HTTP themselves. READ is
// the method by which it reads the price (else it is METHOD); SAY names the headers in which
// it says its payment; SPELL is how it writes the numbers that it has signed.

import { x402Client, x402HTTPClient } from "@x402/core/client";
import { decodePaymentResponseHeader } from "@x402/core/http";
import { ExactEvmScheme } from "@x402/evm";
import { privateKeyToAccount } from "viem/accounts";
import { fetchInit, method, privateKey, reportFetch, url } from "./report.mjs";

const { READ = method, SAY = "PAYMENT-SIGNATURE", SPELL = "" } = process.env;
const core = new x402Client().register("eip155:*", new ExactEvmScheme(privateKeyToAccount(privateKey)));
const client = new x402HTTPClient(core);

const asked = await fetch(url, { method: READ });
await asked.arrayBuffer();
const required = client.getPaymentRequiredResponse(name => asked.headers.get(name));
const payment = await client.createPaymentPayload(required);

const spellings = { numbers: Number, hex: n => "0x" + BigInt(n).toString(16) };
const { authorization } = payment.payload;
for (const member of ["value", "validAfter", "validBefore"]) {
  if (spellings[SPELL]) authorization[member] = spellings[SPELL](authorization[member]);
}
let value = client.encodePaymentSignatureHeader(payment)["PAYMENT-SIGNATURE"];
if (SPELL === "bom") {
  const text = Buffer.from(value, "base64").toString().replace('"x402Version":2', '"x402Version":2.0');
  value = Buffer.from("\ufeff" + text).toString("base64");
}
const headers = { ...fetchInit.headers };
for (const name of SAY.split(" ")) headers[name] = value;

await reportFetch(fetch(url, { ...fetchInit, headers }), decodePaymentResponseHeader, "PAYMENT-RESPONSE");
