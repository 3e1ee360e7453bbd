package main

// A base is something that mutants are made of by changes to its source, and the test that is
// the suite run on it.
type base struct {
	of      string // what the report calls it
	sources string // the folder of what changes
	changes []change
	tests   string // the folder of the test
	run     string // its name
	real    bool   // its store is real: it mostly waits, so that many cases run side by side
}

var bases = []base{
	{"core", "locker", core, "conformance", "TestReference", false},
	{"memory", "backends/memory", memory, "internal/proof", "TestMemoryOneShard", false},
	{"dirlock", "conformance/examples/dirlock", dirlock, "conformance/examples/dirlock", "TestConformance", true},
	{"Redis", "backends/redis", redisBackend, "internal/proof", "TestRedis", true},
	{"Postgres", "backends/postgres", postgres, "internal/proof", "TestPostgres", true},
}
