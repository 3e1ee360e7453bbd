package driver

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"unique"
)

// Secret is a value of a configuration that no text may show: a password, a token. It prints,
// marshals and logs as (hidden), and the empty one as nothing. Two of the same value are equal.
//
// The value stands behind a pointer: a string type with a Format method would be shown all the
// same where it is in an unexported field of what is printed, because package fmt calls no
// methods there.
type Secret struct{ of unique.Handle[string] }

const hidden = "(hidden)"

// NewSecret is the secret with that value. Users write locker.Secret.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{} // left out
	}
	return Secret{unique.Make(value)}
}

// Reveal is the value, for the connection that needs it.
func (s Secret) Reveal() string {
	if s == (Secret{}) {
		return "" // the zero Handle has no value
	}
	return s.of.Value()
}

// String is (hidden), or nothing for the empty secret.
func (s Secret) String() string {
	if s == (Secret{}) {
		return ""
	}
	return hidden
}

// GoString is String, so that %#v shows no more.
func (s Secret) GoString() string { return s.String() }

// Format prints String for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue is String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is String, for encoding/json and the like.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText sets the value. What MarshalText has written is refused: taken for a password,
// it would fail much later, at the store.
func (s *Secret) UnmarshalText(text []byte) error {
	if string(text) == hidden {
		return errors.New("it is hidden: this was printed, not written as a source")
	}
	*s = NewSecret(string(text))
	return nil
}

// GobEncode is String.
func (s Secret) GobEncode() ([]byte, error) { return s.MarshalText() }

// GobDecode gives the empty secret: the value was not sent.
func (s *Secret) GobDecode([]byte) error {
	*s = Secret{}
	return nil
}
