// What the client scripts share: where their arguments come from, and the one line
// of JSON in which they say what happened. The libraries themselves are used as
// their documentation shows, with nothing in between.

import { subscribe } from "node:diagnostics_channel";

export const [method, url, body] = process.argv.slice(2);
export const privateKey = process.env.PRIVATE_KEY;
if (!url || !privateKey) {
  console.error("usage: PRIVATE_KEY=0x… node <client>.mjs METHOD URL [JSON]");
  process.exit(2);
}

// Requests to the seller are counted where Node sends them (undici for fetch, http
// for axios), because a wrapper handed to the library would no longer be its default.
let requests = 0;
const { origin } = new URL(url);
subscribe("undici:request:create", ({ request }) => {
  if (request.origin === origin) requests++; // and not to a node of the chain
});
subscribe("http.client.request.start", () => requests++);

export function report(status, body, receipt, sent = requests) {
  console.log(JSON.stringify({ status, body, receipt, requests: sent }));
}

// For clients that bring nothing to read a receipt with.
export const fromBase64 = header => JSON.parse(Buffer.from(header, "base64").toString());

// For axios, which throws what is not 2xx and parses what looks like JSON.
export async function reportAxios(request, decode, header) {
  const response = await request.catch(error => {
    if (!error.response) throw error;
    return error.response;
  });
  const { data, headers, status } = response;
  const receipt = headers[header];
  report(status, typeof data === "string" ? data : JSON.stringify(data), receipt && decode(receipt));
}

// For fetch.
export async function reportFetch(request, decode, header) {
  const response = await request;
  const receipt = response.headers.get(header);
  report(response.status, await response.text(), receipt ? decode(receipt) : undefined);
}

export const fetchInit = {
  method,
  ...(body && { body, headers: { "Content-Type": "application/json" } }),
};
export const axiosConfig = { method, url, ...(body && { data: JSON.parse(body) }) };
