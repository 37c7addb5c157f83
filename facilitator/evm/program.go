package evm

import (
	"encoding/binary"

	"github.com/ethereum/go-ethereum/common/hexutil"
)

// The instructions of a program. go-ethereum's own names are in a package that would
// bring the whole machine.
const (
	opStop     byte = 0x00
	opCodeCopy byte = 0x39
	opPop      byte = 0x50
	opStore8   byte = 0x53
	opPush1    byte = 0x60
	opPush2    byte = 0x61
	opPush3    byte = 0x62
	opPush20   byte = 0x73
	opCall     byte = 0xf1
	opReturn   byte = 0xf3
)

// program makes the code of a transaction of several payments. It is the init code of a
// contract that leaves nothing behind: it calls one token after the other, each with memberGas
// and no more, whatever became of the calls before. So no contract has to be on the chain for
// it, and a payer who has his account burn gas (by delegating it to code while the payment is
// on its way, EIP-7702) burns nothing of the others. Multicall3 would give each call all the
// gas that is left.
//
// For a simulation it returns a byte for each payment: 1 if the call succeeded.
func program(payments []*payment, simulated bool) []byte {
	const results = 0x4000 // where the bytes are, behind the arguments of any call
	var code, data []byte
	size := programSize(len(payments), simulated)
	push2 := func(n int) {
		code = append(code, opPush2)
		code = binary.BigEndian.AppendUint16(code, uint16(n)) // #nosec G115 -- a program is below 49,152 bytes (EIP-3860)
	}
	zero := func() { code = append(code, opPush1, 0) }
	for i, p := range payments {
		to, call := p.encoded()
		push2(len(call))
		push2(size + len(data))
		zero()
		code = append(code, opCodeCopy)
		zero() // nothing of the answer is kept
		zero()
		push2(len(call))
		zero()
		zero() // no coin
		code = append(code, opPush20)
		code = append(code, to[:]...)
		code = append(code, opPush3, byte(memberGas>>16), byte(memberGas>>8&0xff), byte(memberGas&0xff), opCall)
		if simulated {
			push2(results + i)
			code = append(code, opStore8)
		} else {
			code = append(code, opPop)
		}
		data = append(data, call...)
	}
	if simulated {
		push2(len(payments))
		push2(results)
		code = append(code, opReturn)
	} else {
		code = append(code, opStop)
	}
	return append(code, data...)
}

// programSize is how long a program is without the calls.
func programSize(payments int, simulated bool) int {
	const each = 3 + 3 + 2 + 1 + 2 + 2 + 3 + 2 + 2 + 21 + 4 + 1
	if simulated {
		return payments*(each+4) + 7
	}
	return payments*(each+1) + 1
}

// programGas is the limit for a program of so many payments and bytes: what all calls
// may use, with what a call must leave over (EIP-150), what creating a contract costs,
// and its bytes.
func programGas(payments, size int) uint64 {
	const create, spare = 53_000, 50_000
	gas := create + spare + size*16 + size/32*2 + payments*(memberGas+3_000) + memberGas/32
	return uint64(gas) // #nosec G115 -- positive, and below maxBatch payments
}

// succeeded reads what a simulated program says of one payment.
func succeeded(result []byte, i, of int) bool { return len(result) == of && result[i] == 1 }

// simulated is the flight as eth_call takes it.
func (fl *flight) simulated() map[string]any {
	call := map[string]any{"from": fl.by.key.address, "gas": hexutil.Uint64(fl.gas), "data": hexutil.Bytes(fl.data)}
	if fl.shared > 0 {
		call["data"] = hexutil.Bytes(fl.trial)
	} else {
		call["to"] = fl.to
	}
	return call
}
