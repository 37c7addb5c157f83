// @x402/axios, as its README uses it.

import { decodePaymentResponseHeader, wrapAxiosWithPaymentFromConfig } from "@x402/axios";
import { ExactEvmScheme } from "@x402/evm";
import axios from "axios";
import { privateKeyToAccount } from "viem/accounts";
import { axiosConfig, privateKey, reportAxios } from "./report.mjs";

const api = wrapAxiosWithPaymentFromConfig(axios.create(), {
  schemes: [{ network: "eip155:*", client: new ExactEvmScheme(privateKeyToAccount(privateKey)) }],
});

await reportAxios(api.request(axiosConfig), decodePaymentResponseHeader, "payment-response");
