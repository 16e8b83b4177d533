package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

// gorilla is github.com/gorilla/websocket.
type gorilla struct{}

type gorillaSocket struct{ *websocket.Conn }

// fragment is a buffer for three bytes of payload: each is sent as a fragment once it is full.
const fragment = 3

func (gorilla) accept(writer http.ResponseWriter, request *http.Request) (socket, error) {
	upgrader := websocket.Upgrader{
		EnableCompression: true,
		Subprotocols:      protocols,
		CheckOrigin:       func(*http.Request) bool { return true },
	}
	if request.URL.Path == "/fragments" {
		upgrader.WriteBufferSize = fragment
	}
	connection, err := upgrader.Upgrade(writer, request, nil)
	if err != nil {
		return nil, err
	}
	return gorillaSocket{connection}, nil
}

func (gorilla) dial(target target) (socket, *http.Response, error) {
	dialer := websocket.Dialer{
		NetDialContext:    target.connect,
		EnableCompression: target.deflate,
		Subprotocols:      target.protocols,
		HandshakeTimeout:  limit,
	}
	if !target.deflate {
		dialer.WriteBufferSize = fragment
	}
	connection, response, err := dialer.DialContext(context.Background(), target.url, nil)
	if err != nil {
		return nil, response, err
	}
	return gorillaSocket{connection}, response, nil
}

func (socket gorillaSocket) send(isText bool, data []byte) error {
	kind := websocket.BinaryMessage
	if isText {
		kind = websocket.TextMessage
	}
	return socket.WriteMessage(kind, data)
}

func (socket gorillaSocket) sendFragments(data []byte) error {
	writer, err := socket.NextWriter(websocket.TextMessage)
	if err != nil {
		return err
	}
	if _, err := writer.Write(data); err != nil {
		return err
	}
	return writer.Close()
}

func (socket gorillaSocket) receive() (bool, []byte, error) {
	socket.SetReadDeadline(time.Now().Add(limit))
	kind, data, err := socket.ReadMessage()
	return kind == websocket.TextMessage, data, gorillaError(err)
}

// gorillaError makes the end of a connection a *closed.
func gorillaError(err error) error {
	var end *websocket.CloseError
	if errors.As(err, &end) {
		return &closed{end.Code, end.Text}
	}
	return lost(err)
}

func (socket gorillaSocket) ping(pong func()) error {
	socket.SetPongHandler(func(data string) error {
		if data == "are you there" {
			pong()
		}
		return nil
	})
	if err := socket.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(limit)); err != nil {
		return err
	}
	for {
		if _, _, err := socket.receive(); err != nil {
			return err
		}
	}
}

func (socket gorillaSocket) close(code int, reason string) (int, error) {
	message := websocket.FormatCloseMessage(code, reason)
	if err := socket.WriteControl(websocket.CloseMessage, message, time.Now().Add(limit)); err != nil {
		return 0, err
	}
	for {
		_, _, err := socket.receive()
		var end *closed
		if errors.As(err, &end) {
			return end.code, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func (socket gorillaSocket) drop() { socket.Conn.Close() }

func (socket gorillaSocket) protocol() string { return socket.Subprotocol() }
