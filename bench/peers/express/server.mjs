// The official x402 middleware for Express, set up as its README shows, before a
// proxy that hands on requests and answers as they are:
//   node server.mjs PORT UPSTREAM_PORT FACILITATOR_URL PAYEE FLOW
// FLOW is the scheme's paymentFlow: authorization (its default) or upfront.
// It ends with its standard input.

import { request as send } from "node:http";
import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";
import express from "express";

const [port, upstream, facilitator, payTo, flow] = process.argv.slice(2);
const network = "eip155:84532";

const price = {
  accepts: {
    scheme: "exact",
    price: "$0.01",
    network,
    payTo,
    ...(flow !== "authorization" && { extra: { paymentFlow: flow } }),
  },
  description: "A thing",
};
const routes = { "GET /get/*": price, "/any/*": price, "/shop/report": price };
const server = new x402ResourceServer(new HTTPFacilitatorClient({ url: facilitator })).register(network, new ExactEvmScheme());

const app = express();
app.disable("x-powered-by");
app.use(paymentMiddleware(routes, server));
app.use((req, res) => {
  const fail = error => {
    if (res.headersSent) return res.destroy(error);
    res.statusCode = 502;
    res.end();
  };
  let onward;
  try {
    onward = send({ host: "127.0.0.1", port: upstream, method: req.method, path: req.url, headers: req.headers });
  } catch (error) {
    return fail(error); // a path that Node does not send
  }
  onward.on("error", fail);
  onward.on("response", answer => {
    // Set, and not handed to writeHead: the middleware reads the status here.
    res.statusCode = answer.statusCode;
    for (const [name, value] of Object.entries(answer.headers)) {
      if (!["connection", "keep-alive", "transfer-encoding"].includes(name)) res.setHeader(name, value);
    }
    answer.pipe(res);
  });
  req.pipe(onward);
});
app.listen(Number(port), "127.0.0.1");

process.stdin.resume().on("end", () => process.exit(0));
