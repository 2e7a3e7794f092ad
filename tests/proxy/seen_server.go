// Prints the field Passed of each request that it sees, after its port, one a line.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	handler := func(answer http.ResponseWriter, request *http.Request) {
		fmt.Printf("%q\n", request.Header["Passed"])
		io.Copy(io.Discard, request.Body)
		answer.Write([]byte("okay"))
	}
	server := &http.Server{
		Handler:  http.HandlerFunc(handler),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go server.Serve(listener)
	io.Copy(io.Discard, os.Stdin)
}
