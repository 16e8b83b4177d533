// Command lookup NAME...: what Go's own resolver finds, one line a name: name, milliseconds, addresses or a word.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

func main() {
	resolver := &net.Resolver{PreferGo: true}
	for _, name := range os.Args[1:] {
		from := time.Now()
		found, err := resolver.LookupIPAddr(context.Background(), name)
		fmt.Print(name, " ", time.Since(from).Milliseconds())
		var missing *net.DNSError
		if errors.As(err, &missing) && missing.IsNotFound {
			fmt.Print(" none")
		} else if err != nil {
			fmt.Print(" error:", err)
		}
		for _, address := range found {
			fmt.Print(" ", address.IP)
		}
		fmt.Println()
	}
}
