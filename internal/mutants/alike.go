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
	tooSoon = alike{[]string{"TTL-002"}, "the key is free before its holder's time is up"}
	inPlace = alike{[]string{"INS-001"}, "Inspect says that a key is free although something stands there"}
	strange = alike{[]string{"REL-002"}, "a Release by one who does not hold the key is ErrLost, and nothing else"}
)

// equallyRight names the mutants that a second clause forbids in as many words, so that it may fail
// first. A clause that fails because a case is too broad does not belong here: the case does
// then, and has to be mended.
var equallyRight = map[string]alike{
	"every 7th attempt is granted although the key is held":                                               twice,
	"of two who ask at the same moment both are granted":                                                  {append(twice.clauses, "REL-001"), twice.why + ", and one of the two cannot release"},
	"some attempts are granted although the key is held":                                                  twice,
	"a hold that was passed on is refused to nobody":                                                      twice,
	"owners of one number are one":                                                                        {[]string{"MX-001"}, "they are of different processes"},
	"one lock for all keys":                                                                               {[]string{"KEY-002"}, "no two keys collide"},
	"Release is refused while others want the key":                                                        release,
	"Release waits for its ctx":                                                                           release,
	"Release at Close is left to the ttl":                                                                 release,
	"a release that was confirmed has no effect now and then":                                             release,
	"Close releases the first 64 holds":                                                                   release,
	"a repeated Release is an outage":                                                                     strange,
	"a session is released only if it has a token":                                                        strange,
	"a lease that is extended far is given up":                                                            {[]string{"EXT-001"}, "Extend makes the lease end d from now"},
	"an error of its own matches two sentinels":                                                           {[]string{"ERR-001"}, "an error matches one sentinel"},
	"an attempt that is repeated finds the key held":                                                      {[]string{"FLT-001"}, "an owner whose reply was lost locks itself out"},
	"the token is read after the grant":                                                                   {[]string{"TOK-002"}, "a repetition by the same owner has another token"},
	"an Extend that moves the end by less than a twentieth of the ttl is not written":                     tooSoon,
	"an Extend by less than a fiftieth of the ttl is taken for done":                                      tooSoon,
	"the release of a session that this client still renews removes the file without reading whose it is": {[]string{"LOSS-002"}, "Unlock of a hold that was taken over is ErrLost"},
	"a renewal sets a session's key anew where it is gone":                                                untold,
	"a hold is believed in from the reply on":                                                             {[]string{"TTL-002"}, "the deadline counts from before the attempt was sent"},
	"a session is believed in without being renewed":                                                      unkept,
	"a loss of the store's data is not noticed":                                                           unkept,
	"a renewal that is not in time counts as a loss":                                                      {[]string{"LOSS-001"}, "a silent store passes for a loss, before the session's time is up"},
	"a renewal gives two thirds of the validity":                                                          {[]string{"LOSS-001"}, "its holder believes in it for longer than a silent store keeps it"},
	"what an administrator does is not noticed":                                                           unkept,
	"a renewal brings back what is gone":                                                                  untold,
	"a renewal goes by the key alone":                                                                     untold,
	"a renewal that finds nothing tells nobody":                                                           untold,
	"what has expired can still be released":                                                              {[]string{"EXT-002"}, "what has expired is extended, too"},
	"the keys are taken in the caller's order":                                                            {[]string{"MULTI-001"}, "a key that is named twice is not taken once"},
	"a slot is free again when its job is done":                                                           {[]string{"ONCE-001"}, "the job of one slot runs several times"},
	"a lease ends 50 ms late":                                                                             {[]string{"TTL-002"}, "the deadline is later than the ttl after the grant"},
	"sessions and leases have files of their own":                                                         release,
	"a ttl is rounded down to 10 ms":                                                                      {[]string{"TTL-002"}, "the key is free before its holder's time is up"},
	"a refused attempt prolongs the holder's lease":                                                       {[]string{"TTL-001"}, "the key is not free at the end of the ttl while others ask for it"},
	"of a step of unknown outcome the first key alone is taken back":                                      {[]string{"CTX-004"}, "the other keys are orphans"},
	"List does not end with its loop":                                                                     {[]string{"CLO-005"}, "whoever leaves its loop early meets a panic"},
	"a lost session ends the round of renewals":                                                           {[]string{"REL-002"}, "a Release that is refused ends the next holder's session"},
	"a lost session takes its batch along":                                                                {[]string{"REL-002"}, "a Release that is refused ends the next holder's session"},
	"List tells names without what they begin with":                                                       {[]string{"ADM-003", "KEY-002"}, "List tells of keys that nobody holds"},
	"a hold that is handed off keeps the note":                                                            {[]string{"ADM-001"}, "Inspect tells another hold's note"},
	"a refusal names the wrong key":                                                                       {[]string{"ERR-001"}, "the error is about a key that is free"},
	"a repeated attempt has another token":                                                                {[]string{"INS-001"}, "Inspect tells another token than the holder has"},
	"a refused attempt takes the holder's token":                                                          {[]string{"TOK-002"}, "the holder has another token afterwards"},
	"a break tells all holders of the client":                                                             {[]string{"KEY-003"}, "a break of one key ends the holds of its neighbours"},
	"nobody is ever granted a key":                                                                        {[]string{"TOK-003"}, "whatever takes a key fails, and this does so first"},
	"a ttl of more than a day is a day":                                                                   tooSoon,
	"a ttl is an int32 of microseconds":                                                                   tooSoon,
	"a ttl is at most a day":                                                                              tooSoon,
	"a ttl is kept in 32 bits of microseconds":                                                            tooSoon,
	"what nobody here wrote counts as a free key":                                                         inPlace,
	"what an administrator wrote in the place of a hold is free if it is JSON":                            inPlace,
	"the end of a hold of more than five seconds is kept in whole seconds, rounded down":                  {[]string{"TTL-003"}, "a long lease is shorter than its ttl"},
	"a session that is gone goes on being renewed":                                                        {[]string{"LOSS-002"}, "its holder hears at last that nobody could renew it"},
	"an outage ends the waiting":                                                                          {[]string{"FLT-001"}, "a Lock whose first reply was lost is not granted"},
	"a life is rounded to seconds":                                                                        {[]string{"TTL-001"}, "the key is free later than at its ttl"},
	"a look at a session writes over what is no lock":                                                     {[]string{"INS-001"}, "what somebody else put there is gone, and Inspect names the one who held it"},
	"who waits for a session has no place in the queue":                                                   {[]string{"INS-001"}, "Inspect does not count it among those who wait"},
	"the ttl of an Extend is not noted, only when it was sent":                                            {[]string{"MX-004", "TTL-002"}, "what is handed off after an Extend to less is believed in for too long"},
	"a List connects as if other callers waited for it":                                                   {[]string{"ADM-003"}, "a List fails beside other calls"},
	"the directory is not locked":                                                                         {[]string{"TOK-001", "INS-002"}, "two steps mint one token, and nothing can stand still"},
	"an attempt looks in one step and takes in another":                                                   {[]string{"WAIT-004"}, "of two who have the key at a time one seems to be served too early"},
	"an attempt overwrites what is held for less than a second":                                           tooSoon,
	"a waiter that gives up ends the hints for all keys of its client":                                    {[]string{"WAIT-001"}, "a release wakes nobody"},
	"a reconnect wakes no waiter":                                                                         {[]string{"WAIT-006"}, "a store that was down and is back leaves the waiter stuck"},
	"a new connection wakes nobody":                                                                       {[]string{"WAIT-006"}, "a store that was down and is back leaves the waiter stuck"},
	"a Close whose ctx has ended does nothing":                                                            {[]string{"CLO-002"}, "what waits goes on after a Close"},
	"the key is claimed before there is a token, and a claim that failed stays":                           {[]string{"ERR-002"}, "a key that nobody was granted is said to be held"},
	"a session is considered held from the answer on":                                                     {[]string{"LOSS-001"}, "its holder believes in it for longer than a silent store keeps it"},
	"who leaves the line calls nobody to the front":                                                       {[]string{"WAIT-001"}, "who has got the lock leaves the line too, and no release wakes the next"},
	"an Extend that shortens is not noted for the next hand-off":                                          {[]string{"MX-004", "MX-001"}, "what is handed off after it is believed in when somebody else has the key"},
	"an Extend of what is free takes it":                                                                  untold,
	"after a broken connection the leases held here are not looked at":                                    untold,
	"a hand-off to one without a note leaves the note":                                                    {[]string{"ADM-001"}, "Inspect tells another hold's note"},
	"the owner is the process":                                                                            {[]string{"INS-001"}, "Inspect names another owner than the one who holds"},
	"a session is renewed for a third of its validity":                                                    {[]string{"LOSS-001"}, "its holder believes in it for longer than a silent store keeps it"},
	"an attempt that is refused keeps its client's one connection for a while":                            {[]string{"REL-001"}, "a release waits for it, too"},
	"a deletion is not reported":                                                                          {[]string{"SES-002"}, "a session that was deleted goes on for its holder"},
	"a session whose attempt was repeated is renewed for the first listener":                              {[]string{"SES-002"}, "a session that was deleted goes on for its holder"},
	"at the end of a turn the key stays taken":                                                            {[]string{"WAIT-001"}, "a release frees nothing for those who wait"},
	"SessionErr believes in nothing":                                                                      {[]string{"TOK-003"}, "whatever takes a session fails, and this does so first"},
	"an internal timeout of 500 ms":                                                                       {[]string{"SES-001"}, "a session whose renewals are answered later than that is lost"},
	"only the first half of an owner's instance is kept and compared":                                     {[]string{"INS-001"}, "Inspect names another owner than the one who holds"},
	"a client that opens sweeps away holds whose end is absurdly far, as after the clock was set back":    {[]string{"TTL-004"}, "a long lease does not outlive its process"},
}
