// @x402/fetch, as its README uses it, in the hands of a caller who calls again when
// the answer is not what it wanted: PRIVATE_KEY=0x… node buyer.mjs URL CALLS
// Prints the status of each call, as a list in JSON.

import { setTimeout } from "node:timers/promises";
import { ExactEvmScheme } from "@x402/evm";
import { wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";

const [url, calls] = process.argv.slice(2);
const fetchWithPayment = wrapFetchWithPaymentFromConfig(fetch, {
  schemes: [{ network: "eip155:*", client: new ExactEvmScheme(privateKeyToAccount(process.env.PRIVATE_KEY)) }],
});

const statuses = [];
while (statuses.length < Number(calls)) {
  const response = await fetchWithPayment(url);
  await response.arrayBuffer();
  statuses.push(response.status);
  if (response.ok) break;
  await setTimeout(500);
}
console.log(JSON.stringify(statuses));
