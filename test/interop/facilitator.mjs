// The official facilitator, self-hosted: the packages' own verify and settle for
// the schemes exact, in both protocol versions, and upto, and both ways of gas
// sponsoring, behind the three endpoints that every facilitator has.

import { createServer } from "node:http";
import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { registerExactEvmScheme } from "@x402/evm/exact/facilitator";
import { UptoEvmScheme } from "@x402/evm/upto/facilitator";
import { createWalletClient, http, parseTransaction, publicActions, recoverTransactionAddress } from "viem";
import { baseSepolia } from "viem/chains";

// Starts it for the chain at rpc, paying gas from account. Returns its URL.
export async function startFacilitator(rpc, account) {
  const own = signer(rpc, account);
  const evmSigner = toFacilitatorEvmSigner(own);
  const network = `eip155:${baseSepolia.id}`;
  const facilitator = registerExactEvmScheme(new x402Facilitator(), { signer: evmSigner, networks: network })
    .register(network, new UptoEvmScheme(evmSigner))
    .registerExtension({ key: "eip2612GasSponsoring" })
    .registerExtension({
      key: "erc20ApprovalGasSponsoring",
      signer: { ...evmSigner, sendTransactions: own.sendTransactions },
    });

  const server = createServer(async (request, response) => {
    const answer = (status, body) => {
      console.error(`facilitator: ${request.method} ${request.url} ${status} ${JSON.stringify(body)}`);
      response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
    };
    try {
      const route = `${request.method} ${request.url}`;
      if (route === "GET /supported") return answer(200, facilitator.getSupported());
      if (route !== "POST /verify" && route !== "POST /settle") return answer(404, { error: "Not found" });

      const { paymentPayload, paymentRequirements } = JSON.parse(await text(request));
      if (!paymentPayload || !paymentRequirements) {
        return answer(400, { error: "Missing paymentPayload or paymentRequirements" });
      }
      const act = request.url === "/verify" ? facilitator.verify : facilitator.settle;
      answer(200, await act.call(facilitator, paymentPayload, paymentRequirements));
    } catch (error) {
      answer(500, { error: error instanceof Error ? error.message : "Unknown error" });
    }
  });
  await new Promise(resolve => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${server.address().port}`;
}

function signer(rpc, account) {
  const client = createWalletClient({
    account,
    chain: baseSepolia,
    transport: http(rpc),
    pollingInterval: 50,
    cacheTime: 0,
  }).extend(publicActions);

  // viem asks the chain for the next nonce at each transaction, so two at once
  // would take the same one.
  let last = Promise.resolve();
  const inTurn = send => {
    const next = last.then(send);
    last = next.catch(() => {});
    return next;
  };

  return {
    address: account.address,
    getCode: args => client.getCode(args),
    readContract: args => client.readContract({ ...args, args: args.args ?? [] }),
    verifyTypedData: args => client.verifyTypedData(args),
    writeContract: args => inTurn(() => client.writeContract({ ...args, args: args.args ?? [] })),
    sendTransaction: args => inTurn(() => client.sendTransaction(args)),
    waitForTransactionReceipt: args => client.waitForTransactionReceipt(args),
    sendTransactions: transactions => inTurn(() => sendSponsored(client, transactions)),
  };
}

// Sends what payers have signed, with the gas for it, and what is our own.
async function sendSponsored(client, transactions) {
  const hashes = [];
  for (const transaction of transactions) {
    let hash;
    if (typeof transaction === "string") {
      const { gas, maxFeePerGas } = parseTransaction(transaction);
      const to = await recoverTransactionAddress({ serializedTransaction: transaction });
      const funding = await client.sendTransaction({ to, value: gas * maxFeePerGas });
      await client.waitForTransactionReceipt({ hash: funding });
      hash = await client.sendRawTransaction({ serializedTransaction: transaction });
    } else {
      hash = await client.sendTransaction(transaction);
    }
    const { status } = await client.waitForTransactionReceipt({ hash });
    if (status !== "success") throw new Error(`transaction ${hash} reverted`);
    hashes.push(hash);
  }
  return hashes;
}

async function text(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}
