// Servers and clients of HTTP and WebSocket with Go's libraries, for `cargo xtask conformance`.
//
//	peers http IP:PORT                        an HTTP server that says what it was sent
//	peers gorilla|coder serve IP:PORT         a WebSocket server; lines: `close ID CODE REASON`
//	peers gorilla|coder call IP:PORT NAME...  asks the Service NAME of namespace shop; lines: `result NAME CASE RESULT`
package main

import (
	"fmt"
	"log"
	"os"
	"sync"
)

var makers = map[string]maker{"gorilla": gorilla{}, "coder": coder{}}

var output sync.Mutex

// say prints a line whose words are separated by tabs.
func say(words ...any) {
	output.Lock()
	defer output.Unlock()
	for index, word := range words {
		if index > 0 {
			fmt.Print("\t")
		}
		fmt.Print(word)
	}
	fmt.Println()
}

func main() {
	arguments := os.Args[1:]
	if len(arguments) == 2 && arguments[0] == "http" {
		log.Fatal(serveHTTP(arguments[1]))
	}
	if len(arguments) < 3 {
		log.Fatal("arguments: http ADDRESS, or MAKER serve|call ADDRESS NAME...")
	}
	maker, known := makers[arguments[0]]
	if !known {
		log.Fatalf("no library is called %s", arguments[0])
	}
	if arguments[1] == "serve" {
		log.Fatal(serve(maker, arguments[2]))
	}
	for _, name := range arguments[3:] {
		call(maker, caller{maker: arguments[0], name: name, address: arguments[2]})
	}
}
