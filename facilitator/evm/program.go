package evm

import (
	"encoding/binary"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/vm"
)

// program makes the code of a transaction of several payments. It is the code of a
// contract that is created, and leaves nothing behind: it calls one token after the
// other, each with memberGas and no more, whatever becomes of the calls before. So
// nothing has to be on the chain for it, and who has his account burn gas (a payer can
// delegate it to code while the payment is on its way, EIP-7702) burns nobody else's.
// Multicall3 gives each call all the gas that is left.
//
// For a simulation it returns a byte for each payment: 1 if the call succeeded.
func program(payments []*payment, simulated bool) []byte {
	const results = 0x4000 // where the bytes are, behind the arguments of any call
	var code, data []byte
	size := programSize(len(payments), simulated)
	push2 := func(n int) {
		code = append(code, byte(vm.PUSH2))
		code = binary.BigEndian.AppendUint16(code, uint16(n)) // #nosec G115 -- a program is below 49,152 bytes (EIP-3860)
	}
	zero := func() { code = append(code, byte(vm.PUSH1), 0) }
	for i, p := range payments {
		to, call := p.encoded()
		push2(len(call))
		push2(size + len(data))
		zero()
		code = append(code, byte(vm.CODECOPY))
		zero() // nothing of the answer is kept
		zero()
		push2(len(call))
		zero()
		zero() // no coin
		code = append(code, byte(vm.PUSH20))
		code = append(code, to[:]...)
		code = append(code, byte(vm.PUSH3), byte(memberGas>>16), byte(memberGas>>8&0xff), byte(memberGas&0xff), byte(vm.CALL))
		if simulated {
			push2(results + i)
			code = append(code, byte(vm.MSTORE8))
		} else {
			code = append(code, byte(vm.POP))
		}
		data = append(data, call...)
	}
	if simulated {
		push2(len(payments))
		push2(results)
		code = append(code, byte(vm.RETURN))
	} else {
		code = append(code, byte(vm.STOP))
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
