// An HTTP service: GET /add/X/Y answers the sum. Run as: ./adder [ADDRESS]
package main

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
)

func add(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/add/"), "/")
	if len(parts) != 2 {
		http.NotFound(w, r)
		return
	}
	x, errX := strconv.Atoi(parts[0])
	y, errY := strconv.Atoi(parts[1])
	if errX != nil || errY != nil {
		http.Error(w, "two whole numbers, please", http.StatusBadRequest)
		return
	}
	sum := x + y
	fmt.Fprintf(w, "%d + %d = %d\n", x, y, sum)
}

func main() {
	address := "0.0.0.0:8080"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	http.HandleFunc("/add/", add)
	fmt.Println("adder listens on", address)
	if err := http.ListenAndServe(address, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
