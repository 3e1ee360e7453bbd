package conformance

import (
	"slices"
	"strings"
)

// Kind is the kind of hold that a case asks for.
type Kind string

// The kinds.
const (
	Lease   Kind = "lease"   // ends at its ttl unless it is extended
	Session Kind = "session" // lasts until it is released
)

var both = []Kind{Lease, Session}

// Case is one clause of the contract and the proof of it.
type Case struct {
	// ID is the clause's id, and the subtest's name, for ever.
	ID string
	// Clause is the requirement.
	Clause string
	// Why is what goes wrong for users where the clause is broken.
	Why string
	// Kinds are the kinds of hold for which the case runs, as subtests ID/kind; none where the kind
	// makes no difference.
	Kinds []Kind
	// Parts divide a case that needs different things for different parts of its
	// clause, as subtests ID/part or ID/kind/part; none for most. A case may have parts beside
	// what it proves itself, as subtests below its own.
	Parts []Part
	// Needs are what the whole case cannot run without.
	Needs []Need
	// CoreLoop says that a backend which waits by itself runs the case a second time with
	// that ability hidden, as ID/kind/core-loop.
	CoreLoop bool

	fn func(*trial)
}

// Part is a part of a case.
type Part struct {
	Name  string
	Kinds []Kind // a subset of the case's; none for all of them
	Needs []Need // beside the case's

	fn func(*trial)
}

// Cases is the catalogue, in the order of the contract.
func Cases() []Case {
	all := slices.Concat(mxCases, ttlCases, extendCases, releaseCases, tokenCases, lossCases,
		waitCases, contextCases, keyCases, closeCases, errorCases, sessionCases, inspectCases, concCases, faultCases,
		keepCases, electCases, onceCases, multiCases, adminCases)
	for i := range all {
		all[i].Why = reasons[all[i].ID]
	}
	return all
}

const coreLoop = "core-loop"

// leaf is one subtest that does something.
type leaf struct {
	Case
	kind     Kind
	part     string
	coreLoop bool
	tampers  bool // it makes the backend's calls fail or slow, as no driver.Local's are
	needs    []Need
	fn       func(*trial)
}

// path is the leaf's name below the test that called Run.
func (l leaf) path() string {
	s := []string{l.ID}
	if l.kind != "" {
		s = append(s, string(l.kind))
	}
	if l.part != "" {
		s = append(s, l.part)
	}
	if l.coreLoop {
		s = append(s, coreLoop)
	}
	return strings.Join(s, "/")
}

// clauseAndPart is path without the kind.
func (l leaf) clauseAndPart() string {
	if l.part == "" {
		return l.ID
	}
	return l.ID + "/" + l.part
}

// leaves are what c consists of, without its repetitions in the core's own loop.
func (c Case) leaves() []leaf {
	kinds := c.Kinds
	if len(kinds) == 0 {
		kinds = []Kind{""}
	}
	var all []leaf
	for _, k := range kinds {
		if c.fn != nil {
			all = append(all, leaf{Case: c, kind: k, needs: c.Needs, fn: c.fn})
		}
		for _, p := range c.Parts {
			if k != "" && len(p.Kinds) > 0 && !slices.Contains(p.Kinds, k) {
				continue
			}
			all = append(all, leaf{Case: c, kind: k, part: p.Name, needs: slices.Concat(c.Needs, p.Needs), fn: p.fn})
		}
	}
	return all
}

// matches says whether an id that was given to Known means l: a case's id means all its
// leaves, a longer path those at and below it. A repetition in the core's own loop below such a
// path, and a part beside what a case proves itself, must be named themselves, because they may
// behave differently.
func (l leaf) matches(id string) bool {
	if l.part != "" && l.Case.fn != nil {
		return id == l.path()
	}
	return id == l.ID || id == l.path() || !l.coreLoop && strings.HasPrefix(l.path(), id+"/")
}

// within says whether an id that was given to Only means l, or what stands below it.
func (l leaf) within(id string) bool {
	if l.matches(id) || strings.HasPrefix(l.path(), id+"/") {
		return true
	}
	l.coreLoop = l.CoreLoop
	return l.matches(id)
}
