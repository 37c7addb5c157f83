// Signs a request as an agent does: node agents/sign.mjs <method> <url> <agent> [<component>...]. It makes a key, and prints the
// headers of the request and the directory that has the key. The private key stays here.
import { signatureHeaders } from "web-bot-auth";
import { signerFromJWK } from "web-bot-auth/crypto";

const [method, url, agent, ...components] = process.argv.slice(2);
const pair = await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"]);
const { kty, crv, x, d } = await crypto.subtle.exportKey("jwk", pair.privateKey);
const signer = await signerFromJWK({ kty, crv, x, d });

const request = new Request(url, { method, headers: { "Signature-Agent": agent } });
const created = new Date();
const headers = await signatureHeaders(request, signer, { created, expires: new Date(created.getTime() + 60_000),
  ...(components.length ? { components } : {}), // else what the package covers by itself
});
console.log(JSON.stringify({
  headers: { "Signature-Agent": agent, ...headers },
  directory: { keys: [{ kty, crv, x, kid: signer.keyid, use: "sig" }] },
}));
