// Package redistest gives a test a real Redis, and ways to break it.
//
//	func TestSomething(t *testing.T) {
//		srv := redistest.Single(t)             // one server for all tests of this process
//		client := connect(srv.URL())           // redis://127.0.0.1:21345
//		…
//		srv.Do(t, "DEL", key)                  // what an administrator would type
//	}
//
//	func TestFault(t *testing.T) {
//		srv := redistest.Start(t)              // a server of its own, gone when the test ends
//		proxy := redistest.NewProxy(t, srv.Addr())
//		client := connect(proxy.URL())
//		proxy.BlackHole(true, true)            // a partition
//		srv.Kill(t)                            // a crash; srv.Restart(t) comes back empty, on the same address
//	}
//
// Single and Cluster are shared by all tests of one process and started by the first that asks. Start,
// StartCluster and StartSentinel give a test its own. A test that breaks a server, flushes it, or counts its
// commands wants its own. Nothing has to be closed, and no TestMain is needed.
//
// # Where the Redis comes from
//
// A redis-server of this machine runs as a child process: it answers after 10 ms, can be paused, killed and restarted
// on its address, and needs neither a daemon nor a registry. There is no way by a container beside it, because a
// container can break nothing that a process cannot (ADR 13).
//
//	LOCKSTEP_REDIS_SERVER=/opt/valkey/bin/valkey-server   another program, or another version
//	LOCKSTEP_REDIS_URL=redis://…                          for Single: a Redis that runs already, in a container
//	                                                      or anywhere. It is used as it is.
//
// If there is none, the test fails and says what to install. It never skips: a test that did not run is never green.
// A variable that is set and does not work is a failure too.
//
// # What is left behind
//
// Nothing, however the test ends. Child processes die with the test process (on Linux). Temporary directories are
// removed by a shell that waits for the end of the test process; see reaper.go.
//
// A test that counts goroutines starts its server before it counts: a running server has some. Servers cannot be
// started inside a testing/synctest bubble. The package needs Unix, as redis-server does.
package redistest
