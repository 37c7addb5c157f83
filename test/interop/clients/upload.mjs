// Uploads that nobody pays for, by what JavaScript sends requests with: fetch (undici),
// axios, and node:http, which axios is made of. Each sends the whole body and reads the
// answer as its documentation shows. What each try got is one line of JSON.

import http from "node:http";
import { Readable } from "node:stream";
import axios from "axios";

const [url, tries] = process.argv.slice(2);
if (!tries) {
  console.error("usage: node upload.mjs URL TRIES");
  process.exit(2);
}

// As a file is read.
function* pieces(body) {
  for (let at = 0; at < body.length; at += 64 << 10) yield body.subarray(at, at + (64 << 10));
}
const stream = body => Readable.from(pieces(body));

const clients = {
  async fetch(body, chunked) {
    const response = await fetch(url, { method: "POST", body: chunked ? Readable.toWeb(stream(body)) : body, duplex: "half" });
    await response.text();
    return response.status;
  },
  async axios(body, chunked) {
    const response = await axios.post(url, chunked ? stream(body) : body, { validateStatus: () => true, maxBodyLength: Infinity });
    return response.status;
  },
  http(body, chunked) {
    return new Promise((resolve, reject) => {
      const headers = chunked ? {} : { "Content-Length": body.length };
      const request = http.request(url, { method: "POST", headers }, response => {
        response.on("error", reject);
        response.on("end", () => resolve(response.statusCode));
        response.resume();
      });
      request.on("error", reject);
      if (chunked) stream(body).pipe(request);
      else request.end(body);
    });
  },
};

for (const size of [20_000, 300_000, 1_000_000, 10_000_000, 100_000_000]) {
  const body = Buffer.alloc(size);
  for (const [client, send] of Object.entries(clients)) {
    for (const chunked of [false, true]) {
      for (let i = 0; i < tries; i++) {
        const since = performance.now();
        const got = { client, chunked, size };
        try {
          got.status = await send(body, chunked);
        } catch (error) {
          got.error = error.cause?.code ?? error.code ?? error.message;
        }
        got.took = Math.round(performance.now() - since); // milliseconds
        console.log(JSON.stringify(got));
      }
    }
  }
}
