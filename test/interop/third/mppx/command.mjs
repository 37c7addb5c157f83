// The command of mppx, which prints the heads of all answers that it gets, and the last body.

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { body, fromBase64, method, privateKey, report, url } from "../../clients/report.mjs";

const said = execFileSync(
  process.execPath,
  [
    fileURLToPath(new URL("node_modules/mppx/dist/bin.js", import.meta.url)),
    url, "--include", "--method", method, ...(body ? ["--json-body", body] : []),
  ],
  { encoding: "utf8", env: { ...process.env, MPPX_PRIVATE_KEY: privateKey } },
);
const heads = said.match(/^HTTP\/1\.1 \d{3} .*\n(.+\n)*\n/gm) ?? [];
const last = heads.at(-1) ?? "";
const receipt = /^payment-response: (\S+)$/im.exec(last);

report(
  Number(last.split(" ")[1]),
  said.slice(said.lastIndexOf(last) + last.length),
  receipt ? fromBase64(receipt[1]) : undefined,
  heads.length,
);
