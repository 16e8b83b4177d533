package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/url"
	"strings"
)

const large = 1024 * 1024

// many messages are sent before the first one is read.
const many = 200

// caller is a client of one Service.
type caller struct {
	maker, name, address string
}

// target is a WebSocket to open.
type target struct {
	url       string
	protocols []string
	deflate   bool
	// connect opens the connection to the proxy, whatever the name.
	connect func(context.Context, string, string) (net.Conn, error)
}

// opened is what a case works with.
type opened struct {
	socket
	// extensions are those that were agreed on.
	extensions string
}

func (caller caller) target(service, path string) target {
	_, port, _ := net.SplitHostPort(caller.address)
	return target{
		url:     fmt.Sprintf("ws://%s.shop.maesh:%s%s", service, port, path),
		deflate: true,
		connect: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, caller.address)
		},
	}
}

// call runs all cases, one after the other.
func call(maker maker, caller caller) {
	open := func(target target) (opened, error) {
		socket, response, err := maker.dial(target)
		if err != nil {
			return opened{}, err
		}
		return opened{socket, response.Header.Get("Sec-WebSocket-Extensions")}, nil
	}
	say("result", caller.name, "refused", refused(maker, caller))
	for _, one := range cases(caller) {
		result := func() string {
			socket, err := open(one.target)
			if err != nil {
				return "failed: " + err.Error()
			}
			defer socket.drop()
			result, err := one.run(socket)
			if err != nil {
				return "failed: " + err.Error()
			}
			return result
		}()
		say("result", caller.name, one.name, result)
	}
}

func refused(maker maker, caller caller) string {
	socket, response, err := maker.dial(caller.target(caller.name, "/refuse"))
	if err == nil {
		socket.drop()
		return "accepted"
	}
	if response == nil {
		return "failed: " + err.Error()
	}
	body, _ := io.ReadAll(response.Body)
	return fmt.Sprintf("%d %s", response.StatusCode, strings.TrimSpace(string(body)))
}

// clientCase is a case: where it connects to, and what it does there.
type clientCase struct {
	name   string
	target target
	run    func(opened) (string, error)
}

func cases(caller caller) []clientCase {
	at := func(path string) target { return caller.target(caller.name, path) }
	plain := func(target target) target {
		target.deflate = false
		return target
	}
	offering := at("/echo")
	offering.protocols = []string{"one", "two"}
	all := []clientCase{
		{"text", at("/echo"), func(socket opened) (string, error) { return socket.asked(text) }},
		{"binary", at("/echo"), binary},
		{"empty", at("/echo"), func(socket opened) (string, error) {
			got, err := socket.asked("")
			return fmt.Sprintf("%d bytes", len(got)), err
		}},
		{"large-text", at("/echo"), func(socket opened) (string, error) { return socket.same(true, noise(large, 32, 95)) }},
		{"large-binary", at("/echo"), func(socket opened) (string, error) { return socket.same(false, noise(large, 0, 256)) }},
		{"order", at("/echo"), order},
		{"first", at("/first"), opened.text},
		{"subprotocol", offering, func(socket opened) (string, error) {
			_, err := socket.asked("a")
			return socket.protocol(), err
		}},
		{"fragments-sent", plain(at("/echo")), func(socket opened) (string, error) {
			if err := socket.sendFragments([]byte(text)); err != nil {
				return "", err
			}
			return socket.text()
		}},
		{"fragments-received", plain(at("/fragments")), func(socket opened) (string, error) { return socket.asked(text) }},
		{"ping-sent", at("/echo"), pinged},
		{"ping-received", at("/ping"), opened.text},
		{"deflate", caller.target(caller.name+"-from-"+caller.maker, "/echo"), deflate},
		{"dropped", at("/drop"), func(socket opened) (string, error) {
			if err := socket.send(true, []byte("a")); err != nil {
				return "", err
			}
			end, err := socket.end()
			return fmt.Sprint(end.code), err
		}},
	}
	for _, code := range []int{1000, 1001, 3000, 4999} {
		id := fmt.Sprintf("%s-%s-%d", caller.maker, caller.name, code)
		query := url.Values{"code": {fmt.Sprint(code)}, "reason": {reason}}.Encode()
		all = append(all,
			clientCase{fmt.Sprintf("close-%d-sent", code), at("/echo?id=" + id), func(socket opened) (string, error) {
				if _, err := socket.asked("a"); err != nil {
					return "", err
				}
				echoed, err := socket.close(code, reason)
				return fmt.Sprint(echoed), err
			}},
			clientCase{fmt.Sprintf("close-%d-received", code), at("/close?" + query), func(socket opened) (string, error) {
				end, err := socket.end()
				return fmt.Sprintf("%d %s", end.code, end.reason), err
			}},
		)
	}
	return all
}

func binary(socket opened) (string, error) {
	sent := make([]byte, 256)
	for index := range sent {
		sent[index] = byte(index)
	}
	result, err := socket.same(false, sent)
	if result == "same" {
		result = fmt.Sprintf("%d bytes", len(sent))
	}
	return result, err
}

func pinged(socket opened) (string, error) {
	pong, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- socket.ping(func() { close(pong) }) }()
	select {
	case <-pong:
		return "pong are you there", nil
	case err := <-ended:
		return "", err
	}
}

func order(socket opened) (string, error) {
	for index := range many {
		if err := socket.send(true, fmt.Append(nil, index)); err != nil {
			return "", err
		}
	}
	for index := range many {
		got, err := socket.text()
		if err != nil || got != fmt.Sprint(index) {
			return fmt.Sprintf("%s in place of %d", got, index), err
		}
	}
	return fmt.Sprintf("%d in order", many), nil
}

func deflate(socket opened) (string, error) {
	negotiated := "not negotiated"
	if strings.Contains(socket.extensions, "permessage-deflate") {
		negotiated = "negotiated"
	}
	result, err := socket.same(true, bytes.Repeat([]byte("maesh "), large/6))
	if err != nil {
		return "", err
	}
	_, err = socket.close(1000, "")
	return negotiated + ", " + result, err
}

// text is the next message, which must be a text.
func (socket opened) text() (string, error) {
	isText, data, err := socket.receive()
	if err == nil && !isText {
		err = errors.New("binary in place of text")
	}
	return string(data), err
}

// asked sends a text, and returns what comes back.
func (socket opened) asked(text string) (string, error) {
	if err := socket.send(true, []byte(text)); err != nil {
		return "", err
	}
	return socket.text()
}

// same sends a message, and says whether the same comes back.
func (socket opened) same(isText bool, data []byte) (string, error) {
	if err := socket.send(isText, data); err != nil {
		return "", err
	}
	gotText, got, err := socket.receive()
	if gotText != isText || !bytes.Equal(got, data) {
		return "not the same", err
	}
	return "same", err
}

// end waits for the end of the connection.
func (socket opened) end() (closed, error) {
	for {
		_, _, err := socket.receive()
		var end *closed
		if errors.As(err, &end) {
			return *end, nil
		}
		if err != nil {
			return closed{}, err
		}
	}
}

// noise is pseudo-random bytes from `first` on, so that compression does not make them few.
func noise(length, first, count int) []byte {
	source := rand.New(rand.NewSource(1))
	data := make([]byte, length)
	for index := range data {
		data[index] = byte(first + source.Intn(count))
	}
	return data
}
