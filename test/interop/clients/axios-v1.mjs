// x402-axios, the first protocol version, as its README uses it.

import axios from "axios";
import { createWalletClient, http } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { baseSepolia } from "viem/chains";
import { decodeXPaymentResponse, withPaymentInterceptor } from "x402-axios";
import { axiosConfig, privateKey, reportAxios } from "./report.mjs";

const client = createWalletClient({
  account: privateKeyToAccount(privateKey),
  transport: http(),
  chain: baseSepolia,
});
const api = withPaymentInterceptor(axios.create(), client);

await reportAxios(api.request(axiosConfig), decodeXPaymentResponse, "x-payment-response");
