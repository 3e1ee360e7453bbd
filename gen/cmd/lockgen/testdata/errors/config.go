// Package errors has a struct for each thing that cannot be described.
package errors

import "net/url"

// Unnamed has a field without a json name.
type Unnamed struct {
	// A is a field.
	A string
}

// Silent has a field without a comment.
type Silent struct {
	// A is a field.
	A string `json:"a"`

	B string `json:"b"`
}

// Foreign has a type of another package.
type Foreign struct {
	// A is a URL.
	A url.URL `json:"a"`
}

// Lists has a list of lists.
type Lists struct {
	// A is too deep.
	A [][]string `json:"a"`
}

// Loop contains itself.
type Loop struct {
	// A is itself.
	A *Loop `json:"a"`
}

// Embeds has an embedded field.
type Embeds struct {
	Lists
}

// Code has code in a comment.
type Code struct {
	// A is explained at length:
	//
	//	like so
	A string `json:"a"`
}

// Empty has nothing.
type Empty struct{}

// Word is no struct.
type Word string
