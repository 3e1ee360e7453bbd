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
// In this order, and the first that works is taken:
//
//  1. url: LOCKSTEP_REDIS_URL, for Single; LOCKSTEP_REDIS_CLUSTER_URL, addresses joined by commas, for Cluster.
//     It is used as it is and cannot be broken: Pause, Kill and so on fail the test.
//  2. container: Docker, through testcontainers-go.
//  3. process: a redis-server of this machine, as a child process.
//
// If there is none, the test fails and says what to install. It never skips: a test that did not run is never green.
// A variable that is set and does not work is a failure too; only what is found is optional.
//
//	LOCKSTEP_REDISTEST=url|container|process   this means and no other (private servers cannot be had from
//	                                           a URL: with url they are found in the usual order)
//	LOCKSTEP_REDIS_IMAGE=redis:7.2             the image; otherwise the newest redis:* that Docker has, or
//	                                           else one is pulled
//
// Where no registry can be reached, image/build.sh makes an image from the distribution's Redis package.
//
// # What is left behind
//
// Nothing, however the test ends. Child processes die with the test process (on Linux). Containers and temporary
// directories are removed by a second, tiny process that waits for the end of the first; see reaper.go.
//
// A test that counts goroutines starts its server before it counts: a running server and the connection to Docker
// have some. Servers cannot be started inside a testing/synctest bubble.
package redistest
