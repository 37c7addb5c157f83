package evm

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/crypto/scrypt"
)

const password = "correct horse battery staple"

// The two examples of the specification (Web3 Secret Storage), and a file that
// go-ethereum has made.
const (
	exampleScrypt = `{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"83dbcc02d8ccb40e466191a123791e0e"},"ciphertext":"d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c","kdf":"scrypt","kdfparams":{"dklen":32,"n":262144,"p":8,"r":1,"salt":"ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19"},"mac":"2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097"},"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}`
	examplePBKDF2 = `{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},"ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2","kdfparams":{"c":262144,"dklen":32,"prf":"hmac-sha256","salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},"mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}`
	exampleGeth   = `{"address":"45dea0fb0bba44f4fcf290bba71fd57d7117cbb8","crypto":{"cipher":"aes-128-ctr","ciphertext":"b87781948a1befd247bff51ef4063f716cf6c2d3481163e9a8f42e1f9bb74145","cipherparams":{"iv":"dc4926b48a105133d2f16b96833abf1e"},"kdf":"scrypt","kdfparams":{"dklen":32,"n":2,"p":1,"r":8,"salt":"004244bbdc51cadda545b1cfa43cff9ed2ae88e08c61f1479dbb45410722f8f0"},"mac":"39990c1684557447940d4c69e06b1b82b2aceacb43f284df65c956daf3046b85"},"id":"ce541d8d-c79b-40f8-9f8c-20f59616faba","version":3}`
)

func TestKeystoresOfOthersAreRead(t *testing.T) {
	const exampleKey = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"
	example := crypto.PubkeyToAddress(must(crypto.HexToECDSA(exampleKey)).PublicKey)
	for name, tt := range map[string]struct {
		file, password string
		want           common.Address
	}{
		"scrypt":          {exampleScrypt, "testpassword", example},
		"pbkdf2":          {examplePBKDF2, "testpassword", example},
		"go-ethereum":     {exampleGeth, "", common.HexToAddress("0x45dea0fb0bba44f4fcf290bba71fd57d7117cbb8")},
		"capital letters": {strings.Replace(exampleGeth, `"crypto"`, `"Crypto"`, 1), "", common.HexToAddress("0x45dea0fb0bba44f4fcf290bba71fd57d7117cbb8")},
		"no address":      {strings.Replace(exampleGeth, `"address":"45dea0fb0bba44f4fcf290bba71fd57d7117cbb8",`, "", 1), "", common.HexToAddress("0x45dea0fb0bba44f4fcf290bba71fd57d7117cbb8")},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := readKeystore(tt.file)
			if err != nil {
				t.Fatal(err)
			}
			key, err := k.decrypt(tt.password)
			if err != nil || key.address != tt.want || crypto.PubkeyToAddress(key.key.PublicKey) != tt.want {
				t.Errorf("%v, %v", key, err)
			}
		})
	}
}

func TestKeystoreWantsItsPassword(t *testing.T) {
	if key, err := must(readKeystore(exampleGeth)).decrypt("x"); !errors.Is(err, errPassword) {
		t.Errorf("%v, %v", key, err)
	}
}

func TestBentKeystoresAreRefused(t *testing.T) {
	bend := func(old, with string) string {
		if !strings.Contains(exampleGeth, old) {
			t.Fatal(old)
		}
		return strings.Replace(exampleGeth, old, with, 1)
	}
	for name, tt := range map[string]struct{ file, err string }{
		"a key in the clear":       {signerKey, "no keystore file"},
		"a list":                   {"[]", "no keystore file"},
		"nothing in it":            {"{}", "not of version 3"},
		"version 1":                {bend(`"version":3`, `"version":1`), "not of version 3"},
		"version, a text":          {bend(`"version":3`, `"version":"3"`), "no keystore file"},
		"another cipher":           {bend("aes-128-ctr", "aes-128-cbc"), "aes-128-ctr"},
		"short iv":                 {bend("dc4926b48a105133d2f16b96833abf1e", "dc49"), "aes-128-ctr"},
		"odd iv":                   {bend("dc4926b48a105133d2f16b96833abf1e", "dc4"), "hexadecimal"},
		"short text":               {bend("b87781948a1befd2", ""), "32 bytes"},
		"short mac":                {bend("39990c16", ""), "32 bytes"},
		"short derived key":        {bend(`"dklen":32`, `"dklen":16`), "32 bytes"},
		"another derivation":       {bend(`"kdf":"scrypt"`, `"kdf":"argon2"`), "not known"},
		"no parameters":            {bend(`"n":2,"p":1,"r":8,`, ""), "not known"},
		"n is negative":            {bend(`"n":2`, `"n":-2`), "not known"},
		"n is 1":                   {bend(`"n":2`, `"n":1`), "not known"},
		"n is no power of two":     {bend(`"n":2`, `"n":3`), "wrong, or the file is damaged"},
		"too much memory, by n":    {bend(`"n":2`, `"n":8388608`), "more than 512 MB"},
		"too much memory, by r":    {bend(`"r":8`, `"r":9000000`), "more than 512 MB"},
		"too many rounds":          {bend(`"p":1`, `"p":1000`), "not known"},
		"pbkdf2, another function": {strings.Replace(examplePBKDF2, "hmac-sha256", "hmac-sha1", 1), "not known"},
		"pbkdf2, too many":         {strings.Replace(examplePBKDF2, `"c":262144`, `"c":999999999`, 1), "not known"},
		"damaged":                  {bend("b877", "b878"), "wrong, or the file is damaged"},
		"another address":          {bend("45dea0fb", "45dea0fc"), "another address"},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := readKeystore(tt.file)
			if err == nil {
				_, err = k.decrypt("")
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), signerKey[:20]) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

// FuzzKeystore: whatever is in the file, to try a password on it is within bounds.
func FuzzKeystore(f *testing.F) {
	f.Add(exampleScrypt)
	f.Add(examplePBKDF2)
	f.Add(exampleGeth)
	f.Add(`{"version":3,"crypto":{"kdfparams":{"n":1e3}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		k, err := readKeystore(text)
		if err != nil {
			return
		}
		if p := k.Crypto.KDFParams; p.N*p.R > 4<<20 || p.P > 16 || p.C > 10_000_000 && k.Crypto.KDF == "pbkdf2" || p.DKLen != 32 || len(k.text) != 32 {
			t.Errorf("%+v", p)
		}
	})
}

// encrypted is a keystore of a key, which is quick to open.
func encrypted(t testing.TB, key, password string) string {
	t.Helper()
	salt, iv := []byte("salt"), make([]byte, aes.BlockSize)
	derived := must(scrypt.Key([]byte(password), salt, 2, 8, 1, 32))
	text := must(hex.DecodeString(key))
	cipher.NewCTR(must(aes.NewCipher(derived[:16])), iv).XORKeyStream(text, text)
	return fmt.Sprintf(`{"version":3,"crypto":{"cipher":"aes-128-ctr","ciphertext":"%x","cipherparams":{"iv":"%x"},"kdf":"scrypt","kdfparams":{"dklen":32,"n":2,"r":8,"p":1,"salt":"%x"},"mac":"%x"}}`,
		text, iv, salt, crypto.Keccak256(derived[16:], text))
}

// TestSignersFromKeystores: encrypted keys stand among others, in the order of the
// line, and no error shows any of them.
func TestSignersFromKeystores(t *testing.T) {
	plain, store, pass := keyFile(t, secondKey), keyFile(t, encrypted(t, signerKey, password)), keyFile(t, password)
	t.Setenv("KEYSTORE", encrypted(t, signerKey, password))
	t.Setenv("KEYSTORE_PASSWORD", password)
	t.Setenv("OTHER_PASSWORD", "wrong "+password)
	open := "keystore " + store + " " + pass
	for name, tt := range map[string]struct {
		signers []string
		want    []string
		err     string
	}{
		"first":              {signers: []string{open, plain}, want: []string{signerAddress, secondAddress}},
		"second":             {signers: []string{plain, open}, want: []string{secondAddress, signerAddress}},
		"of the environment": {signers: []string{"keystore {env.KEYSTORE} {env.KEYSTORE_PASSWORD}"}, want: []string{signerAddress}},
		"wrong password":     {signers: []string{plain, "keystore " + store + " {env.OTHER_PASSWORD}"}, err: "signer 2: " + store + ": the password"},
		"no password":        {signers: []string{"keystore " + store + " {env.NO_SUCH_VARIABLE}"}, err: "{env.NO_SUCH_VARIABLE} is unset"},
		"no file":            {signers: []string{"keystore {file./no/such/file} " + pass}, err: "{file./no/such/file} is unset, empty or unreadable"},
		"a key in the clear": {signers: []string{"keystore " + plain + " " + pass}, err: "no keystore file"},
		"without the word":   {signers: []string{store}, err: "write keystore before it"},
		"the same key again": {signers: []string{keyFile(t, signerKey), open}, err: "that of " + signerAddress + "; remove one"},
		"literal password":   {signers: []string{"keystore " + store + " hunter2"}, err: "after keystore come"},
		"literal file":       {signers: []string{"keystore /run/key " + pass}, err: "after keystore come"},
		"three":              {signers: []string{open + " " + pass}, err: "after keystore come"},
	} {
		t.Run(name, func(t *testing.T) {
			core, logs := observer.New(zapcore.DebugLevel)
			f := &Facilitator{Networks: map[string]*Network{"base": {RPC: []string{"https://a.example"}, Signers: tt.signers}}, logger: zap.New(core)}
			err := f.provision()
			defer func() { _ = f.Cleanup() }()
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "hunter2") ||
					strings.Contains(err.Error(), secondKey) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || logs.Len() > 0 {
				t.Fatalf("%v, log %s", err, logged(logs))
			}
			for i, a := range f.chains["eip155:8453"].accounts {
				if a.key.address.Hex() != tt.want[i] {
					t.Errorf("signer %d is %s, want %s", i+1, a.key.address, tt.want[i])
				}
			}
		})
	}
	t.Run("others can read both files", func(t *testing.T) {
		dir := t.TempDir()
		file, pass := filepath.Join(dir, "key"), filepath.Join(dir, "password")
		for path, text := range map[string]string{file: encrypted(t, signerKey, password), pass: password} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			chmod(t, path, 0o644)
		}
		core, logs := observer.New(zapcore.DebugLevel)
		raw := "keystore {file." + file + "} {file." + pass + "}"
		_, err := resolveKeys([]string{raw}, zap.New(core))
		if text := logged(logs); err != nil || logs.Len() != 1 || !strings.Contains(text, pass+" can be read") || strings.Contains(text, password) {
			t.Errorf("%v, log %s", err, text)
		}
		chmod(t, file, 0o646)
		if _, err := resolveKeys([]string{raw}, zap.New(core)); err == nil || !strings.Contains(err.Error(), file+" can be changed") {
			t.Errorf("error %v", err)
		}
	})
}
