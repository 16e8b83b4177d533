// A discovery server made of go-control-plane alone, which serves whatever bytes it is told to.
//
// Commands come on standard input, one a line, each answered by "done" on standard output:
//
//	put TYPE NAME HEX     a resource of this type has these bytes
//	delete TYPE NAME      it is gone
//	serve ADDRESS         clients may come; said before: "listening ADDRESS", with the port that was taken
//
// Besides that it says "request JSON" for every request of a client.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"sync"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// heard is what a request said.
type heard struct {
	Node        string            `json:"node"`
	Type        string            `json:"type"`
	Subscribe   []string          `json:"subscribe"`
	Unsubscribe []string          `json:"unsubscribe"`
	Has         map[string]string `json:"has"`
	Nonce       string            `json:"nonce"`
	Error       string            `json:"error"`
}

// said keeps lines on standard output whole.
var said sync.Mutex

func say(format string, values ...any) {
	said.Lock()
	defer said.Unlock()
	fmt.Printf(format+"\n", values...)
}

func main() {
	// Every type that a command may name is an argument, because a type nobody serves ends the stream.
	caches := map[string]cache.Cache{}
	for _, typeURL := range os.Args[1:] {
		caches[typeURL] = cache.NewLinearCache(typeURL)
	}
	mux := &cache.MuxCache{
		Classify:      func(request *cache.Request) string { return request.GetTypeUrl() },
		ClassifyDelta: func(request *cache.DeltaRequest) string { return request.GetTypeUrl() },
		Caches:        caches,
	}
	callbacks := server.CallbackFuncs{
		StreamDeltaRequestFunc: func(_ int64, request *discovery.DeltaDiscoveryRequest) error {
			line, err := json.Marshal(heard{
				Node:        request.GetNode().GetId(),
				Type:        request.GetTypeUrl(),
				Subscribe:   request.GetResourceNamesSubscribe(),
				Unsubscribe: request.GetResourceNamesUnsubscribe(),
				Has:         request.GetInitialResourceVersions(),
				Nonce:       request.GetResponseNonce(),
				Error:       request.GetErrorDetail().GetMessage(),
			})
			say("request %s", line)
			return err
		},
	}
	serving := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(serving, server.NewServer(context.Background(), mux, callbacks))
	// The end of the commands is the end of the server.
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := obey(serving, caches, strings.Fields(lines.Text())); err != nil {
			log.Fatalf("%s: %v", lines.Text(), err)
		}
		say("done")
	}
}

func obey(serving *grpc.Server, caches map[string]cache.Cache, words []string) error {
	if len(words) == 2 && words[0] == "serve" {
		listener, err := net.Listen("tcp", words[1])
		if err != nil {
			return err
		}
		say("listening %s", listener.Addr())
		go func() { log.Fatal(serving.Serve(listener)) }()
		return nil
	}
	if len(words) < 3 {
		return fmt.Errorf("too few words")
	}
	linear, ok := caches[words[1]].(*cache.LinearCache)
	if !ok {
		return fmt.Errorf("no such type")
	}
	if words[0] == "delete" {
		return linear.DeleteResource(words[2])
	}
	raw := ""
	if len(words) > 3 {
		raw = words[3]
	}
	content, err := hex.DecodeString(raw)
	if err != nil {
		return err
	}
	// A message without fields keeps bytes it does not know as they are.
	message := &emptypb.Empty{}
	message.ProtoReflect().SetUnknown(content)
	return linear.UpdateResource(words[2], message)
}
