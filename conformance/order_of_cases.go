package conformance

import (
	"slices"
	"strings"
)

// readingOrder is the order in which the cases run, and in which failures are best read: a case
// comes after those whose clauses it takes for granted. Where Release does not free the key,
// say, REL-001 fails first, and a hundred others that release a key now and then fail after it.
//
// What comes first needs the least. Nearly all cases use several keys at once, take and release.
// After that comes what a call says, then what time does, for which a case waits; then who may
// do what with a hold; what ends it; those who wait; what a client keeps of its own; calls
// without an answer; and last what many do at the same time, which fails for nearly any fault, and
// what is built on all that.
var readingOrder = strings.Fields(`
	TOK-003 REL-001 KEY-002 KEY-001 EXT-004 ERR-001 ERR-003 MX-002 MX-003 MX-004 CLO-001
	TTL-002 LOSS-001 WAIT-001 TTL-001 EXT-001 TTL-005 TTL-003 TTL-004
	SES-002 TOK-002 TOK-001 TOK-005 KEY-003 INS-001 INS-002
	LOSS-003 FLT-001 EXT-002 REL-002 REL-003 REL-005 REL-004
	SES-001 LOSS-002 LOSS-004 LOSS-005
	ERR-002 FLT-005 CTX-004 ERR-004 CTX-001 CTX-002 CTX-003
	WAIT-003 WAIT-002 WAIT-004 WAIT-005 WAIT-006
	CLO-002 CLO-003 CLO-004 CLO-005
	EXT-003 REL-006
	FLT-002 FLT-003 FLT-004 FLT-006 FLT-007 FLT-008 FLT-009
	WAIT-007 TOK-004 MX-001 CONC-001 CONC-002
`)

// rankOf is where the cases of a clause stand in it; those that it does not name come last.
func rankOf(id string) int {
	if i := slices.Index(readingOrder, id); i >= 0 {
		return i
	}
	return len(readingOrder) + slices.IndexFunc(Cases(), func(c Case) bool { return c.ID == id })
}

// before says whether the cases of clause a come before those of clause b.
func before(a, b string) bool { return rankOf(a) < rankOf(b) }

// elementaryFirst sorts cases by readingOrder.
func elementaryFirst(all []Case) []Case {
	slices.SortStableFunc(all, func(a, b Case) int { return rankOf(a.ID) - rankOf(b.ID) })
	return all
}
