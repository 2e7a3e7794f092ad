// Forwards requests and upgrades by httputil.ReverseProxy.  reverse_proxy PORT UPSTREAM
package main

import (
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

func main() {
	upstream, err := url.Parse("http://127.0.0.1:" + os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(upstream)
	// By default it keeps two connections only.
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 100
	proxy.Transport = transport
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	server := &http.Server{
		Addr:     "127.0.0.1:" + os.Args[1],
		Handler:  proxy,
		ErrorLog: proxy.ErrorLog,
	}
	log.Fatal(server.ListenAndServe())
}
