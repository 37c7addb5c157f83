package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// What a token costs, in millionths of a dollar.
const (
	promptToken = 10
	answerToken = 30
)

// chat is a language model of sorts. It is the one part of the site that has to
// know of payments, for nobody else knows what an answer is worth: it says so in
// a header, Settlement-Overrides, up to the price in the Caddyfile.
func chat(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Messages []struct {
			Role    string `json:"role"`
			Content string `json:"content"`
		} `json:"messages"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&asked); err != nil || len(asked.Messages) == 0 {
		http.Error(w, "want messages", http.StatusBadRequest) // and nothing is charged
		return
	}
	prompt := asked.Messages[len(asked.Messages)-1].Content
	answer := "You said: " + prompt + " I have no opinion."

	prompted, answered := len(strings.Fields(prompt)), len(strings.Fields(answer))
	cost := prompted*promptToken + answered*answerToken
	w.Header().Set("Settlement-Overrides", fmt.Sprintf(`{"amount":"$%d.%06d"}`, cost/1e6, cost%1e6))
	writeJSON(w, map[string]any{
		"object":  "chat.completion",
		"choices": []any{map[string]any{"index": 0, "message": map[string]string{"role": "assistant", "content": answer}, "finish_reason": "stop"}},
		"usage":   map[string]int{"prompt_tokens": prompted, "completion_tokens": answered, "total_tokens": prompted + answered},
	})
}
