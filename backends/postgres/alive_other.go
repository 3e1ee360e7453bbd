//go:build !unix

package postgres

import "net"

// alive cannot be told here: the first use of a connection that the server has closed fails.
func alive(net.Conn) bool { return true }
