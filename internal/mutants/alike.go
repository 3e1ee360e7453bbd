package main

// alike is a second clause that a mutant breaks as directly as its own.
type alike struct {
	clauses []string
	why     string
}

var (
	twice   = alike{[]string{"MX-001", "MX-003", "MX-004"}, "what is granted although it is held is granted so to the same process and to the other kind too"}
	release = alike{[]string{"REL-001"}, "an Unlock fails, or frees nothing, although the store works"}
	unkept  = alike{[]string{"LOSS-001"}, "nobody asks the store about a session, which is then considered held for ever"}
	untold  = alike{[]string{"LOSS-003"}, "its holder is told nothing of a deletion"}
	strange = alike{[]string{"REL-002"}, "a Release by one who does not hold the key is ErrLost, and nothing else"}
)

// equallyRight names the mutants that a second clause forbids in as many words, so that it may fail
// first. A clause that fails because a case is too broad does not belong here: the case does
// then, and has to be mended.
var equallyRight = map[string]alike{
	"every 7th attempt is granted although the key is held":          twice,
	"of two who ask at the same moment both are granted":             twice,
	"some attempts are granted although the key is held":             twice,
	"a hold that was passed on is refused to nobody":                 twice,
	"owners of one number are one":                                   {[]string{"MX-001"}, "they are of different processes"},
	"one lock for all keys":                                          {[]string{"KEY-002"}, "no two keys collide"},
	"Release is refused while others want the key":                   release,
	"Release waits for its ctx":                                      release,
	"Release at Close is left to the ttl":                            release,
	"a release that was confirmed has no effect now and then":        release,
	"Close releases the first 64 holds":                              release,
	"a repeated Release is an outage":                                strange,
	"a session is released only if it has a token":                   strange,
	"a lease that is extended far is given up":                       {[]string{"EXT-001"}, "Extend makes the lease end d from now"},
	"an error of its own matches two sentinels":                      {[]string{"ERR-001"}, "an error matches one sentinel"},
	"an attempt that is repeated finds the key held":                 {[]string{"FLT-001"}, "an owner whose reply was lost locks itself out"},
	"the token is read after the grant":                              {[]string{"TOK-002"}, "a repetition by the same owner has another token"},
	"a hold is believed in from the reply on":                        {[]string{"TTL-002"}, "the deadline counts from before the attempt was sent"},
	"a session is believed in without being renewed":                 unkept,
	"a loss of the store's data is not noticed":                      unkept,
	"what an administrator does is not noticed":                      unkept,
	"a renewal brings back what is gone":                             untold,
	"a renewal goes by the key alone":                                untold,
	"a renewal that finds nothing tells nobody":                      untold,
	"what has expired can still be released":                         {[]string{"EXT-002"}, "what has expired is extended, too"},
	"the keys are taken in the caller's order":                       {[]string{"MULTI-001"}, "a key that is named twice is not taken once"},
	"a slot is free again when its job is done":                      {[]string{"ONCE-001"}, "the job of one slot runs several times"},
	"a lease ends 50 ms late":                                        {[]string{"TTL-002"}, "the deadline is later than the ttl after the grant"},
	"sessions and leases have files of their own":                    release,
	"a ttl is rounded down to 10 ms":                                 {[]string{"TTL-002"}, "the key is free before its holder's time is up"},
	"a refused attempt prolongs the holder's lease":                  {[]string{"TTL-001"}, "the key is not free at the end of the ttl while others ask for it"},
	"of a step of unknown outcome the first key alone is taken back": {[]string{"CTX-004"}, "the other keys are orphans"},
	"who leaves the line calls nobody to the front":                  {[]string{"WAIT-001"}, "who has got the lock leaves the line too, and no release wakes the next"},
}
