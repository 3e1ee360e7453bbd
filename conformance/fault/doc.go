// Package fault provides a proxy that does to the connections between a backend and its store
// what networks do: it delays, cuts and swallows, in each direction, and loses single requests
// and replies. With it an author has [conformance.Inject.Client] in a few lines:
//
//	Client: func(tb testing.TB) (driver.Backend, conformance.Line) {
//		proxy := fault.New(tb, store.Addr, fault.RESP)
//		b, err := yourbackend.Open(tb.Context(), yourbackend.Config{Addr: proxy.Addr()})
//		if err != nil {
//			tb.Fatal(err)
//		}
//		return b, proxy.Line()
//	},
//
// To lose one request, or the reply to it, the proxy must know where requests begin and end: a
// [Framing] says so. There are [RESP] (Redis, Valkey) and [Postgres]; for another protocol, write
// one with two methods ([Frames]). With [Opaque], for any other protocol or under TLS, whatever
// arrives in one piece counts as a request.
//
// What it does not do: it loses bytes, never packets, so that the effects of lost packets on TCP,
// such as a late retransmission, do not occur; and a connection can always be made.
package fault
