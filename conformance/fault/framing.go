package fault

// Framing tells the messages of a protocol apart. It makes one Frames for each connection.
type Framing func() Frames

// Frames finds the messages of one connection, in the order in which they come. Its methods are
// called with the bytes that have arrived and were not yet part of a message, and never at the
// same time.
type Frames interface {
	// Request finds the first whole message of what the client has sent.
	Request(data []byte) Message
	// Reply finds the first whole message of what the store has sent.
	Reply(data []byte) Message
}

// Message describes the message at the beginning of some bytes.
type Message struct {
	// Len is the message's length in bytes; 0 if more has to arrive first.
	Len int
	// Counts says of a request that it is one of those that LoseReplies and LoseRequests are
	// about, rather than what a client sends by itself to set a connection up or to keep it.
	Counts bool
	// Ends says of a request that the store will answer it, and of a message of the store that
	// it is the end of such an answer.
	Ends bool
	// Unasked says of a message of the store that it belongs to no answer.
	Unasked bool
}

// Opaque takes whatever arrives in one piece for one request, or for the reply to the request
// before.
func Opaque() Frames { return opaque{} }

type opaque struct{}

func (opaque) Request(data []byte) Message {
	return Message{Len: len(data), Counts: true, Ends: true}
}
func (opaque) Reply(data []byte) Message { return Message{Len: len(data), Ends: true} }
