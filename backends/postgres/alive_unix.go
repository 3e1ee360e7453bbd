//go:build unix

package postgres

import (
	"net"
	"syscall"
)

// alive says whether an idle connection is still open, without a round trip: a server that
// closed it has said so, and there is something to read. What else there may be to read, such as
// a changed setting, costs a new connection, and is rare.
func alive(conn net.Conn) bool {
	for {
		inner, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = inner.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	// Control rather than Read, which would wait for whoever reads the connection: after a
	// write that took long, a goroutine of pgx's does, until something comes.
	err = raw.Control(func(fd uintptr) {
		var buf [1]byte
		_, _, err := syscall.Recvfrom(int(fd), buf[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
	})
	return err == nil && quiet
}
