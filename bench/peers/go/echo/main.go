// net/http answering a JSON POST with what it says: the HTTP row's floor that is not ours. echo PORT
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
)

type message struct {
	Channel string `json:"channel"`
	Text    string `json:"text"`
	N       int    `json:"n"`
}

func main() {
	http.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		var m message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(m)
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
