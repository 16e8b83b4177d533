// Command coredns is CoreDNS with the plugins that clusters and the tests use, and no others: without the clouds'
// libraries it builds in a third of the time.
package main

import (
	"slices"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/acl"
	_ "github.com/coredns/coredns/plugin/any"
	_ "github.com/coredns/coredns/plugin/autopath"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/bufsize"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/cancel"
	_ "github.com/coredns/coredns/plugin/debug"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/header"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/metadata"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/minimal"
	_ "github.com/coredns/coredns/plugin/nsid"
	_ "github.com/coredns/coredns/plugin/pprof"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/root"
	_ "github.com/coredns/coredns/plugin/template"
	_ "github.com/coredns/coredns/plugin/tls"
	_ "github.com/coredns/coredns/plugin/transfer"
	_ "github.com/coredns/coredns/plugin/view"
	_ "github.com/coredns/coredns/plugin/whoami"
)

// kept lists the directives of the plugins above. A directive without its plugin would make the server refuse to start
// only when a Corefile names it; taken out of the order, the refusal says "Unknown directive".
var kept = []string{
	"root", "metadata", "cancel", "tls", "reload", "nsid", "bufsize", "bind", "debug", "ready", "health", "pprof",
	"prometheus", "errors", "log", "acl", "any", "loadbalance", "cache", "rewrite", "header", "autopath", "minimal",
	"template", "transfer", "hosts", "kubernetes", "file", "loop", "forward", "whoami", "view",
}

func init() {
	// The order of plugins is CoreDNS's own; ours only says which ones are there.
	dnsserver.Directives = slices.DeleteFunc(slices.Clone(dnsserver.Directives), func(name string) bool {
		return !slices.Contains(kept, name)
	})
}

func main() {
	coremain.Run()
}
