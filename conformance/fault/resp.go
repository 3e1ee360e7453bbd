package fault

import (
	"bytes"
	"strconv"
	"strings"
)

// RESP is the protocol of Redis and Valkey, versions 2 and 3. Commands that set a connection up
// or keep it alive do not count: HELLO, AUTH, CLIENT, PING and the like.
func RESP() Frames { return resp{} }

type resp struct{}

// aside are the commands that do not count.
var aside = map[string]bool{
	"HELLO": true, "AUTH": true, "CLIENT": true, "PING": true, "SELECT": true, "INFO": true, "COMMAND": true,
	"READONLY": true, "READWRITE": true, "ROLE": true, "CLUSTER": true, "SENTINEL": true, "SUBSCRIBE": true,
	"PSUBSCRIBE": true, "SSUBSCRIBE": true, "UNSUBSCRIBE": true, "PUNSUBSCRIBE": true, "SUNSUBSCRIBE": true, "QUIT": true,
}

func (resp) Request(data []byte) Message {
	n := value(data)
	return Message{Len: n, Counts: n > 0 && !aside[command(data[:n])], Ends: true}
}

func (resp) Reply(data []byte) Message {
	n := value(data)
	push := n > 0 && data[0] == '>'
	return Message{Len: n, Ends: !push, Unasked: push}
}

// command is the name of the command in data, in upper case.
func command(data []byte) string {
	if data[0] != '*' { // inline
		name, _, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
		return strings.ToUpper(name)
	}
	lines := bytes.SplitN(data, []byte("\r\n"), 4)
	if len(lines) < 4 {
		return ""
	}
	return strings.ToUpper(string(lines[2]))
}

// value is the length of the value that data begins with; 0 if it is not all there.
func value(data []byte) int {
	end := bytes.Index(data, []byte("\r\n"))
	if end < 1 {
		return 0
	}
	n := end + 2
	size, err := strconv.Atoi(string(data[1:end]))
	children := 0
	switch data[0] {
	case '$', '!', '=': // so many bytes
		if err != nil || size < 0 {
			return n
		}
		if n += size + 2; n > len(data) {
			return 0
		}
		return n
	case '*', '~', '>':
		children = size
	case '%':
		children = 2 * size
	case '|': // attributes stand before the value that they are about
		children = 2*size + 1
	}
	for ; children > 0; children-- {
		m := value(data[n:])
		if m == 0 {
			return 0
		}
		n += m
	}
	return n
}
