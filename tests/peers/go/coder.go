package main

import (
	"context"
	"errors"
	"net/http"

	"github.com/coder/websocket"
)

// coder is github.com/coder/websocket.
type coder struct{}

type coderSocket struct{ *websocket.Conn }

func (coder) accept(writer http.ResponseWriter, request *http.Request) (socket, error) {
	connection, err := websocket.Accept(writer, request, &websocket.AcceptOptions{
		Subprotocols:       protocols,
		InsecureSkipVerify: true,
		CompressionMode:    websocket.CompressionContextTakeover,
	})
	return coderOpened(connection, err)
}

func (coder) dial(target target) (socket, *http.Response, error) {
	mode := websocket.CompressionDisabled
	if target.deflate {
		mode = websocket.CompressionContextTakeover
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	connection, response, err := websocket.Dial(ctx, target.url, &websocket.DialOptions{
		HTTPClient:      &http.Client{Transport: &http.Transport{DialContext: target.connect}},
		Subprotocols:    target.protocols,
		CompressionMode: mode,
	})
	socket, err := coderOpened(connection, err)
	return socket, response, err
}

func coderOpened(connection *websocket.Conn, err error) (socket, error) {
	if err != nil {
		return nil, err
	}
	connection.SetReadLimit(-1)
	return coderSocket{connection}, nil
}

func (socket coderSocket) send(isText bool, data []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	kind := websocket.MessageBinary
	if isText {
		kind = websocket.MessageText
	}
	return socket.Write(ctx, kind, data)
}

func (socket coderSocket) sendFragments(data []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	writer, err := socket.Writer(ctx, websocket.MessageText)
	if err != nil {
		return err
	}
	for len(data) > 0 {
		count := min(fragment, len(data))
		if _, err := writer.Write(data[:count]); err != nil {
			return err
		}
		data = data[count:]
	}
	return writer.Close()
}

func (socket coderSocket) receive() (bool, []byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	kind, data, err := socket.Read(ctx)
	return kind == websocket.MessageText, data, coderError(err)
}

// coderError makes the end of a connection a *closed.
func coderError(err error) error {
	var end websocket.CloseError
	if errors.As(err, &end) {
		return &closed{int(end.Code), end.Reason}
	}
	return lost(err)
}

func (socket coderSocket) ping(pong func()) error {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		// It takes its pong while another goroutine reads.
		if socket.Ping(ctx) == nil {
			pong()
		}
	}()
	for {
		if _, _, err := socket.receive(); err != nil {
			return err
		}
	}
}

func (socket coderSocket) close(code int, reason string) (int, error) {
	// No error: the peer has answered with the same code.
	err := socket.Conn.Close(websocket.StatusCode(code), reason)
	return code, err
}

func (socket coderSocket) drop() { socket.CloseNow() }

func (socket coderSocket) protocol() string { return socket.Subprotocol() }
