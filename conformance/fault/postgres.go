package fault

import "encoding/binary"

// Postgres is the protocol of PostgreSQL, version 3, without TLS. A request is everything up to
// a Query or a Sync, and its reply everything up to ReadyForQuery. The start of a connection does
// not count, nor does an empty query, by which pools look whether a connection works.
func Postgres() Frames { return &postgres{starting: true} }

type postgres struct {
	starting bool // the client has yet to send its StartupMessage
	asked    bool // it has asked for encryption: the answer is one byte
}

const (
	pgCancel = 80877102
	pgSSL    = 80877103
	pgGSS    = 80877104
)

func (p *postgres) Request(data []byte) Message {
	if p.starting {
		n := length(data, 0)
		if n < 8 {
			return Message{}
		}
		switch binary.BigEndian.Uint32(data[4:]) {
		case pgSSL, pgGSS:
			p.asked = true
			return Message{Len: n}
		case pgCancel:
			return Message{Len: n}
		}
		p.starting = false
		return Message{Len: n, Ends: true}
	}
	whole := 0 // of messages that belong to one request
	for counts := false; ; {
		n := length(data[whole:], 1)
		if n == 0 {
			return Message{}
		}
		kind, body := data[whole], data[whole+5:whole+n]
		whole += n
		switch kind {
		case 'Q':
			return Message{Len: whole, Counts: !empty(body), Ends: true}
		case 'S':
			return Message{Len: whole, Counts: counts, Ends: true}
		case 'P': // a name, and the query
			counts = counts || !empty(afterZero(body))
		case 'B', 'E', 'F':
			counts = true
		case 'H', 'X', 'p', 'd', 'c', 'f': // the client waits for an answer of another kind, or for none
			return Message{Len: whole}
		}
	}
}

func (p *postgres) Reply(data []byte) Message {
	if p.asked {
		if len(data) == 0 {
			return Message{}
		}
		p.asked = false
		return Message{Len: 1}
	}
	n := length(data, 1)
	if n == 0 {
		return Message{}
	}
	switch data[0] {
	case 'Z':
		return Message{Len: n, Ends: true}
	case 'A', 'N', 'S': // a notification, a notice, a parameter that has changed
		return Message{Len: n, Unasked: true}
	}
	return Message{Len: n}
}

// length is that of the message at the beginning of data, whose length field stands at at; 0 if
// it is not all there.
func length(data []byte, at int) int {
	if len(data) < at+4 {
		return 0
	}
	if n := at + int(binary.BigEndian.Uint32(data[at:])); n <= len(data) {
		return n
	}
	return 0
}

func afterZero(b []byte) []byte {
	for i, x := range b {
		if x == 0 {
			return b[i+1:]
		}
	}
	return nil
}

// empty says whether a query does nothing: "", ";", "-- ping", "SELECT 1" is one that does.
func empty(body []byte) bool {
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case 0:
			return true
		case ' ', '\t', '\n', '\r', ';':
		case '-':
			return i+1 < len(body) && body[i+1] == '-'
		default:
			return false
		}
	}
	return true
}
