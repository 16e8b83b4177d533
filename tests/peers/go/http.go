package main

import (
	"fmt"
	"io"
	"net/http"
)

// serveHTTP answers each request with what it was, and prints one line for it: `METHOD TARGET X-FORWARDED-FOR`.
func serveHTTP(address string) error {
	return http.ListenAndServe(address, http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		seen := request.Method + " " + request.RequestURI
		// `/early` is answered before its body was read.
		if request.RequestURI != "/early" {
			if _, err := io.Copy(io.Discard, request.Body); err != nil {
				return
			}
		}
		output.Lock()
		fmt.Println(seen, request.Header.Get("X-Forwarded-For"))
		output.Unlock()
		fmt.Fprintf(writer, "seen: %s\n", seen)
	}))
}
