// Package devchain is a real chain in the process, for trying out payments with
// dollars that are worth nothing.
//
// It stands in for Base Sepolia: its chain id, a test dollar where USDC is there,
// Multicall3 and Permit2 where they are everywhere. Any official x402 client pays
// on it unmodified. It is go-ethereum with a sealer of our own, keeps everything in
// memory, talks to no other machine, and listens on loopback only.
//
// It adds half as much again to a binary, so nothing that a production server links
// may import it.
package devchain
