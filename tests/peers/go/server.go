package main

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"
)

const (
	limit  = 10 * time.Second
	reason = "bye ü"
	text   = "grüße, 世界 🦀"
)

// protocols are the subprotocols that a server knows.
var protocols = []string{"two", "three"}

// closed is the end of a connection: the code and the reason of the peer's close frame, 1006 without one.
type closed struct {
	code   int
	reason string
}

func (end *closed) Error() string { return "closed, code " + strconv.Itoa(end.code) }

// lost makes the end of a connection without a close frame a *closed.
func lost(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return &closed{1006, ""}
	}
	return err
}

// maker is a library.
type maker interface {
	// accept takes part in a handshake as the server, and refuses it by itself where it must.
	accept(http.ResponseWriter, *http.Request) (socket, error)
	// dial opens a WebSocket.
	dial(target target) (socket, *http.Response, error)
}

// socket is an open WebSocket of either side.
type socket interface {
	send(isText bool, data []byte) error
	// sendFragments sends a text in fragments of three bytes, which end within characters.
	sendFragments(data []byte) error
	receive() (isText bool, data []byte, err error)
	// ping sends one, and reads until the connection ends; it calls `pong` once the pong has come, and drops messages.
	ping(pong func()) error
	// close says goodbye, and returns the code that the peer answers with.
	close(code int, reason string) (int, error)
	// drop ends the connection without a goodbye.
	drop()
	protocol() string
}

func serve(maker maker, address string) error {
	return http.ListenAndServe(address, http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if request.URL.Path == "/refuse" {
			http.Error(writer, "no entry", http.StatusForbidden)
			return
		}
		socket, err := maker.accept(writer, request)
		if err != nil {
			return
		}
		defer socket.drop()
		query := request.URL.Query()
		err = answer(socket, request.URL.Path, query)
		var end *closed
		if errors.As(err, &end) {
			say("close", query.Get("id"), end.code, end.reason)
		}
	}))
}

// answer does what the path asks for, until the connection ends.
func answer(socket socket, path string, query url.Values) error {
	switch path {
	case "/first":
		if err := socket.send(true, []byte("first")); err != nil {
			return err
		}
	case "/ping":
		return socket.ping(func() { _ = socket.send(true, []byte("pong are you there")) })
	case "/close":
		code, _ := strconv.Atoi(query.Get("code"))
		_, err := socket.close(code, query.Get("reason"))
		return err
	}
	for {
		isText, data, err := socket.receive()
		switch {
		case err != nil:
			return err
		case path == "/drop":
			return nil
		case path == "/fragments":
			err = socket.sendFragments(data)
		default:
			err = socket.send(isText, data)
		}
		if err != nil {
			return err
		}
	}
}
